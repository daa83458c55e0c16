"""A moment is never later than the seconds that it was made of."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from control.moments import MICROSECOND, moment

SECONDS = st.floats(min_value=2**30 + 1, max_value=2**31 - 100_001)
"""2004 to 2038: seconds of one precision, so that the sum below is not rounded itself."""
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


@given(SECONDS, st.integers(min_value=1, max_value=100_000))
def test_what_expires_in_n_seconds_is_expired_n_seconds_later(now: float, seconds: int) -> None:
    expires_at = moment(now) + timedelta(seconds=seconds)
    assert expires_at.timestamp() <= now + seconds


@given(st.integers(min_value=0, max_value=(LAST - FIRST) // MICROSECOND))
def test_a_moment_that_became_seconds_comes_back_unchanged(microseconds: int) -> None:
    at = FIRST + microseconds * MICROSECOND
    assert moment(at.timestamp()) == at

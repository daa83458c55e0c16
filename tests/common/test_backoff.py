from hypothesis import given
from hypothesis import strategies as st

from common.backoff import Backoff


def test_each_pause_is_longer_by_the_factor_until_the_bound() -> None:
    backoff = Backoff(first_seconds=0.5, max_seconds=60, factor=4)
    assert [backoff.seconds(failures) for failures in (1, 2, 3, 4, 5, 100)] == [0.5, 2, 8, 32, 60, 60]


@given(st.integers(0, 10**9), st.floats(-1, 1))
def test_however_often_it_failed_the_pause_is_within_the_bound_and_its_jitter(failures: int, chance: float) -> None:
    backoff = Backoff(first_seconds=0.1, max_seconds=10, jitter=0.2)
    assert 0.08 <= backoff.seconds(failures, chance) <= 12

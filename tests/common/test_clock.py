"""A day that something ends at."""

from datetime import UTC, datetime

import pytest

from common.clock import end_of_day


def test_a_day_is_its_last_second_in_utc() -> None:
    assert end_of_day("2026-12-31") == datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-02-30", "20261231", "2026-12-31T00:00", "31.12.2026", "2026-W53-4", ""])
def test_what_is_no_day_is_none(text: str) -> None:
    assert end_of_day(text) is None

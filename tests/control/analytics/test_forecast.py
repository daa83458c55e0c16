"""What a forecast promises. `python -m bench.forecast` measures how often intervals hold."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.forecast import KINDS, trace
from control.analytics.forecast import HISTORY_DAYS_MIN, Backtest, History, Outlook, backtest, outlook

EVEN = History([100] * 60, 0)


def seen(history: History, days: int = 30) -> Outlook:
    found = outlook(history, days)
    assert found is not None
    return found


def test_what_was_used_evenly_goes_on_so() -> None:
    low, likely, high = seen(EVEN).between(0, 30)
    assert likely == pytest.approx(3000)
    assert low <= likely <= high
    assert high - low < 300


def test_weekends_are_as_quiet_as_they_were() -> None:
    week = [100] * 5 + [0] * 2
    outlook_on_monday = seen(History(week * 8, 0), 7)
    assert outlook_on_monday.between(0, 5)[1] == pytest.approx(500, rel=0.1)
    assert outlook_on_monday.between(5, 7)[1] == pytest.approx(0, abs=25)


def test_what_grows_goes_on_growing() -> None:
    units = [int(1000 * 1.01**day) for day in range(90)]
    _, likely, _ = seen(History(units, 0)).between(0, 30)
    came = sum(int(1000 * 1.01**day) for day in range(90, 120))
    assert came > 1.15 * 30 * units[-1]
    assert likely == pytest.approx(came, rel=0.05)


def test_bursts_widen_the_interval_and_more_to_the_upper_side() -> None:
    random = Random(1)
    units = [1000 if random.random() < 0.1 else 100 for _ in range(90)]
    low, likely, high = seen(History(units, 0)).between(0, 14)
    even_low, _, even_high = seen(History([190] * 90, 0)).between(0, 14)
    assert high - low > 3 * (even_high - even_low)
    assert high - likely > 0


@pytest.mark.parametrize("units", [[], [5] * (HISTORY_DAYS_MIN - 1), [0] * 60])
def test_a_history_that_tells_nothing_is_not_forecast(units: list[int]) -> None:
    assert outlook(History(units, 0), 30) is None


def test_what_runs_out_does_so_where_the_sum_gets_there() -> None:
    earliest, likely, latest = seen(EVEN).reached(1050, 0.5, 30)
    assert likely == pytest.approx(11)
    assert earliest is not None
    assert latest is not None
    assert 9 < earliest < 11 < latest < 13


def test_what_lasts_until_the_end_does_not_run_out() -> None:
    assert seen(EVEN).reached(10_000, 0, 30) == (None, None, None)


def test_what_may_last_has_no_latest_day() -> None:
    earliest, likely, latest = seen(EVEN).reached(2999.5, 0, 30)
    assert earliest is not None
    assert likely is not None
    assert latest is None


def test_what_is_used_up_already_runs_out_at_once() -> None:
    assert seen(EVEN).reached(0, 0.25, 30) == pytest.approx((0.25, 0.25, 0.25), abs=0.01)


def test_the_backtest_of_an_even_history_holds() -> None:
    assert backtest(EVEN) == Backtest(weeks=6, held=6)


def test_a_week_that_was_unlike_those_before_it_is_told_as_missed() -> None:
    units = [*[100] * 49, *[500] * 7]
    assert backtest(History(units, 0)).held == backtest(History(units, 0)).weeks - 1


@given(st.lists(st.integers(-100, 10**12), max_size=150), st.integers(0, 6), st.floats(0, 5), st.floats(0.01, 40))
def test_an_outlook_is_in_order_whatever_the_history(
    units: list[int], weekday: int, start: float, ahead: float
) -> None:
    found = outlook(History(units, weekday), 46)
    if found is not None:
        low, likely, high = found.between(start, start + ahead)
        assert 0 <= low <= likely + 1e-6
        assert likely <= high
        earliest, probably, latest = found.reached(max(1.0, likely / 2), start, start + ahead)
        known = [each for each in (earliest, probably, latest) if each is not None]
        assert known == sorted(known)
        assert all(start <= each <= start + ahead for each in known)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_most_intervals_hold_on_each_kind_of_history(kind: object) -> None:
    """Roughly: a few histories only. The bench asks for 75 to 85 of 100."""
    held = []
    for number in range(8):
        units = trace(kind, f"test {number}")  # type: ignore[arg-type]  # one of KINDS
        for origin in (45, 75, 105):
            low, _, high = seen(History(units[:origin], 0), 14).between(0, 14)
            held.append(low <= sum(units[origin : origin + 14]) <= high)
    assert sum(held) / len(held) >= 0.55

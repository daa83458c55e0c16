"""Periods: half-open, anchored as Stripe does it, and chosen by Redis TIME alone."""

from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota.model import Admitted, Exhausted, Unknown
from quota.periods import (
    CALENDAR_ANCHOR,
    EVERY_MAX,
    Period,
    Rule,
    Schedule,
    Unit,
    add_months,
    monthly_periods,
)
from tests.expected import monthly_period
from tests.quota.books import Books
from tests.replies import as_bytes

anchors = st.integers(0, 4_000_000_000)
moments = st.integers(1_000_000_000, 6_000_000_000)


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_period_holds_its_first_second_and_not_its_last() -> None:
    period = Period(100, 200)
    assert [second in period for second in (99, 99.999, 100, 199.999, 200)] == [False, False, True, True, False]
    assert period.seconds == 100


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (6, 5)])
def test_a_period_of_no_length_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="period"):
        Period(start, end)


@given(anchors, moments)
def test_a_monthly_period_holds_the_moment_it_was_asked_for(anchor: int, now: int) -> None:
    assert now in monthly_period(anchor, now)


@given(anchors, moments, st.integers(1, 14))
def test_monthly_periods_follow_each_other_without_a_gap(anchor: int, now: int, count: int) -> None:
    periods = monthly_periods(anchor, now, count)
    assert len(periods) == count
    assert periods[0] == monthly_period(anchor, now)
    assert all(a.end == b.start for a, b in pairwise(periods))
    assert all(monthly_period(anchor, p.start) == monthly_period(anchor, p.end - 1) == p for p in periods)


def test_a_calendar_month_starts_on_the_first_at_midnight() -> None:
    assert monthly_period(CALENDAR_ANCHOR, seconds("2026-02-28T23:59:59")) == Period(
        seconds("2026-02-01T00:00:00"), seconds("2026-03-01T00:00:00")
    )


def test_an_anchor_on_the_31st_falls_on_the_last_day_of_shorter_months_and_comes_back() -> None:
    anchor = seconds("2027-12-31T10:30:00")
    assert [datetime.fromtimestamp(add_months(anchor, n), UTC).strftime("%m-%d %H:%M") for n in range(5)] == [
        "12-31 10:30",
        "01-31 10:30",
        "02-29 10:30",
        "03-31 10:30",
        "04-30 10:30",
    ]


def test_the_moment_of_the_anchor_begins_a_period_and_the_second_before_ends_one() -> None:
    anchor = seconds("2026-03-15T12:00:00")
    assert monthly_period(anchor, anchor).start == anchor
    assert monthly_period(anchor, anchor - 1).end == anchor


async def test_redis_time_decides_which_period_is_charged(books: Books) -> None:
    await books.publish()
    await books.admitted(10)
    assert isinstance(await books.take(), Exhausted)
    # What was the next period is the one that holds the present moment: as if the time had come.
    current = Period(books.now - 5, books.now + 1000)
    await books.publish(periods=(Period(books.now - 1000, books.now - 5), current))
    decision = await books.take(10)
    assert isinstance(decision, Admitted)
    assert decision.period == current
    assert isinstance(await books.take(), Exhausted)
    counters = await books.counters()
    assert counters == {"used:api_calls": 10, f"used:{current.start}:api_calls": 10} == await books.event_sums()


async def test_the_first_second_of_a_period_is_in_it(books: Books) -> None:
    now, _ = await books.redis.time()
    await books.publish(periods=(Period(now, now + 1000),))
    assert (await books.admitted()).period.start == now


async def test_the_first_second_after_a_period_is_not_in_it(books: Books) -> None:
    now, _ = await books.redis.time()
    await books.publish(periods=(Period(now - 1000, now),))
    assert await books.take() == Unknown(lapsed=True)


async def test_where_two_periods_meet_the_later_one_is_charged(books: Books) -> None:
    now, _ = await books.redis.time()
    await books.publish(periods=(Period(now - 1000, now), Period(now, now + 1000)))
    assert (await books.admitted()).period.start == now


@pytest.mark.parametrize("offset", [50, 10**9])
async def test_before_the_first_published_period_nothing_is_admitted(books: Books, offset: int) -> None:
    await books.publish(periods=(Period(books.now + offset, books.now + offset + 1000),))
    async with books.unchanged():
        assert await books.take() == Unknown(lapsed=True)


async def test_a_single_published_period_is_no_period_after_it(books: Books) -> None:
    await books.publish(periods=(Period(0, books.now),))
    assert await books.take() == Unknown(lapsed=True)


async def test_a_renewal_needs_no_publication(books: Books) -> None:
    """Both periods are there: at the boundary the second begins at nothing, and the first keeps its count."""
    now, _ = await books.redis.time()
    await books.publish(periods=(Period(now - 1000, now), Period(now, now + 1000)))
    first = f"used:{now - 1000}:api_calls"
    await books.redis.hset(books.hash, first, 10)
    assert (await books.admitted(10)).balances[0].remaining == 0
    assert int(as_bytes(await books.redis.hget(books.hash, first))) == 10


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    if draw(st.booleans()):
        unit = draw(st.sampled_from(Unit))
        return Rule(draw(st.integers(1, EVERY_MAX[unit])), unit)
    start = draw(st.integers(1_000_000_000, 3_000_000_000))
    lengths = draw(st.lists(st.integers(1, 366 * 86_400), min_size=1, max_size=20))
    return Rule(bounds=tuple(accumulate([start, *lengths])))


@given(anchors, rules(), moments)
def test_whatever_the_time_it_lies_in_one_period_of_a_schedule_at_most(anchor: int, rule: Rule, now: int) -> None:
    schedule = Schedule(anchor, rule)
    period = schedule.period_at(now)
    if rule.bounds:
        assert (period is not None) == (rule.bounds[0] <= now < rule.bounds[-1])
    else:
        assert period is not None
    if period is not None:
        assert now in period
        assert schedule.period_at(period.start) == schedule.period_at(period.end - 1) == period


@given(anchors, rules(), moments, st.integers(1, 9))
def test_where_one_period_of_a_schedule_ends_the_next_begins(anchor: int, rule: Rule, now: int, count: int) -> None:
    periods = Schedule(anchor, rule).periods(now, count)
    assert all(a.end == b.start for a, b in pairwise(periods))
    assert all(period.end > now for period in periods)
    if not rule.bounds:
        assert len(periods) == count


@given(anchors, st.integers(1, 60 * 86_400), moments)
def test_a_trial_is_one_period_however_long_it_is_and_months_follow(anchor: int, seconds: int, now: int) -> None:
    start = max(1, anchor + 1 - seconds)
    anchor = max(anchor, start + 1)
    schedule = Schedule(anchor, starts_at=start)
    period = schedule.period_at(now)
    if start <= now < anchor:
        assert period == Period(start, anchor)
        assert schedule.periods(now)[1] == monthly_period(anchor, anchor)
    elif now >= anchor:
        assert period == monthly_period(anchor, now)
    else:
        assert period is not None
        assert period.end <= start, "a clock that is behind counts in days that are over before it begins"


def test_quarters_and_years_of_a_31st_clamp_and_come_back() -> None:
    anchor = seconds("2027-08-31T00:00:00")
    quarters = Schedule(anchor, Rule(3)).periods(anchor, 3)
    starts = [datetime.fromtimestamp(p.start, UTC).strftime("%y-%m-%d") for p in quarters]
    assert starts == ["27-08-31", "27-11-30", "28-02-29"]
    assert Schedule(anchor, Rule(3)).periods(anchor, 5)[4].start == seconds("2028-08-31T00:00:00")


@pytest.mark.parametrize(
    "rule",
    [
        {"every": 0},
        {"every": 13},
        {"every": 400, "unit": Unit.DAY},
        {"bounds": (5,)},
        {"bounds": (5, 5)},
        {"bounds": (-1, 5)},
    ],
)
def test_a_rule_that_makes_no_periods_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"period|bounds"):
        Rule(**rule)

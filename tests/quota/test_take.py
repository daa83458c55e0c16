"""take: a charge is admitted whole or refused without a trace, whoever else charges at the same time."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from quota.events import Charge, Kind, UsageEvent
from quota.ledger import Ledger
from quota.model import (
    COST_MAX,
    UNITS_MAX,
    Admitted,
    Exhausted,
    MeterBalance,
    MeterLimit,
    MeterUsage,
    NotEntitled,
    NotInPlan,
    Status,
    Unknown,
)
from quota.periods import Period
from tests import charging
from tests.quota.books import Books

GATEWAYS = 4
TWO_METERS = (MeterLimit("api_calls", 10), MeterLimit("tokens", 100))


async def take_everywhere(books: Books, url: str, costs: list[int]) -> Counter[type]:
    """All takes at once, spread over several clients with a connection for each take."""
    async with AsyncExitStack() as stack:
        ledgers = [Ledger(await stack.enter_async_context(Redis.from_url(url))) for _ in range(GATEWAYS)]
        takes = [
            charging.take(ledgers[i % GATEWAYS], books.org, f"r{i}", {"api_calls": cost})
            for i, cost in enumerate(costs)
        ]
        return Counter(type(decision) for decision in await asyncio.gather(*takes))


async def test_two_takes_of_the_last_unit_admit_exactly_one(books: Books, redis_url: str) -> None:
    await books.publish()
    await books.admitted(9)
    assert await take_everywhere(books, redis_url, [1, 1]) == {Admitted: 1, Exhausted: 1}
    assert await books.counters() == {"used:api_calls": 10}


async def test_a_limit_of_100_admits_exactly_100_of_300_concurrent_takes(books: Books, redis_url: str) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 100),))
    assert await take_everywhere(books, redis_url, [1] * 300) == {Admitted: 100, Exhausted: 200}
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 100}


async def test_concurrent_takes_of_many_sizes_never_exceed_the_limit(books: Books, redis_url: str) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 100),))
    verdicts = await take_everywhere(books, redis_url, [1, 2, 3, 5, 7] * 40)
    assert verdicts[Admitted] + verdicts[Exhausted] == 200
    counters = await books.counters()
    assert counters == await books.event_sums()
    assert counters["used:api_calls"] == 100  # a one fits in whatever a larger cost leaves


async def test_what_is_admitted_is_told_with_its_balance_its_receipt_and_its_event(books: Books) -> None:
    await books.publish(meters=TWO_METERS)
    decision = await books.admitted(api_calls=3, tokens=40)
    assert decision.period == books.periods[0]
    assert books.now * 1_000_000 <= decision.now_us < (books.now + 60) * 1_000_000
    assert decision.balances == [MeterBalance("api_calls", 10, 7, 0), MeterBalance("tokens", 100, 60, 0)]
    assert await books.texts() == [decision.receipt.decode()]
    charges = (Charge("api_calls", 3), Charge("tokens", 40))
    assert await books.events() == [UsageEvent(Kind.TAKE, "1", "acme", books.start, charges)]


async def test_several_meters_are_charged_together(books: Books) -> None:
    await books.publish(meters=(*TWO_METERS, MeterLimit("pages", 5)))
    await books.admitted(api_calls=1, tokens=20, pages=5)
    assert await books.counters() == {"used:api_calls": 1, "used:tokens": 20, "used:pages": 5}


@pytest.mark.parametrize("violated", ["api_calls", "tokens", "pages"])
async def test_one_exhausted_meter_refuses_all_and_is_the_one_that_is_named(books: Books, violated: str) -> None:
    await books.publish(meters=(*TWO_METERS, MeterLimit("pages", 5)))
    await books.admitted(api_calls=9, tokens=90, pages=4)
    async with books.unchanged():
        decision = await books.take(**{"api_calls": 1, "tokens": 1, "pages": 1} | {violated: 101})
    assert isinstance(decision, Exhausted)
    assert decision.balance.meter == violated
    assert (decision.balance.remaining, decision.balance.overage) == (10 if violated == "tokens" else 1, 0)
    assert decision.period == books.periods[0]


async def test_a_meter_outside_the_plan_refuses_all_and_is_the_one_that_is_named(books: Books) -> None:
    await books.publish(meters=TWO_METERS)
    async with books.unchanged():
        assert await books.take(api_calls=1, pages=1) == NotInPlan("pages")
        assert await books.take(pages=0) == NotInPlan("pages")


async def test_a_refusal_by_the_limit_writes_nothing_and_the_rest_is_still_there(books: Books) -> None:
    await books.publish()
    await books.admitted(8)
    async with books.unchanged():
        for _ in range(3):
            decision = await books.take(3)
            assert isinstance(decision, Exhausted)
            assert decision.balance == MeterBalance("api_calls", 10, 2, 0)
            assert not decision.over_limit
    assert (await books.admitted(2)).balances == [MeterBalance("api_calls", 10, 0, 0)]


async def test_a_cost_of_the_whole_limit_passes_and_one_above_it_never_can(books: Books) -> None:
    await books.publish()
    async with books.unchanged():
        decision = await books.take(11)
    assert isinstance(decision, Exhausted)
    assert decision.over_limit
    assert decision.balance == MeterBalance("api_calls", 10, 10, 0)
    await books.admitted(10)
    later = await books.take(10)
    assert isinstance(later, Exhausted)
    assert not later.over_limit


async def test_a_cost_of_zero_is_admitted_and_recorded_even_when_nothing_is_left(books: Books) -> None:
    await books.publish()
    assert (await books.admitted(0)).balances == [MeterBalance("api_calls", 10, 10, 0)]
    await books.admitted(10)
    assert (await books.admitted(0)).balances == [MeterBalance("api_calls", 10, 0, 0)]
    await books.publish(meters=(MeterLimit("api_calls", 5),))
    assert (await books.admitted(0)).balances == [MeterBalance("api_calls", 5, 0, 0)]
    assert [event.charges[0].units for event in await books.events()] == [0, 10, 0, 0]


async def test_an_allowance_of_zero_admits_nothing(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 0),))
    async with books.unchanged():
        decision = await books.take(1)
    assert isinstance(decision, Exhausted)
    assert decision.over_limit


@pytest.mark.parametrize("status", [status for status in Status if status.served])
async def test_a_served_status_is_admitted(books: Books, status: Status) -> None:
    await books.publish(status=status)
    await books.admitted()


@pytest.mark.parametrize("status", [status for status in Status if not status.served])
async def test_any_other_status_is_not_entitled_and_writes_nothing(books: Books, status: Status) -> None:
    await books.publish(status=status)
    async with books.unchanged():
        assert await books.take() == NotEntitled(status)


async def test_an_organization_that_redis_does_not_know_is_unknown_and_writes_nothing(books: Books) -> None:
    async with books.unchanged():
        assert await books.take() == Unknown(lapsed=False)


async def test_counters_without_an_entitlement_admit_nobody(books: Books) -> None:
    await books.ledger.seed(books.org, [MeterUsage(books.start, "api_calls", 3)], {})
    async with books.unchanged():
        assert await books.take() == Unknown(lapsed=False)


async def test_an_organization_whose_periods_are_over_is_unknown_as_lapsed_and_writes_nothing(books: Books) -> None:
    await books.publish(periods=(Period(books.now - 20, books.now - 10), Period(books.now - 10, books.now)))
    async with books.unchanged():
        assert await books.take() == Unknown(lapsed=True)


async def test_numbers_up_to_a_thousand_billions_stay_exact(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", UNITS_MAX),))
    await books.ledger.seed(books.org, [MeterUsage(books.start, "api_calls", UNITS_MAX - COST_MAX - 1)], {})
    decision = await books.admitted(COST_MAX)
    assert decision.balances == [MeterBalance("api_calls", UNITS_MAX, 1, 0)]
    assert decision.receipt.decode() == f"t 1 acme {books.start} api_calls:{COST_MAX}"
    assert (await books.admitted(1)).balances == [MeterBalance("api_calls", UNITS_MAX, 0, 0)]
    assert isinstance(await books.take(1), Exhausted)
    assert await books.counters() == {"used:api_calls": UNITS_MAX}


async def test_odd_large_costs_are_written_digit_by_digit(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", UNITS_MAX),))
    costs = (999_999_999_999, 123_456_789_012, 100_000_000_001, 9_007_199_254)
    for cost in costs:
        assert (await books.receipt(cost)).decode().endswith(f" api_calls:{cost}")
    assert await books.counters() == {"used:api_calls": sum(costs)} == await books.event_sums()

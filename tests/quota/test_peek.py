"""peek: what Redis holds of an organization, and the same balances that take would tell."""

from typing import Any

from quota.model import Grant, MeterLimit, MeterUsage, OveragePolicy, RateLimit, Status
from quota.periods import Period
from tests.quota.books import Books


async def test_an_unknown_organization_has_no_snapshot(books: Books) -> None:
    assert await books.ledger.peek("nobody") is None


async def test_counters_without_an_entitlement_are_no_snapshot(books: Books) -> None:
    await books.ledger.seed(books.org, [MeterUsage(books.start, "api_calls", 3)], {})
    assert await books.ledger.peek(books.org) is None


async def test_everything_that_was_published_is_told(books: Books) -> None:
    grants = (Grant("b", "tokens", 7, books.now + 100), Grant("a", "api_calls", 5, books.now + 600))
    await books.publish(
        status=Status.GRACE,
        policy=OveragePolicy.METERED,
        meters=(MeterLimit("tokens", 100, overage_max=30), MeterLimit("api_calls", 10)),
        grants=grants,
        rate=RateLimit(4, 1, 2),
    )
    snapshot = await books.snapshot()
    assert (snapshot.version, snapshot.status, snapshot.policy) == (1, Status.GRACE, OveragePolicy.METERED)
    assert snapshot.meters == (MeterLimit("api_calls", 10), MeterLimit("tokens", 100, overage_max=30))
    assert snapshot.grants == grants
    assert snapshot.periods == books.periods
    assert snapshot.period == books.periods[0]
    assert snapshot.rate_interval_us == 250_000
    assert books.now <= snapshot.now_us / 1_000_000 < books.now + 60


async def test_what_was_used_is_told_for_each_period_and_meter(books: Books) -> None:
    before = MeterUsage(books.start - 10, "api_calls", 3)
    await books.ledger.seed(books.org, [before], {})
    await books.publish(
        policy=OveragePolicy.METERED,
        meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 5)),
        grants=(Grant("a", "api_calls", 5, books.now + 600),),
    )
    await books.admitted(api_calls=17, tokens=1)
    snapshot = await books.snapshot()
    assert snapshot.usage == (
        before,
        MeterUsage(books.start, "api_calls", 17, 5, 2),
        MeterUsage(books.start, "tokens", 1),
    )
    assert snapshot.grant_used == {"a": 5}


async def test_balances_are_those_of_the_take_before(books: Books) -> None:
    grants = (
        Grant("gone", "api_calls", 50, books.now),
        Grant("soon", "api_calls", 3, books.now + 100),
        Grant("late", "api_calls", 4, books.now + 600),
    )
    cases: list[dict[str, Any]] = [
        {},
        {"grants": grants},
        {"grants": grants[1:2], "policy": OveragePolicy.METERED},
        {"meters": (MeterLimit("api_calls", 2),), "policy": OveragePolicy.METERED},
        {"meters": (MeterLimit("api_calls", 40),), "grants": grants},
    ]
    for terms in cases:
        await books.publish(**terms)
        for cost in (4, 5, 1):
            decision = await books.admitted(cost) if await fits(books, cost, terms) else await books.admitted(0)
            assert list((await books.snapshot()).balances()) == decision.balances


async def fits(books: Books, cost: int, terms: dict[str, Any]) -> bool:
    return terms.get("policy") is OveragePolicy.METERED or cost <= (await books.balance()).remaining


async def test_peek_writes_nothing(books: Books) -> None:
    await books.publish()
    await books.admitted()
    async with books.unchanged():
        await books.ledger.peek(books.org)
        await books.ledger.peek("nobody")


async def test_between_two_periods_there_are_no_balances(books: Books) -> None:
    await books.publish(periods=(Period(books.now - 100, books.now), Period(books.now + 500, books.now + 900)))
    snapshot = await books.snapshot()
    assert snapshot.period is None
    assert list(snapshot.balances()) == []

"""Usage that is reported is charged as a request is, each report once; but it is no request, so nothing holds it up."""

import pytest

from quota import keys
from quota.ledger import REPORTED_AT_ONCE, LedgerUnavailable
from quota.model import Admitted, Exhausted, MeterLimit, NotInPlan, RateLimit, Report, Status, Unknown
from tests.quota.books import Books


def report(n: int, units: int = 1, key: str | None = None, meter: str = "api_calls") -> Report:
    return Report(f"r{n}", meter, units, key or f"k{n}")


async def test_each_report_is_decided_on_its_own_and_in_order(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 10),))
    reports = [report(0, 4), report(1, 7), report(2, 6), report(3, 1, meter="images"), report(4, 9, "k0"), report(5)]
    first, dear, rest, other, again, late = await books.ledger.report(books.org, reports)
    assert isinstance(first, Admitted)
    assert isinstance(rest, Admitted)
    assert isinstance(dear, Exhausted)
    assert isinstance(late, Exhausted)
    assert other == NotInPlan("images")
    assert isinstance(again, Admitted)
    assert again.replayed
    assert again.receipt == first.receipt
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 10}


async def test_more_reports_than_one_call_takes_are_each_charged_once(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 10_000),))
    reports = [report(n) for n in range(2 * REPORTED_AT_ONCE + 1)]
    for replayed in (False, True):
        decisions = await books.ledger.report(books.org, reports)
        assert [isinstance(d, Admitted) and d.replayed for d in decisions] == [replayed] * len(reports)
    assert await books.counters() == await books.event_sums() == {"used:api_calls": len(reports)}


async def test_a_report_waits_for_no_rate_uses_none_up_and_needs_no_permit(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600), concurrent_max=1)
    decisions = await books.ledger.report(books.org, [report(n) for n in range(5)])
    assert [isinstance(d, Admitted) and not d.permit for d in decisions] == [True] * 5
    await books.admitted()  # the rate and the permit are there for a request


async def test_an_error_of_one_report_is_told_in_its_place(books: Books) -> None:
    await books.publish()
    await books.redis.rpush(keys.idempotency_key(books.org, books.ledger.shards, "k1"), "no string")
    first, odd, last = await books.ledger.report(books.org, [report(0), report(1), report(2)])
    assert isinstance(first, Admitted)
    assert isinstance(odd, LedgerUnavailable)
    assert isinstance(last, Admitted)
    assert await books.counters() == {"used:api_calls": 2}


async def test_what_cannot_be_written_down_is_refused_before_anything_is_charged(books: Books) -> None:
    await books.publish()
    async with books.unchanged():
        for bad in (report(1, -1), report(1, meter="a b"), Report("r 1", "api_calls", 1, "k")):
            with pytest.raises(ValueError, match="must"):
                await books.ledger.report(books.org, [report(0), bad])
        with pytest.raises(ValueError, match="must"):
            await books.ledger.report("a b", [report(0)])


async def test_recall_tells_the_receipts_and_the_open_period_and_changes_nothing(books: Books) -> None:
    unknown = await books.ledger.recall(books.org, ["k0"])
    assert (unknown.status, unknown.period, unknown.receipts, unknown.unpublished) == (None, None, [None], True)
    assert await books.ledger.report(books.org, [report(0)]) == [Unknown(lapsed=False)]
    await books.publish()
    [charged] = await books.ledger.report(books.org, [report(0)])
    assert isinstance(charged, Admitted)
    async with books.unchanged():
        recalled = await books.ledger.recall(books.org, ["k1", "k0", "k1"])
    assert recalled.receipts == [None, charged.receipt, None]
    assert (recalled.status, recalled.period, recalled.unpublished) == (Status.ACTIVE, charged.period, False)
    assert recalled.now_us >= charged.now_us
    assert (await books.ledger.recall(books.org, [])).receipts == []


async def test_recall_tells_an_organization_that_is_not_served_from_one_whose_periods_are_over(books: Books) -> None:
    await books.publish(status=Status.SUSPENDED)
    assert not (await books.ledger.recall(books.org, [])).unpublished

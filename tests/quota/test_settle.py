"""settle: a charge becomes what was really used, once for each receipt, and units go back where they came from."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from quota import keys
from quota.events import Charge, Kind, UsageEvent
from quota.ledger import LedgerUnavailable
from quota.model import (
    COST_MAX,
    UNITS_MAX,
    Exhausted,
    Grant,
    MeterBalance,
    MeterLimit,
    MeterUsage,
    OveragePolicy,
    Settlement,
)
from quota.periods import Period
from quota.scripts import script
from quota.wire import SETTLED_SECONDS
from tests import charging
from tests.quota.books import Books

METERED = OveragePolicy.METERED
NOTHING = Settlement(False, {}, {})


def grants(books: Books) -> tuple[Grant, ...]:
    return (Grant("soon", "api_calls", 3, books.now + 600), Grant("late", "api_calls", 5, books.now + 900))


async def test_a_charge_that_is_given_back_can_be_taken_again(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(10)
    assert await books.settle(receipt, api_calls=0) == Settlement(True, {"api_calls": -10}, {})
    assert await books.counters() == {}
    assert (await books.admitted(10)).balances == [MeterBalance("api_calls", 10, 0, 0)]


async def test_a_part_that_is_given_back_is_the_part_that_was_not_used(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(8)
    assert await books.settle(receipt, api_calls=3) == Settlement(True, {"api_calls": -5}, {})
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 3}


async def test_a_receipt_is_settled_once_however_often_and_whoever_asks(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(8)
    answers = await asyncio.gather(*[books.settle(receipt, api_calls=n) for n in (2, 2, 0, 5)])
    assert sorted(answer.applied for answer in answers) == [False, False, False, True]
    async with books.unchanged():
        assert await books.settle(receipt, api_calls=0) == NOTHING
    assert await books.counters() == await books.event_sums()


async def test_that_a_receipt_was_settled_is_remembered_for_a_day(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt()
    await books.settle(receipt, api_calls=0)
    marker = keys.once_key("acme", books.ledger.shards, "settle:1")
    assert SETTLED_SECONDS - 60 < await books.redis.ttl(marker) <= SETTLED_SECONDS


async def test_a_settlement_that_changes_nothing_appends_no_event_and_is_final(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(8)
    assert await books.settle(receipt, api_calls=8) == Settlement(True, {}, {})
    assert await books.settle(receipt, api_calls=0) == NOTHING
    assert len(await books.texts()) == 1


async def test_a_settlement_is_an_event_of_its_own_with_the_receipts_request_id(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(8)
    await books.settle(receipt, api_calls=3)
    assert await books.texts() == [receipt.decode(), f"s 1 acme {books.start} api_calls:-5"]
    assert (await books.events())[1] == UsageEvent(Kind.SETTLE, "1", "acme", books.start, (Charge("api_calls", -5),))


async def test_more_than_was_charged_is_charged_after_all(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(2)
    assert await books.settle(receipt, api_calls=9) == Settlement(True, {"api_calls": 7}, {})
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 9}


async def test_more_than_a_hard_limit_allows_is_charged_up_to_it_and_the_shortfall_told(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(2)
    await books.admitted(5)
    assert await books.settle(receipt, api_calls=9) == Settlement(True, {"api_calls": 3}, {"api_calls": 4})
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 10}


async def test_a_shortfall_of_everything_appends_no_event(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(10)
    assert await books.settle(receipt, api_calls=12) == Settlement(True, {"api_calls": 0}, {"api_calls": 2})
    assert len(await books.texts()) == 1


async def test_more_comes_from_allowance_then_grants_then_overage(books: Books) -> None:
    await books.publish(policy=METERED, meters=(MeterLimit("api_calls", 10, overage_max=4),), grants=grants(books))
    receipt = await books.receipt(9)
    assert await books.settle(receipt, api_calls=30) == Settlement(True, {"api_calls": 13}, {"api_calls": 8})
    assert (await books.events())[1].charges == (Charge("api_calls", 13, 4, (("soon", 3), ("late", 5))),)
    assert await books.counters() == await books.event_sums()


@pytest.mark.parametrize(
    ("used", "text"),
    [
        (17, "api_calls:-3:-3"),
        (16, "api_calls:-4:-4"),
        (14, "api_calls:-6:-4:late=-2"),
        (11, "api_calls:-9:-4:late=-5"),
        (9, "api_calls:-11:-4:late=-5,soon=-2"),
        (8, "api_calls:-12:-4:late=-5,soon=-3"),
        (3, "api_calls:-17:-4:late=-5,soon=-3"),
        (0, "api_calls:-20:-4:late=-5,soon=-3"),
    ],
)
async def test_units_go_back_in_reverse_overage_then_the_latest_grant_then_allowance(
    books: Books, used: int, text: str
) -> None:
    await books.publish(policy=METERED, meters=(MeterLimit("api_calls", 8),), grants=grants(books))
    receipt = await books.receipt(20)
    await books.settle(receipt, api_calls=used)
    assert (await books.texts())[1] == f"s 1 acme {books.start} {text}"
    assert await books.counters() == await books.event_sums()


async def test_what_a_grant_gets_back_can_be_burnt_again(books: Books) -> None:
    await books.publish(grants=grants(books))
    receipt = await books.receipt(18)
    assert await books.settle(receipt, api_calls=12) == Settlement(True, {"api_calls": -6}, {})
    assert (await books.texts())[1] == f"s 1 acme {books.start} api_calls:-6:0:late=-5,soon=-1"
    assert (await books.admitted(6)).balances == [MeterBalance("api_calls", 18, 0, 0)]
    assert isinstance(await books.take(1), Exhausted)


async def refund(books: Books, receipt: bytes, refunds_max: int) -> Settlement:
    return await charging.settle(books.ledger, books.org, receipt, {"api_calls": 0}, refunds_max)


CAPPED = Settlement(False, {}, {}, capped=True)
REFUNDED = Settlement(True, {"api_calls": -1}, {})


async def test_a_period_has_so_many_refunds_however_many_ask_at_once(books: Books) -> None:
    await books.publish()
    receipts = [await books.receipt() for _ in range(8)]
    answers = await asyncio.gather(*[refund(books, receipt, 3) for receipt in receipts])
    assert (answers.count(REFUNDED), answers.count(CAPPED)) == (3, 5)
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 5}
    snapshot = await books.snapshot()
    assert snapshot.refunds == {books.start: 3}


async def test_a_refund_that_is_refused_changes_nothing_and_its_receipt_can_be_settled_otherwise(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(5)
    async with books.unchanged():
        assert await refund(books, receipt, 0) == CAPPED
    assert await books.settle(receipt, api_calls=2) == Settlement(True, {"api_calls": -3}, {})
    assert await refund(books, receipt, 0) == NOTHING, "settled before comes first"


async def test_a_refund_that_is_repeated_counts_once(books: Books) -> None:
    await books.publish()
    receipt, other = await books.receipt(), await books.receipt()
    assert [await refund(books, receipt, 2) for _ in range(3)] == [REFUNDED, NOTHING, NOTHING]
    assert await refund(books, other, 2) == REFUNDED


async def test_settlements_without_a_cap_and_refunds_of_nothing_are_not_counted(books: Books) -> None:
    await books.publish()
    assert (await books.settle(await books.receipt(), api_calls=0)).applied
    assert (await refund(books, await books.receipt(0), 1)).applied
    assert await refund(books, await books.receipt(), 1) == REFUNDED


async def test_refunds_are_counted_in_the_receipts_period(books: Books) -> None:
    await books.publish()
    old, older = await books.receipt(), await books.receipt()
    rolled = Period(books.now - 5, books.periods[0].end)
    await books.publish(periods=(rolled,))
    assert await refund(books, old, 1) == REFUNDED
    assert await refund(books, await books.receipt(), 1) == REFUNDED
    assert await refund(books, older, 1) == CAPPED
    snapshot = await books.snapshot()
    assert snapshot.refunds == {books.start: 1, rolled.start: 1}


async def test_a_refund_after_a_flush_begins_no_hash(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt()
    await books.redis.flushall()
    assert (await refund(books, receipt, 1)).applied
    assert await books.redis.exists(books.hash) == 0


async def test_a_cap_that_is_no_number_is_refused_and_changes_nothing(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt()
    names = [books.hash, books.stream, keys.once_key("acme", books.ledger.shards, "settle:1")]
    async with books.unchanged():
        with pytest.raises(ResponseError, match="number of refunds"):
            await books.redis.eval(script("settle").source.decode(), 3, *names, receipt, 60, "many", "api_calls", 0)


async def test_each_meter_of_a_receipt_is_corrected_by_itself(books: Books) -> None:
    meters = (MeterLimit("api_calls", 10), MeterLimit("tokens", 100), MeterLimit("pages", 10))
    await books.publish(meters=meters)
    receipt = await books.receipt(api_calls=1, tokens=50, pages=2)
    settled = await books.settle(receipt, tokens=120, api_calls=0)
    assert settled == Settlement(True, {"api_calls": -1, "tokens": 50}, {"tokens": 20})
    assert await books.counters() == await books.event_sums() == {"used:tokens": 100, "used:pages": 2}
    assert (await books.texts())[1] == f"s 1 acme {books.start} api_calls:-1 tokens:50"


async def test_a_correction_belongs_to_the_receipts_period_after_a_rollover(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(8)
    rolled = Period(books.now - 5, books.periods[0].end)
    await books.publish(periods=(rolled,))
    await books.admitted(10)
    assert await books.settle(receipt, api_calls=3) == Settlement(True, {"api_calls": -5}, {})
    assert isinstance(await books.take(1), Exhausted)  # nothing came back to the period that is now
    assert await books.counters() == await books.event_sums()
    assert await books.counters() == {"used:api_calls": 3, f"used:{rolled.start}:api_calls": 10}


async def test_more_units_after_a_rollover_are_held_to_the_old_periods_limit(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(8)
    await books.publish(periods=(Period(books.now - 5, books.periods[0].end),))
    assert await books.settle(receipt, api_calls=12) == Settlement(True, {"api_calls": 2}, {"api_calls": 2})
    assert await books.counters() == {"used:api_calls": 10}


async def test_a_counter_that_was_dropped_stays_dropped_and_the_event_carries_the_correction(books: Books) -> None:
    await books.publish(policy=METERED, meters=(MeterLimit("api_calls", 8),), grants=grants(books))
    receipt = await books.receipt(20)
    await books.redis.hdel(books.hash, *[f"{kind}:{books.start}:api_calls" for kind in ("used", "burnt", "over")])
    await books.redis.hdel(books.hash, "grant:soon", "grant:late")
    assert await books.settle(receipt, api_calls=0) == Settlement(True, {"api_calls": -20}, {})
    # A counter below zero would be units given away, to be found by whoever lists the grant again.
    assert await books.counters() == {}
    assert (await books.events())[1].charges[0].units == -20


async def test_a_settlement_after_a_flush_gives_nothing_away(books: Books) -> None:
    await books.publish(grants=grants(books))
    receipt = await books.receipt(13)
    await books.redis.flushall()
    assert (await books.settle(receipt, api_calls=0)).applied
    assert await books.redis.exists(books.hash) == 0


async def test_more_after_a_flush_is_an_error_until_the_organization_is_published_again(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(2)
    await books.redis.delete(books.hash)
    async with books.unchanged():
        with pytest.raises(LedgerUnavailable, match="not published"):
            await books.settle(receipt, api_calls=5)
    await books.ledger.seed("acme", [MeterUsage(books.start, "api_calls", 2)], {})
    await books.publish()
    assert await books.settle(receipt, api_calls=5) == Settlement(True, {"api_calls": 3}, {})
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 5}


async def test_a_counter_of_zero_that_was_not_seeded_counts_what_a_settlement_adds(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(0)
    await books.redis.delete(books.hash)
    await books.publish()
    assert await books.settle(receipt, api_calls=7) == Settlement(True, {"api_calls": 7}, {})
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 7}


async def test_a_meter_that_left_the_plan_can_still_be_given_back_but_not_be_charged_more(books: Books) -> None:
    await books.publish()
    first, second = await books.receipt(4), await books.receipt(4)
    await books.publish(meters=(MeterLimit("tokens", 5),))
    assert await books.settle(first, api_calls=0) == Settlement(True, {"api_calls": -4}, {})
    assert await books.settle(second, api_calls=9) == Settlement(True, {"api_calls": 0}, {"api_calls": 5})


async def test_the_largest_charges_are_settled_exactly(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", UNITS_MAX),))
    await books.ledger.seed("acme", [MeterUsage(books.start, "api_calls", UNITS_MAX - 2 * COST_MAX)], {})
    first, second = await books.receipt(COST_MAX), await books.receipt(1)
    assert await books.settle(first, api_calls=1) == Settlement(True, {"api_calls": 1 - COST_MAX}, {})
    assert await books.settle(second, api_calls=COST_MAX) == Settlement(True, {"api_calls": COST_MAX - 1}, {})
    assert await books.counters() == {"used:api_calls": UNITS_MAX - COST_MAX + 1}


@pytest.mark.parametrize(
    "receipt",
    [
        "t 1 acme {start}",
        "t 1 acme {start} ",
        "t 1 acme {start} api_calls",
        "t 1 acme {start} api_calls:x",
        "t 1 acme {start} api_calls:-2",
        "t 1 acme {start} api_calls:2 junk",
        "t 1 acme {start} api_calls:2:0:g",
        "t 1 acme {start} api_calls:2:0:g=1,",
        "t 1 acme now api_calls:2",
        "t 1 acme -5 api_calls:2",
        "s 1 acme {start} api_calls:2",
        "t 1 globex {start} api_calls:2",
        "t 1 api_calls:2",
        "t 1",
        "",
    ],
)
async def test_what_is_no_receipt_of_the_organization_is_refused_and_changes_nothing(
    books: Books, receipt: str
) -> None:
    await books.publish()
    await books.admitted(2)
    text = receipt.format(start=books.start).encode()
    async with books.unchanged():
        with pytest.raises((LedgerUnavailable, ValueError)):
            await books.settle(text, api_calls=0)
        with pytest.raises(ResponseError, match="not a receipt"):
            await settle_by_hand(books, text, 60, "api_calls", 0)


@pytest.mark.parametrize("units", ["-1", "0.5", "x", "", "nan", "1000000000001"])
async def test_units_that_are_no_count_are_refused_and_change_nothing(books: Books, units: str) -> None:
    await books.publish()
    receipt = await books.receipt(2)
    async with books.unchanged():
        with pytest.raises(ResponseError, match="whole number"):
            await settle_by_hand(books, receipt, 60, "api_calls", units)
    assert (await books.settle(receipt, api_calls=0)).applied


async def test_a_meter_that_the_receipt_does_not_name_is_refused_since_its_units_would_be_lost(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    receipt = await books.receipt(2)
    async with books.unchanged():
        with pytest.raises(LedgerUnavailable, match="tokens"):
            await books.settle(receipt, tokens=5, api_calls=0)
    assert (await books.settle(receipt, api_calls=0)).applied


async def test_a_settlement_whose_event_cannot_be_written_may_be_tried_again(books: Books) -> None:
    await books.publish()
    receipt = await books.receipt(5)
    await books.redis.rename(books.stream, "kept")
    await books.redis.set(books.stream, "not a stream")
    with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
        await books.settle(receipt, api_calls=0)
    assert await books.counters() == {"used:api_calls": 5}
    await books.redis.rename("kept", books.stream)
    assert (await books.settle(receipt, api_calls=0)).applied
    assert await books.counters() == await books.event_sums() == {}


async def settle_by_hand(books: Books, *argv: Any) -> Any:
    names = [books.hash, books.stream, keys.once_key("acme", books.ledger.shards, "settle:1")]
    return await books.redis.eval(script("settle").source.decode(), len(names), *names, *argv[:2], "", *argv[2:])

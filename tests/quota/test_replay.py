"""replay: what was forwarded in an outage is charged when Redis is back, once, limit or not."""

import asyncio

import pytest

from quota import keys
from quota.ledger import LedgerUnavailable
from quota.model import Exhausted, Grant, MeterLimit, NotInPlan, OveragePolicy, Settlement, Status
from quota.periods import Period
from quota.wire import REPLAYED_SECONDS, ReplayOutcome
from tests import charging
from tests.quota.books import Books


async def test_a_replayed_request_is_charged_as_a_take_and_its_event_is_one(books: Books) -> None:
    await books.publish()
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 3}) is ReplayOutcome.CHARGED
    assert await books.texts() == [f"t r1 acme {books.start} api_calls:3"]
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 3}


async def test_a_request_is_charged_once_however_often_and_whoever_replays_it(books: Books) -> None:
    await books.publish()
    answers = await asyncio.gather(*[charging.replay(books.ledger, "acme", "r1", {"api_calls": 3}) for _ in range(4)])
    assert answers.count(ReplayOutcome.CHARGED) == 1
    assert answers.count(ReplayOutcome.REPLAYED_BEFORE) == 3
    assert await books.counters() == {"used:api_calls": 3}


async def test_that_a_request_was_replayed_is_remembered_for_a_week(books: Books) -> None:
    await books.publish()
    await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1})
    marker = keys.once_key("acme", books.ledger.shards, "replay:r1")
    assert REPLAYED_SECONDS - 60 < await books.redis.ttl(marker) <= REPLAYED_SECONDS


async def test_what_was_used_is_charged_beyond_the_limit_and_nothing_is_left_then(books: Books) -> None:
    await books.publish()
    await books.admitted(8)
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 5}) is ReplayOutcome.CHARGED
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 13}
    assert (await books.balance()).remaining == 0
    decision = await books.take(1)
    assert isinstance(decision, Exhausted)
    assert decision.balance.remaining == 0


async def test_grants_and_overage_pay_in_their_order_and_the_rest_is_beyond(books: Books) -> None:
    grants = (Grant("late", "api_calls", 4, books.now + 900), Grant("soon", "api_calls", 3, books.now + 600))
    await books.publish(meters=(MeterLimit("api_calls", 10, 5),), policy=OveragePolicy.METERED, grants=grants)
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 25}) is ReplayOutcome.CHARGED
    assert await books.texts() == [f"t r1 acme {books.start} api_calls:25:5:soon=3,late=4"]
    assert await books.counters() == await books.event_sums()


async def test_several_meters_are_one_event_also_one_that_the_plan_lacks(books: Books) -> None:
    await books.publish()
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1, "tokens": 7}) is ReplayOutcome.CHARGED
    assert await books.texts() == [f"t r1 acme {books.start} api_calls:1 tokens:7"]
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 1, "used:tokens": 7}
    assert isinstance(await books.take(0, tokens=1), NotInPlan)


async def test_a_suspended_organization_is_charged_for_what_it_used(books: Books) -> None:
    await books.publish(status=Status.SUSPENDED)
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1}) is ReplayOutcome.CHARGED
    assert await books.counters() == {"used:api_calls": 1}


@pytest.mark.parametrize("published", [False, True])
async def test_an_organization_that_is_not_published_for_now_is_charged_when_it_is(
    books: Books, published: bool
) -> None:
    if published:
        await books.publish(periods=(Period(books.now - 200, books.now - 100),))
    async with books.unchanged():
        assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1}) is ReplayOutcome.UNPUBLISHED
    await books.publish()
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1}) is ReplayOutcome.CHARGED


async def test_the_charge_belongs_to_the_period_of_the_replay(books: Books) -> None:
    second = Period(books.now - 10, books.now + 1000)
    await books.publish(periods=(Period(books.now - 1000, books.now - 10), second))
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1}) is ReplayOutcome.CHARGED
    assert await books.texts() == [f"t r1 acme {second.start} api_calls:1"]


async def test_a_replayed_charge_can_be_given_back(books: Books) -> None:
    await books.publish()
    await charging.replay(books.ledger, "acme", "r1", {"api_calls": 12})
    [receipt] = await books.texts()
    assert await books.settle(receipt.encode(), api_calls=0) == Settlement(True, {"api_calls": -12}, {})
    assert await books.counters() == {}


async def test_a_request_that_is_void_is_never_charged(books: Books) -> None:
    await books.publish()
    assert await charging.replay(books.ledger, "acme", "r1", {}) is ReplayOutcome.CHARGED
    assert await books.redis.get(keys.replayed_key("acme", books.ledger.shards, "r1")) == b""
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1}) is ReplayOutcome.REPLAYED_BEFORE
    assert await books.texts() == []


async def test_a_replay_that_cannot_be_written_down_charges_nothing(books: Books) -> None:
    await books.publish()
    await books.redis.rpush(books.stream, "no stream")
    before = await books.redis.dump(books.hash)
    with pytest.raises(LedgerUnavailable):
        await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1})
    assert await books.redis.dump(books.hash) == before
    await books.redis.delete(books.stream)
    assert await charging.replay(books.ledger, "acme", "r1", {"api_calls": 1}) is ReplayOutcome.CHARGED


async def test_what_could_not_be_an_event_is_refused(books: Books) -> None:
    await books.publish()
    for org, request_id in (("no org", "r1"), ("acme", "a b")):
        with pytest.raises(ValueError, match="must"):
            await charging.replay(books.ledger, org, request_id, {"api_calls": 1})

"""Several takes in one script call: each is decided on its own, in order, and none harms its neighbours."""

from collections import Counter
from typing import Any

import pytest
from redis.exceptions import ResponseError

from quota import keys
from quota.model import (
    Admitted,
    Entitlement,
    Exhausted,
    MeterLimit,
    MeterUsage,
    NotEntitled,
    NotInPlan,
    RateLimit,
    Status,
    Unknown,
)
from quota.periods import Period
from tests.quota.books import Books, expect

ONE = {"api_calls": 1}


def verdicts(decisions: list[Any]) -> list[type]:
    return [type(decision) for decision in decisions]


async def test_a_batch_over_the_limit_admits_what_fits_in_the_order_of_the_requests(books: Books) -> None:
    await books.publish()
    decisions = await books.take_at_once(*[{"api_calls": 4}] * 3, {"api_calls": 2}, ONE)
    assert verdicts(decisions) == [Admitted, Admitted, Exhausted, Admitted, Exhausted]
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 10}


async def test_each_request_of_a_batch_sees_what_the_one_before_it_left(books: Books) -> None:
    await books.publish()
    requests = (ONE, {"api_calls": 2}, {"api_calls": 3})
    decisions = [expect(Admitted, decision) for decision in await books.take_at_once(*requests)]
    assert [decision.balances[0].remaining for decision in decisions] == [9, 7, 4]
    assert [event.request_id for event in await books.events()] == ["1", "2", "3"]
    assert len({decision.now_us for decision in decisions}) == 1


async def test_a_batch_of_64_is_charged_unit_by_unit(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 50),))
    decisions = await books.take_at_once(*[ONE] * 64)
    assert verdicts(decisions) == [Admitted] * 50 + [Exhausted] * 14
    assert await books.counters() == {"used:api_calls": 50}


async def test_requests_of_one_and_of_several_meters_travel_together(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    both = {"tokens": 60, "api_calls": 1}
    decisions = await books.take_at_once(ONE, both, both, {"tokens": 40}, {"pages": 1}, ONE)
    assert verdicts(decisions) == [Admitted, Admitted, Exhausted, Admitted, NotInPlan, Admitted]
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 3, "used:tokens": 100}


async def test_organizations_of_one_batch_are_charged_each_its_own(books: Books) -> None:
    shards = books.ledger.shards
    await books.publish()
    await books.ledger.publish(books.entitlement(status=Status.SUSPENDED))
    other = Entitlement("globex", 1, Status.ACTIVE, meters=(MeterLimit("api_calls", 2),), periods=books.periods)
    await books.ledger.publish(other)
    names, words = [], []
    for i, org in enumerate(["acme", "globex", "nobody", "globex", "globex"]):
        names += [keys.org_key(org, shards), keys.events_key(keys.shard_of(org, shards))]
        words.append([f"r{i}", org, "", 1, "api_calls", 1])
    decisions = books.decode(await books.call(names, *words), *[ONE] * 5)
    assert verdicts(decisions) == [NotEntitled, Admitted, Unknown, Admitted, Exhausted]
    assert [expect(Admitted, decisions[i]).balances[0].remaining for i in (1, 3)] == [1, 0]


async def test_organizations_of_one_batch_are_charged_each_in_its_own_period(books: Books) -> None:
    shards = books.ledger.shards
    orgs = ["acme", "globex", "acme", "initech", "globex"]
    starts = {"acme": books.start, "globex": books.start - 7, "initech": books.start - 9}
    names, words = [], []
    for org, start in starts.items():
        period = Period(start, books.periods[0].end)
        meters = (MeterLimit("api_calls", 10),)
        await books.ledger.publish(Entitlement(org, 1, Status.ACTIVE, meters=meters, periods=(period,)))
    for i, org in enumerate(orgs):
        names += [keys.org_key(org, shards), keys.events_key(keys.shard_of(org, shards))]
        words.append([f"r{i}", org, "", 1, "api_calls", 1])
    decisions = books.decode(await books.call(names, *words), *[ONE] * 5)
    assert [expect(Admitted, decision).period.start for decision in decisions] == [starts[org] for org in orgs]
    for org, start in starts.items():
        [usage] = (await books.snapshot(org)).usage
        assert usage == MeterUsage(start, "api_calls", orgs.count(org))


async def test_requests_of_one_batch_are_charged_each_for_its_own_meters_in_its_own_period(books: Books) -> None:
    shards = books.ledger.shards
    starts = {"acme": books.start, "globex": books.start - 7}
    meters = tuple(MeterLimit(meter, 1000) for meter in ("api_calls", "pages", "tokens"))
    for org, start in starts.items():
        period = Period(start, books.periods[0].end)
        await books.ledger.publish(Entitlement(org, 1, Status.ACTIVE, meters=meters, periods=(period,)))
    both, turned, others = ("api_calls", "tokens"), ("tokens", "api_calls"), ("api_calls", "pages")
    turns = (both, both, turned, ("pages",), others, both, (*both, "pages"), others, ("pages",), turned)
    asked = [(org, charged) for org in starts for charged in turns]
    asked += [(org, charged) for charged in turns for org in starts]
    names, words, expected = [], [], Counter[tuple[str, str]]()
    for i, (org, charged) in enumerate(asked):
        names += [keys.org_key(org, shards), keys.events_key(keys.shard_of(org, shards))]
        words.append(
            [f"r{i}", org, "", len(charged), *(word for cost, meter in enumerate(charged, 2) for word in (meter, cost))]
        )
        expected.update({(org, meter): cost for cost, meter in enumerate(charged, 2)})
    decisions = books.decode(await books.call(names, *words), *[dict.fromkeys(charged, 1) for _, charged in asked])
    assert [expect(Admitted, decision).period.start for decision in decisions] == [starts[org] for org, _ in asked]
    for org, start in starts.items():
        usage = (await books.snapshot(org)).usage
        assert usage == tuple(MeterUsage(start, meter.meter, expected[org, meter.meter]) for meter in meters)


@pytest.mark.parametrize("cost", ["-1", "1.5", "x", "", "nan", "inf", "1000000000001"])
async def test_a_bad_cost_is_an_error_of_its_own_request_only(books: Books, cost: str) -> None:
    await books.publish()
    words = [
        ["a", "acme", "", 1, "api_calls", 1],
        ["b", "acme", "", 1, "api_calls", cost],
        ["c", "acme", "", 1, "api_calls", 2],
    ]
    first, second, third = books.decode(await books.call([books.hash, books.stream] * 3, *words), *[ONE] * 3)
    assert verdicts([first, third]) == [Admitted, Admitted]
    assert isinstance(second, ResponseError)
    assert "cost must be a whole number" in str(second)
    assert [event.request_id for event in await books.events()] == ["a", "c"]
    assert await books.counters() == {"used:api_calls": 3}


async def test_a_bad_cost_of_a_second_meter_charges_the_first_one_nothing(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    async with books.unchanged():
        [reply] = await books.call([books.hash, books.stream], ["a", "acme", "", 2, "api_calls", 1, "tokens", "-1"])
    assert isinstance(reply, ResponseError)


async def test_a_request_that_names_a_meter_twice_is_an_error_and_charges_nothing(books: Books) -> None:
    await books.publish()
    async with books.unchanged():
        [reply] = await books.call([books.hash, books.stream], ["a", "acme", "", 2, "api_calls", 6, "api_calls", 6])
    assert isinstance(reply, ResponseError)
    assert "twice" in str(reply)


async def test_a_key_of_the_wrong_type_is_an_error_of_its_own_request_only(books: Books) -> None:
    await books.publish()
    tag = books.stream.removesuffix(":events")
    wrong = f"{tag}:org:wrong"
    await books.redis.set(wrong, "not a hash")
    names = [books.hash, books.stream, wrong, books.stream, books.hash, books.stream]
    words = [
        ["a", "acme", "", 1, "api_calls", 1],
        ["b", "wrong", "", 1, "api_calls", 1],
        ["c", "acme", "", 1, "api_calls", 1],
    ]
    first, second, third = books.decode(await books.call(names, *words), *[ONE] * 3)
    assert verdicts([first, third]) == [Admitted, Admitted]
    assert isinstance(second, ResponseError)
    assert "WRONGTYPE" in str(second)


@pytest.mark.parametrize("charges", [["1", "api_calls", 1], ["2", "api_calls", 1, "tokens", 1]])
async def test_a_stream_that_refuses_the_event_leaves_the_counters_as_they_were(
    books: Books, charges: list[Any]
) -> None:
    await books.publish(rate=RateLimit(1, 1, 10), meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 10)))
    wrong = f"{books.stream}:wrong"
    await books.redis.set(wrong, "not a stream")
    async with books.unchanged():
        [reply] = await books.call([books.hash, wrong], ["a", "acme", "", *charges])
    assert isinstance(reply, ResponseError)
    assert "WRONGTYPE" in str(reply)
    names = [books.hash, wrong, books.hash, books.stream]
    words = [["a", "acme", "", *charges], ["b", "acme", "", 1, "api_calls", 1]]
    first, second = books.decode(await books.call(names, *words), *[ONE] * 2)
    assert isinstance(first, ResponseError)
    assert expect(Admitted, second).balances[0].remaining == 9


@pytest.mark.parametrize("count", ["x", "", "0", "-1", "0.5", "7"])
async def test_a_request_that_cannot_be_read_leaves_those_before_it_charged_and_told(books: Books, count: str) -> None:
    await books.publish()
    words = [
        ["a", "acme", "", 1, "api_calls", 1],
        ["b", "acme", "", count, "api_calls", 1],
        ["c", "acme", "", 1, "api_calls", 1],
    ]
    first, second, third = books.decode(await books.call([books.hash, books.stream] * 3, *words), *[ONE] * 3)
    assert isinstance(first, Admitted)
    # Where the third begins cannot be known, so it is not guessed at.
    assert verdicts([second, third]) == [ResponseError, ResponseError]
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 1}

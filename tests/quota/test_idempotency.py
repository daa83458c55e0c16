"""Of all requests of a day with one idempotency key, one is charged: whatever comes first, together, or to nothing."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from quota import keys
from quota.ledger import Ledger
from quota.model import Admitted, Exhausted, MeterLimit, NotEntitled, RateLimit, RateLimited, Status
from quota.scripts import script
from tests import charging
from tests.quota.books import Books

KEY = "k"


async def once(books: Books, request_id: str, key: str = KEY, /, **charges: int) -> Admitted:
    decision = await charging.take(books.ledger, books.org, request_id, charges or {"api_calls": 1}, key)
    assert isinstance(decision, Admitted), decision
    return decision


def kept(books: Books) -> str:
    return keys.idempotency_key(books.org, books.ledger.shards, KEY)


async def test_a_request_with_a_key_is_charged_once_and_its_repetitions_tell_the_balance_as_it_is(books: Books) -> None:
    await books.publish()
    first = await once(books, "a", api_calls=4)
    assert not first.replayed
    await books.admitted(1)
    second, third = await once(books, "b", api_calls=4), await once(books, "c", api_calls=4)
    assert second.replayed
    assert third.replayed
    assert second.receipt == third.receipt == first.receipt
    assert second.balances == [await books.balance()]
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 5}
    assert len(await books.events()) == 2


async def test_another_key_and_another_organization_are_charged_each_their_own(books: Books) -> None:
    await books.publish()
    assert not (await once(books, "a", "k1")).replayed
    assert not (await once(books, "b", "k2")).replayed
    assert not (await books.admitted()).replayed
    assert await books.counters() == {"used:api_calls": 3}


async def test_50_requests_with_one_key_at_once_over_50_connections_are_one_charge(
    books: Books, redis_url: str
) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 1),))

    async def attempt(n: int) -> Admitted:
        async with Redis.from_url(redis_url) as redis:
            decision = await charging.take(Ledger(redis), books.org, f"a{n}", {"api_calls": 1}, KEY)
            assert isinstance(decision, Admitted)
            return decision

    answers = await asyncio.gather(*(attempt(n) for n in range(50)))
    assert [answer.replayed for answer in answers].count(False) == 1
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 1}


async def test_a_repetition_is_admitted_though_the_organization_is_exhausted_meanwhile(books: Books) -> None:
    await books.publish()
    await once(books, "a", api_calls=10)
    assert isinstance(await books.take(), Exhausted)
    assert (await once(books, "b", api_calls=10)).replayed


async def test_a_repetition_counts_against_the_rate_and_needs_an_organization_that_is_served(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 2))
    await once(books, "a")
    assert (await once(books, "b")).replayed
    async with books.unchanged():
        assert isinstance(await charging.take(books.ledger, books.org, "c", {"api_calls": 1}, KEY), RateLimited)
    await books.publish(status=Status.SUSPENDED)
    assert await charging.take(books.ledger, books.org, "d", {"api_calls": 1}, KEY) == NotEntitled(Status.SUSPENDED)


async def test_a_refused_request_leaves_its_key_free(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 1),))
    async with books.unchanged():
        assert isinstance(await charging.take(books.ledger, books.org, "a", {"api_calls": 2}, KEY), Exhausted)
    await books.publish()
    assert not (await once(books, "b", api_calls=2)).replayed


async def test_a_charge_given_back_frees_its_key_and_the_next_attempt_is_charged(books: Books) -> None:
    await books.publish()
    for attempt in ("a", "b", "c"):
        taken = await once(books, attempt, api_calls=3)
        assert not taken.replayed
        for _ in range(2):  # a settlement may be sent twice
            await books.ledger.give_back(books.org, taken.receipt, KEY, attempt)
        assert await books.counters() == {}
    assert not (await once(books, "d", api_calls=3)).replayed
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 3}


async def test_a_charge_stays_as_long_as_one_of_its_requests_was_not_given_back(books: Books) -> None:
    await books.publish()
    first, second = await once(books, "a"), await once(books, "b")
    for _ in range(2):
        assert not (await books.ledger.give_back(books.org, first.receipt, KEY, "a")).applied
    assert await books.counters() == {"used:api_calls": 1}
    third = await once(books, "c")
    assert third.replayed
    assert not (await books.ledger.give_back(books.org, third.receipt, KEY, "c")).applied
    assert (await books.ledger.give_back(books.org, second.receipt, KEY, "b")).applied
    assert not (await books.ledger.give_back(books.org, second.receipt, KEY, "b")).applied
    assert await books.counters() == await books.event_sums() == {}
    assert not (await once(books, "d")).replayed


async def test_a_late_giving_back_of_an_old_charge_does_not_free_the_key_of_a_new_one(books: Books) -> None:
    await books.publish()
    old = await once(books, "a")
    await books.ledger.give_back(books.org, old.receipt, KEY, "a")
    new = await once(books, "b")
    await books.ledger.give_back(books.org, old.receipt, KEY, "a")
    assert (await once(books, "c")).receipt == new.receipt
    assert await books.counters() == {"used:api_calls": 1}


async def test_a_repetition_whose_key_is_kept_no_longer_gives_nothing_back(books: Books) -> None:
    await books.publish()
    await once(books, "a")
    replay = await once(books, "b")
    await books.redis.delete(kept(books))
    assert not (await books.ledger.give_back(books.org, replay.receipt, KEY, "b")).applied
    assert await books.counters() == {"used:api_calls": 1}


async def test_a_correction_to_something_keeps_the_key(books: Books) -> None:
    await books.publish()
    taken = await once(books, "a", api_calls=5)
    await books.settle(taken.receipt, api_calls=2)
    assert (await once(books, "b", api_calls=5)).replayed
    assert await books.counters() == {"used:api_calls": 2}


async def test_a_key_is_kept_for_a_day_from_the_charge(books: Books) -> None:
    await books.publish()
    await once(books, "a")
    assert 86_390 < await books.redis.ttl(kept(books)) <= 86_400
    await books.redis.expire(kept(books), 1000)
    await once(books, "b")
    await once(books, "c")
    assert await books.redis.ttl(kept(books)) <= 1000
    replay = await once(books, "d")
    await books.ledger.give_back(books.org, replay.receipt, KEY, "d")
    assert await books.redis.ttl(kept(books)) <= 1000


async def test_a_lost_repetition_is_withdrawn_and_the_last_one_withdrawn_names_the_charge(books: Books) -> None:
    await books.publish()
    first = await once(books, "a")
    await once(books, "b")
    withdraw = script("withdraw").source.decode()
    assert await books.redis.eval(withdraw, 1, kept(books), "b") is None
    assert await books.redis.eval(withdraw, 1, kept(books), "never sent") is None
    assert await books.redis.eval(withdraw, 1, kept(books), "a") == first.receipt
    assert (await books.ledger.give_back(books.org, first.receipt, KEY, "a")).applied
    assert await books.redis.eval(withdraw, 1, kept(books), "a") is None


async def test_what_is_kept_of_a_key_stays_small_however_often_it_is_repeated(books: Books) -> None:
    await books.publish()
    for n in range(200):
        await once(books, f"{n:020}")
    assert await books.redis.strlen(kept(books)) < 1500
    replay = await once(books, "x")
    assert not (await books.ledger.give_back(books.org, replay.receipt, KEY, "x")).applied
    assert await books.counters() == {"used:api_calls": 1}


async def test_several_meters_are_charged_once_together(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    first = await once(books, "a", api_calls=1, tokens=60)
    second = await once(books, "b", api_calls=1, tokens=60)
    assert second.balances == first.balances
    assert await books.counters() == {"used:api_calls": 1, "used:tokens": 60}


async def test_requests_with_and_without_a_key_travel_together(books: Books) -> None:
    await books.publish()
    plain, keyed = [books.hash, books.stream], [books.hash, books.stream, kept(books)]
    replies = await books.call(
        [*plain, *keyed, *plain, *keyed, *plain],
        ["a", "acme", "", 1, "api_calls", 1],
        ["b", "acme", "", "k1", "api_calls", 2],
        ["c", "acme", "", 2, "api_calls", 1, "pages", 1],
        ["d", "acme", "", "k1", "api_calls", 2],
        ["e", "acme", "", 1, "api_calls", 1],
    )
    one = {"api_calls": 1}
    decisions = books.decode(replies, one, one, {"api_calls": 1, "pages": 1}, one, one)
    assert [getattr(decision, "replayed", None) for decision in decisions] == [False, False, None, True, False]
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 4}


@pytest.mark.parametrize("number", ["k", "k0", "kx", "k1k", "K1"])
async def test_a_key_without_a_number_of_meters_is_an_error(books: Books, number: str) -> None:
    await books.publish()
    async with books.unchanged():
        replies = await books.call([books.hash, books.stream, kept(books)], ["a", "acme", "", number, "api_calls", 1])
    assert isinstance(replies[0], ResponseError)


async def test_a_key_of_another_type_is_an_error_and_charges_nothing(books: Books) -> None:
    await books.publish()
    await books.redis.hset(kept(books), "a", "b")
    async with books.unchanged():
        [reply] = await books.call([books.hash, books.stream, kept(books)], ["a", "acme", "", "k1", "api_calls", 1])
    assert isinstance(reply, ResponseError)

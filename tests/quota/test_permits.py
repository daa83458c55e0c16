"""Requests under way at once: permits that are given by take, freed at the end, and free by themselves in time."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from quota import keys
from quota.ledger import Ledger
from quota.model import Admitted, ConcurrencyLimited, Entitlement, Exhausted, MeterLimit, RateLimit, RateLimited, Status
from quota.wire import PERMIT_SECONDS
from tests import charging
from tests.quota.books import Books

MANY = (MeterLimit("api_calls", 10**6),)


def permits(books: Books) -> str:
    return keys.permits_key(books.org, books.ledger.shards)


async def begin(books: Books, request_id: str, idempotency: str | None = None) -> Any:
    return await charging.take(books.ledger, books.org, request_id, {"api_calls": 1}, idempotency)


async def test_no_more_requests_than_allowed_are_under_way_and_a_refusal_changes_nothing(books: Books) -> None:
    await books.publish(concurrent_max=2, rate=RateLimit(1, 3600, 10))
    assert (await begin(books, "a")).permit
    assert (await begin(books, "b")).permit
    async with books.unchanged():
        refused = await begin(books, "c")
        assert refused == ConcurrencyLimited(books.periods[0], refused.now_us, 2)
    assert await charging.release(books.ledger, books.org, "a")
    assert not await charging.release(books.ledger, books.org, "a")
    assert (await begin(books, "d")).permit
    assert isinstance(await begin(books, "e"), ConcurrencyLimited)
    assert await books.counters() == await books.event_sums() == {"used:api_calls": 3}


async def test_of_50_requests_at_once_exactly_as_many_as_there_are_permits_are_admitted(
    books: Books, redis_url: str
) -> None:
    await books.publish(meters=MANY, concurrent_max=7)

    async def attempt(n: int) -> Any:
        async with Redis.from_url(redis_url) as redis:
            return await charging.take(Ledger(redis), books.org, f"a{n}", {"api_calls": 1})

    answers = await asyncio.gather(*(attempt(n) for n in range(50)))
    assert [type(answer) for answer in answers].count(Admitted) == 7
    assert await books.counters() == {"used:api_calls": 7}


async def test_a_permit_that_nobody_frees_is_free_when_its_time_is_over(books: Books) -> None:
    await books.publish(concurrent_max=2)
    seconds, _ = await books.redis.time()
    await begin(books, "a")
    await begin(books, "b")
    until, (later, _) = await books.redis.zscore(permits(books), "a"), await books.redis.time()
    assert until is not None
    assert seconds <= until - PERMIT_SECONDS <= later + 1
    await books.redis.zadd(permits(books), {"a": seconds})  # as if a minute had passed
    assert (await begin(books, "c")).permit
    assert isinstance(await begin(books, "d"), ConcurrencyLimited)
    assert await books.redis.zrange(permits(books), 0, -1) == [b"b", b"c"]


async def test_a_request_that_lasts_renews_its_permit(books: Books) -> None:
    await books.publish(concurrent_max=1)
    await begin(books, "a")
    seconds, _ = await books.redis.time()
    await books.redis.zadd(permits(books), {"a": seconds + 1})
    await charging.renew(books.ledger, books.org, ["a"])
    assert (await books.redis.zscore(permits(books), "a") or 0) >= seconds + PERMIT_SECONDS
    assert isinstance(await begin(books, "b"), ConcurrencyLimited)


async def test_a_refused_request_holds_no_permit(books: Books) -> None:
    await books.publish(concurrent_max=5, rate=RateLimit(1, 3600, 1), meters=(MeterLimit("api_calls", 1),))
    await begin(books, "a")
    assert isinstance(await begin(books, "b"), Exhausted)
    await books.publish(concurrent_max=5, rate=RateLimit(1, 3600, 1))
    assert isinstance(await begin(books, "c"), RateLimited)
    assert await books.redis.zrange(permits(books), 0, -1) == [b"a"]


async def test_a_repetition_of_a_charged_request_needs_a_permit_of_its_own(books: Books) -> None:
    await books.publish(concurrent_max=2)
    await begin(books, "a", "k")
    replay = await begin(books, "b", "k")
    assert replay.replayed
    assert replay.permit
    async with books.unchanged():
        assert isinstance(await begin(books, "c", "k"), ConcurrencyLimited)


async def test_only_an_organization_whose_number_is_limited_has_permits(books: Books) -> None:
    await books.publish()
    assert not (await begin(books, "a")).permit
    assert await books.redis.exists(permits(books)) == 0
    await books.publish(concurrent_max=1)
    assert (await begin(books, "b")).permit
    await books.publish()
    assert not (await begin(books, "c")).permit


async def test_a_changed_number_applies_to_the_next_request(books: Books) -> None:
    await books.publish(concurrent_max=3)
    for request in "abc":
        await begin(books, request)
    await books.publish(concurrent_max=1)
    for request in "ab":
        await charging.release(books.ledger, books.org, request)
        assert isinstance(await begin(books, "d"), ConcurrencyLimited)
    await charging.release(books.ledger, books.org, "c")
    assert (await begin(books, "d")).permit


async def test_the_number_is_published_and_read_back_and_the_hash_stays_small(books: Books) -> None:
    await books.publish(concurrent_max=4_000)
    snapshot = await books.ledger.peek(books.org)
    assert snapshot is not None
    assert snapshot.concurrent_max == 4_000
    assert await books.redis.object("ENCODING", books.hash) == b"listpack"
    await books.publish()
    snapshot = await books.ledger.peek(books.org)
    assert snapshot is not None
    assert snapshot.concurrent_max is None


async def test_permits_of_another_type_are_an_error_and_charge_nothing(books: Books) -> None:
    await books.publish(concurrent_max=1)
    await books.redis.set(permits(books), "x")
    async with books.unchanged():
        with pytest.raises(Exception, match="WRONGTYPE"):
            await begin(books, "a")


@pytest.mark.parametrize("number", [0, -1, 10**6 + 1])
def test_a_number_that_cannot_be_meant_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="concurrent_max"):
        Entitlement("acme", 1, Status.NONE, concurrent_max=number)

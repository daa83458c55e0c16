"""seed: counters that Redis lost are put back, and no number of seeders counts them twice."""

import asyncio

from quota.calls.publication import counter_fields
from quota.model import UNITS_MAX, Exhausted, Grant, MeterBalance, MeterUsage, OveragePolicy
from tests.quota.books import Books


async def test_absent_counters_are_filled_and_count_at_once(books: Books) -> None:
    assert await books.ledger.seed(books.org, [MeterUsage(books.start, "api_calls", 12, 3, 2)], {"bonus": 3}) == 4
    bonus = Grant("bonus", "api_calls", 4, books.now + 600)
    await books.publish(policy=OveragePolicy.METERED, grants=(bonus,))
    # 12 used, 3 by the grant and 2 sold: 7 of the allowance, so 3 are left of it, and 1 of the grant.
    assert await books.balance() == MeterBalance("api_calls", 14, 4, 2)


async def test_seeding_twice_counts_once(books: Books) -> None:
    usage = [MeterUsage(books.start, "api_calls", 4)]
    filled = await asyncio.gather(*[books.ledger.seed(books.org, usage, {"bonus": 1}) for _ in range(8)])
    assert sorted(filled) == [0] * 7 + [2]
    assert await books.counters() == {"used:api_calls": 4, "grant:bonus": 1}


async def test_a_counter_that_is_there_is_left_as_it_is(books: Books) -> None:
    await books.publish()
    await books.admitted(6)
    usage = [MeterUsage(books.start, "api_calls", 4), MeterUsage(books.start - 1, "api_calls", 2)]
    assert await books.ledger.seed(books.org, usage, {}) == 1
    assert await books.counters() == {"used:api_calls": 6, f"used:{books.start - 1}:api_calls": 2}


async def test_counters_of_zero_are_not_written(books: Books) -> None:
    assert await books.ledger.seed(books.org, [MeterUsage(books.start, "api_calls", 0)], {"bonus": 0}) == 0
    assert await books.ledger.seed(books.org, [], {}) == 0
    assert await books.redis.exists(books.hash) == 0


async def test_a_seeded_limit_is_not_given_away_a_second_time(books: Books) -> None:
    await books.ledger.seed(books.org, [MeterUsage(books.start, "api_calls", 10)], {})
    await books.publish()
    assert isinstance(await books.take(), Exhausted)


async def test_seeding_before_publishing_keeps_the_counters_of_listed_grants(books: Books) -> None:
    await books.ledger.seed(books.org, [], {"bonus": 5})
    await books.publish(grants=(Grant("bonus", "api_calls", 5, books.now + 600),))
    assert isinstance(await books.take(11), Exhausted)


async def test_the_largest_counters_are_seeded_exactly(books: Books) -> None:
    await books.ledger.seed(books.org, [MeterUsage(books.start, "api_calls", UNITS_MAX - 1)], {})
    assert await books.counters() == {"used:api_calls": UNITS_MAX - 1}


async def test_what_is_peeked_can_be_seeded_into_an_empty_redis(books: Books) -> None:
    grant = Grant("bonus", "api_calls", 5, books.now + 600)
    await books.publish(policy=OveragePolicy.METERED, grants=(grant,))
    await books.admitted(18)
    before, snapshot = await books.counters(), await books.snapshot()
    await books.redis.flushall()
    await books.ledger.seed(books.org, snapshot.usage, snapshot.grant_used)
    assert await books.counters() == before


def test_the_words_of_a_seed_leave_out_what_is_zero() -> None:
    usage = [MeterUsage(100, "api_calls", 5, 0, 2), MeterUsage(200, "tokens", 1, 1)]
    assert counter_fields(usage, {"a": 0, "b": 7}) == [
        *("used:100:api_calls", 5, "over:100:api_calls", 2),
        *("used:200:tokens", 1, "burnt:200:tokens", 1, "grant:b", 7),
    ]

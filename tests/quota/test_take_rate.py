"""The rate limit of an organization: GCRA on Redis TIME. Rates are so slow, or arrivals so set, that no test waits.

`tat` is the hash's theoretical arrival time: when the bucket will be full again.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota.model import Admitted, Exhausted, MeterLimit, NotInPlan, RateLimit, RateLimited
from tests.quota.books import Books, expect

ONE = {"api_calls": 1}
MANY = (MeterLimit("api_calls", 10**6),)
HOUR_US = 3_600_000_000


async def arrival_us(books: Books) -> float | None:
    value = await books.redis.hget(books.hash, "tat")
    return None if value is None else float(value)


@pytest.mark.parametrize(
    "rate",
    [
        RateLimit(1, 3600, 1),
        RateLimit(1, 3600, 10),
        RateLimit(7, 1, 10),
        RateLimit(7, 1, 64),
        RateLimit(3, 86_400, 20),
        RateLimit(999, 1, 60),
        RateLimit(30_000, 1, 64),
        RateLimit(70_001, 1, 33),
    ],
)
async def test_a_burst_admits_exactly_its_size_at_one_instant(books: Books, rate: RateLimit) -> None:
    await books.publish(meters=MANY, rate=rate)
    decisions = await books.take_at_once(*[ONE] * (rate.burst + 3))
    assert [type(decision) for decision in decisions] == [Admitted] * rate.burst + [RateLimited] * 3
    assert await books.counters() == await books.event_sums() == {"used:api_calls": rate.burst}


async def test_after_a_burst_the_wait_is_one_interval(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 3))
    *_, last = await books.take_at_once(*[ONE] * 4)
    refused = expect(RateLimited, last)
    assert refused.retry_after_us == HOUR_US
    assert (refused.interval_us, refused.burst_us) == (HOUR_US, 3 * HOUR_US)
    assert refused.period == books.periods[0]


async def test_a_rate_limited_request_consumes_nothing_so_hammering_does_not_prolong_the_wait(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 1))
    admitted = await books.admitted()
    async with books.unchanged():
        for _ in range(3):
            refused = expect(RateLimited, await books.take())
            assert refused.now_us + refused.retry_after_us == admitted.now_us + HOUR_US


async def test_at_the_sustained_rate_the_arrival_time_moves_by_one_interval_a_request(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 5))
    first = await books.admitted()
    for requests in (2, 3, 4):
        await books.admitted()
        assert await arrival_us(books) == first.now_us + requests * HOUR_US


async def test_an_idle_organization_saves_up_one_burst_and_no_more(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 2))
    await books.redis.hset(books.hash, "tat", (books.now - 10 * 3600) * 1_000_000)
    decisions = await books.take_at_once(*[ONE] * 3)
    assert [type(decision) for decision in decisions] == [Admitted, Admitted, RateLimited]
    assert await arrival_us(books) == expect(Admitted, decisions[0]).now_us + 2 * HOUR_US


@pytest.mark.parametrize("early_us", [0.25, 1, 1.75, 2])
async def test_the_wait_that_is_told_is_the_shortest_whole_one_that_passes(books: Books, early_us: float) -> None:
    """The clock is Redis TIME, so instead of waiting, the arrival time is moved as far as waiting would have."""
    await books.publish(rate=RateLimit(1, 3600, 1))
    await books.redis.hset(books.hash, "tat", (books.now + 1000) * 1_000_000 + early_us)
    refused = expect(RateLimited, await books.take())
    passes_us = await arrival_us(books)
    assert passes_us is not None
    assert passes_us <= refused.now_us + refused.retry_after_us < passes_us + 1


async def test_a_request_passes_at_the_very_microsecond_that_was_told(books: Books) -> None:
    # The second of two takes at one instant, with a burst of two: its arrival time is exactly at the bound.
    await books.publish(rate=RateLimit(1, 3600, 2))
    first, second, third = await books.take_at_once(ONE, ONE, ONE)
    assert isinstance(second, Admitted)
    assert await arrival_us(books) == expect(Admitted, first).now_us + 2 * HOUR_US
    assert expect(RateLimited, third).retry_after_us == HOUR_US


async def test_a_request_refused_by_its_quota_does_not_count_against_the_rate(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 1))
    async with books.unchanged():
        assert isinstance(await books.take(11), Exhausted)
        assert isinstance(await books.take(pages=1), NotInPlan)
    await books.admitted()


async def test_a_request_counts_once_against_the_rate_whatever_it_costs(books: Books) -> None:
    meters = (MeterLimit("api_calls", 100), MeterLimit("tokens", 100))
    await books.publish(meters=meters, rate=RateLimit(1, 3600, 2))
    await books.admitted(api_calls=50, tokens=50)
    await books.admitted(0)
    assert isinstance(await books.take(0), RateLimited)


async def test_without_a_rate_limit_there_is_no_arrival_time(books: Books) -> None:
    await books.publish()
    await books.admitted()
    assert await arrival_us(books) is None


async def test_a_new_rate_applies_to_the_next_request(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 1))
    await books.admitted()
    await books.publish(rate=RateLimit(1, 3600, 2))
    await books.admitted()
    assert isinstance(await books.take(), RateLimited)
    await books.publish()
    await books.admitted()


async def test_the_rate_of_a_clients_settlements_is_not_limited(books: Books) -> None:
    await books.publish(rate=RateLimit(1, 3600, 1))
    receipt = await books.receipt(5)
    assert (await books.settle(receipt, api_calls=0)).applied
    assert isinstance(await books.take(), RateLimited)


@given(st.builds(RateLimit, st.integers(1, 10**7), st.floats(0.001, 86_400), st.integers(1, 10**6)))
def test_an_interval_is_one_that_sums_exactly_at_todays_times(rate: RateLimit) -> None:
    now_us = 1_800_000_000_000_000
    assert rate.interval_us > 0
    assert abs(rate.interval_us - max(0.25, rate.seconds * 1_000_000 / rate.requests)) <= 0.125
    assert (now_us + rate.interval_us) - now_us == rate.interval_us

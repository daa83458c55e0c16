"""A gateway in one of several regions, which holds a part of what an organization may use."""

import asyncio
from itertools import count

from redis.asyncio import Redis

from quota import keys
from quota.calls.leases import LeaseTerms
from quota.model import Elsewhere, Entitlement, MeterLimit, Status
from quota.periods import Period
from tests.gateway.rig import PATIENCE_SECONDS, Gateway, MakeOrganization, Organization, StartGateway, Upstream

CALLS = "api_calls"
GENERATION = "generation"
NUMBERS = count(1)


async def lease(organization: Organization, redis: Redis, units: int, free: int, asked_ago: int = 0) -> None:
    """The region holds so many of 1,000 api_calls."""
    now, _ = await redis.time()
    periods = (Period(now - 1000, now + 100_000),)
    ledger = organization.ledger
    await redis.set(keys.generation_key(keys.shard_of(organization.id, ledger.shards)), GENERATION)
    organization.version += 1
    entitlement = Entitlement(
        organization.id, organization.version, Status.ACTIVE, meters=(MeterLimit(CALLS, 1000),), periods=periods
    )
    await ledger.publish(entitlement, leased=True)
    terms = LeaseTerms(
        version=organization.version,
        returns=0,
        number=next(NUMBERS),
        asked_s=now - asked_ago,
        lasts_s=60,
        periods=periods,
        meters=(MeterLimit(CALLS, units, 0),),
        elsewhere={CALLS: Elsewhere(1000 - units, 1000 - units, 0, free)},
    )
    assert await ledger.lease(organization.id, terms, GENERATION)


async def test_a_region_that_is_short_of_units_asks_its_home_before_it_refuses(
    gateway: Gateway, organization: MakeOrganization, redis_url: str
) -> None:
    acme = await organization("acme", 0)
    async with Redis.from_url(redis_url) as redis:
        await lease(acme, redis, units=1, free=500)
        first = await gateway.get("/", acme)
        assert first.status == 200
        assert ";r=999;" in (first["ratelimit"] or "")
        waiting = asyncio.create_task(gateway.get("/", acme))
        asked = await redis.blpop([keys.HYDRATE], timeout=PATIENCE_SECONDS)
        assert asked is not None
        assert asked[1] == b"acme api_calls=1"
        await lease(acme, redis, units=2, free=499)
        assert (await waiting).status == 200
    assert await acme.used() == 2


async def test_a_refusal_is_final_at_once_where_the_home_has_nothing_free(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, redis_url: str
) -> None:
    acme = await organization("acme", 0)
    async with Redis.from_url(redis_url) as redis:
        await lease(acme, redis, units=1, free=0)
        assert (await gateway.get("/", acme)).status == 200
        answer = await gateway.get("/", acme)
        assert (answer.status, answer.problem["limit"]) == (429, 1000)
        assert await redis.llen(keys.HYDRATE) == 0
    assert len(upstream.requests) == 1


async def test_a_home_that_does_not_answer_in_time_leaves_the_refusal_as_it_was(
    start: StartGateway, organization: MakeOrganization, redis_url: str
) -> None:
    gateway = await start(hydrate_timeout_ms=100)
    acme = await organization("acme", 0)
    async with Redis.from_url(redis_url) as redis:
        await lease(acme, redis, units=0, free=10)
        assert (await gateway.get("/", acme)).status == 429
        assert await redis.lrange(keys.HYDRATE, 0, -1) == [b"acme api_calls=1"]


async def test_a_lease_that_is_over_is_our_fault_and_is_asked_for(
    start: StartGateway, organization: MakeOrganization, redis_url: str
) -> None:
    gateway = await start(hydrate_timeout_ms=100)
    acme = await organization("acme", 0)
    async with Redis.from_url(redis_url) as redis:
        await lease(acme, redis, units=100, free=0, asked_ago=61)
        answer = await gateway.get("/", acme)
        assert (answer.status, answer["retry-after"]) == (503, "1")
        assert answer.problem["type"] == "urn:quotagate:problem:entitlement-pending"
        assert await redis.lrange(keys.HYDRATE, 0, -1) == [b"acme"]
        await lease(acme, redis, units=100, free=0)
        assert (await gateway.get("/", acme)).status == 200

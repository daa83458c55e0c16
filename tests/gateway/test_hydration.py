"""An organization that Redis does not know is asked for once, and those who ask for it wait."""

import asyncio

from redis.asyncio import Redis

from quota import keys
from quota.model import Status
from tests.gateway.rig import (
    PATIENCE_SECONDS,
    Gateway,
    MakeOrganization,
    StartGateway,
    Upstream,
)


async def test_an_unknown_organization_is_asked_for_once_and_all_who_wait_are_served(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, redis_url: str
) -> None:
    known = await organization("known")
    late = await organization("late", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("late", 32))
        waiting = [asyncio.create_task(gateway.get("/", late)) for _ in range(20)]
        asked = await redis.blpop([keys.HYDRATE], timeout=PATIENCE_SECONDS)
        assert asked is not None
        assert asked[1] == b"late"
        assert (await gateway.get("/", known)).status == 200, "others do not wait"
        assert not [task for task in waiting if task.done()]
        await late.publish(100)
        answers = await asyncio.gather(*waiting)
        assert [answer.status for answer in answers] == 20 * [200]
        assert await redis.llen(keys.HYDRATE) == 0
    assert await late.used() == 20


async def test_an_organization_that_nobody_knows_is_told_so_once_the_control_plane_says_it(
    gateway: Gateway, organization: MakeOrganization, redis_url: str
) -> None:
    nobody = await organization("nobody", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("nobody", 32))
        asked = asyncio.create_task(gateway.get("/", nobody))
        await redis.blpop([keys.HYDRATE], timeout=PATIENCE_SECONDS)
        await nobody.publish(None, status=Status.NONE, periods=())
        assert (await asked).status == 402


async def test_a_control_plane_that_does_not_answer_is_our_fault(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, redis_url: str
) -> None:
    gateway = await start(hydrate_timeout_ms=100)
    lost = await organization("lost", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("lost", 32))
        answer = await gateway.get("/", lost)
        assert (answer.status, answer["retry-after"]) == (503, "1")
        assert answer.problem["type"] == "urn:quotagate:problem:entitlement-pending"
        await lost.publish(100)
        assert (await gateway.get("/", lost)).status == 200
    assert len(upstream.requests) == 1


async def test_an_announcement_that_was_missed_costs_the_wait_and_not_the_request(
    start: StartGateway, organization: MakeOrganization, redis_url: str
) -> None:
    gateway = await start(hydrate_timeout_ms=2_000)
    late = await organization("late", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("late", 32))
        asked = asyncio.create_task(gateway.get("/", late))
        await redis.blpop([keys.HYDRATE], timeout=PATIENCE_SECONDS)
        listener = gateway.worker.hydrator._listener
        assert listener is not None
        listener.cancel()
        await asyncio.sleep(0)
        await late.publish(100)
        assert (await asked).status == 200

"""The promise: a server is vouched for as soon as each gateway has left the one before, and not sooner."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from common import redis_connections, redis_sentinel
from control.http.context import Context
from control.reconcile import rejoining
from control.settings.control_plane import Settings
from gateway.cluster import links, topology_watch
from gateway.http.deadlines import DeadlineSweep
from gateway.ledger.configured import link_of
from gateway.ledger.hydration import HydrationClient
from gateway.settings.redis import Redis as RedisSettings
from quota import keys
from tests.control.epochs import hold

pytestmark = pytest.mark.usefixtures("vouched_streams")
PATIENCE_SECONDS = 60


@asynccontextmanager
async def gateway(settings: Settings, user: str = "") -> AsyncIterator[HydrationClient]:
    """What of a worker hears a recovery, and answers it."""
    loop, url = asyncio.get_running_loop(), settings.redis.url.get_secret_value().replace("//", f"//{user}")
    link = link_of(loop, RedisSettings.model_validate({"url": url, "timeout_ms": 20_000, "budget_ms": 20_000}))
    deadlines = DeadlineSweep(loop)
    async with redis_connections.client(url) as redis:
        listener = HydrationClient(link, redis, deadlines, 1.0)
        link.start()
        listener.start()
        try:
            assert await link.wait_open(PATIENCE_SECONDS)
            yield listener
        finally:
            await listener.close()
            await link.close()
            deadlines.close()


async def listen(redis: Redis, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while dict(await redis.pubsub_numsub(keys.RECOVER))[keys.RECOVER.encode()] != count:  # noqa: ASYNC110 - it rings no bell
            await asyncio.sleep(0.01)


async def test_a_server_is_vouched_for_at_once_where_each_gateway_that_listened_before_has_answered(
    context: Context, settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejoining, "REJOIN_SECONDS", 10 * PATIENCE_SECONDS)
    async with gateway(settings), gateway(settings):
        await listen(redis, 2)
        await context.recovery._rejoining.look()
        await hold(redis, "another:9:0123")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await context.recovery.round()
    assert context.recovery.epoch > 9


async def test_a_gateway_that_listened_before_and_does_not_answer_has_a_second_to_leave_the_server_before(
    context: Context, settings: Settings, redis: Redis
) -> None:
    async with gateway(settings):
        await listen(redis, 1)
        await context.recovery._rejoining.look()
        await hold(redis, "another:9:0123")
    began = asyncio.get_running_loop().time()
    await context.recovery.round()
    assert asyncio.get_running_loop().time() - began >= rejoining.REJOIN_SECONDS


async def test_a_control_plane_that_does_not_know_who_listened_gives_all_of_them_a_second(
    context: Context, redis: Redis
) -> None:
    context.recovery._rejoining._seen.clear()
    await hold(redis, "another:9:0123")
    began = asyncio.get_running_loop().time()
    await context.recovery.recover()
    assert asyncio.get_running_loop().time() - began >= rejoining.REJOIN_SECONDS


async def test_a_gateway_that_stops_listening_when_it_is_asked_has_the_same_second(
    context: Context, settings: Settings, redis: Redis
) -> None:
    """As many listened as before, and then one of them was not asked."""
    loop, waiting = asyncio.get_running_loop(), context.recovery._rejoining
    async with gateway(settings):
        await listen(redis, 1)
        await context.recovery._rejoining.look()
        began = loop.time()
        await waiting.wait_for_others(began, told=await context.recovery._rejoining._listening())
        assert loop.time() - began < rejoining.REJOIN_SECONDS
        await waiting.wait_for_others(began, told=())
        assert loop.time() - began >= rejoining.REJOIN_SECONDS


async def test_a_gateway_of_the_release_before_does_not_say_who_it_is_and_all_have_a_second(
    context: Context, settings: Settings, redis: Redis
) -> None:
    loop, waiting = asyncio.get_running_loop(), context.recovery._rejoining
    async with gateway(settings), redis.pubsub() as before:
        await before.subscribe(keys.RECOVER)
        await listen(redis, 2)
        await waiting.look()
        began = loop.time()
        await waiting.wait_for_others(began, await waiting._listening())
    assert loop.time() - began >= rejoining.REJOIN_SECONDS


async def test_a_worker_that_is_replaced_at_that_moment_does_not_stand_for_another_one(
    context: Context, settings: Settings, redis: Redis
) -> None:
    """As many have answered as listened before, but not the same ones."""
    loop, waiting = asyncio.get_running_loop(), context.recovery._rejoining
    async with gateway(settings):
        await listen(redis, 1)
        await waiting.look()
    async with gateway(settings):
        await listen(redis, 1)
        began = loop.time()
        await waiting.wait_for_others(began, await waiting._listening())
    assert loop.time() - began >= rejoining.REJOIN_SECONDS


async def test_a_worker_that_may_not_say_its_name_hears_recoveries_all_the_same(
    settings: Settings, redis: Redis
) -> None:
    channels = [keys.CHANGED, keys.RECOVER]
    await redis.acl_setuser(
        "unnamed", enabled=True, passwords="+secret", keys="*", commands=["+@all"], channels=channels
    )
    try:
        async with gateway(settings, "unnamed:secret@"):
            await listen(redis, 1)
    finally:
        await redis.acl_deluser("unnamed")


def test_a_worker_leaves_a_server_that_was_replaced_sooner_than_a_recovery_goes_on_without_its_answer() -> None:
    """Also where that server hangs, and the worker hears nothing: what it says late is believed no more."""
    in_a_cluster = topology_watch.LOOK_SECONDS + links.RETIRED_SECONDS
    assert max(in_a_cluster, redis_sentinel.LOOK_SECONDS) < rejoining.REJOIN_SECONDS

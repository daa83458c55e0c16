"""Connections of redis-py are closed in one step: behind TLS the other side answers the end when it comes to it, or
never, and nobody waits for that, or finds half a connection."""

import asyncio
import random
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from common import redis_connections
from common.redis_closing import close_all
from control.ledger.nodes import forget_idle
from devstack.child import Child
from devstack.ports import LOOPBACK
from tests import secured
from tests.authority import Authority
from tests.secured import Door

pytestmark = secured.NEEDED
USERS, COMMANDS, AT_ONCE_SECONDS = 4, 1000, 2.0


@pytest.fixture(scope="module")
def door(authority: Authority) -> Door:
    return Door("gate", "word", authority.issue("127.0.0.1"), authority.ca_file)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, door: Door) -> Iterator[tuple[Child, int]]:
    with secured.single(tmp_path_factory.mktemp("server") / "redis", door) as started:
        yield started


@pytest.fixture(scope="module")
def url(server: tuple[Child, int], authority: Authority) -> str:
    given = secured.options(ssl_ca_certs=authority.ca_file, ssl_certfile=authority.issue("gateway.internal"))
    return f"rediss://gate:word@{LOOPBACK}:{server[1]}/0?{given}"


async def _ticks() -> None:
    for _ in range(random.randrange(6)):
        await asyncio.sleep(0)


async def _used_while_closed(url: str) -> None:
    async def use(redis: Redis) -> None:
        for _ in range(COMMANDS):
            with suppress(RedisError):  # it may be closed under the command
                await redis.ping()
            await _ticks()

    async def close(redis: Redis) -> None:
        while True:
            await forget_idle(redis)
            await _ticks()

    async with redis_connections.client(url, socket_timeout=10) as redis:
        closing = asyncio.create_task(close(redis))
        try:
            await asyncio.gather(*(use(redis) for _ in range(USERS)))
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)


def test_who_takes_a_connection_that_is_being_closed_finds_it_open_or_closed_and_never_half_of_one(url: str) -> None:
    uvloop.run(_used_while_closed(url))  # with asyncio's own loop it showed less often


async def test_nobody_waits_for_a_server_that_hangs_to_end_a_connection(server: tuple[Child, int], url: str) -> None:
    process = server[0].process
    async with redis_connections.client(url) as redis:
        await asyncio.gather(*(redis.ping() for _ in range(USERS)))
        process.send_signal(signal.SIGSTOP)
        try:
            waiting = asyncio.ensure_future(redis.ping())
            await asyncio.sleep(0)
            async with asyncio.timeout(AT_ONCE_SECONDS):
                await forget_idle(redis)
                await close_all(redis.connection_pool)
        finally:
            process.send_signal(signal.SIGCONT)
        with suppress(RedisError):
            await waiting
        assert await redis.ping()

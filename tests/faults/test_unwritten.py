"""PostgreSQL was away for longer than gateways used to remember, and then Redis is flushed: nothing is given away."""

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from redis.asyncio import Redis

from devstack import token_mint
from devstack.ports import free_port
from gateway.settings.intervals import DEFAULT_INTERVALS
from tests.control.plane import JWT_SECRET
from tests.faults.address import Address
from tests.faults.running import Load, Stack, running, used, written
from tests.gateway.store import Store


@pytest.fixture(scope="module")
def database(postgres_dsn: str) -> Iterator[tuple[Address, int]]:
    port = int(postgres_dsn.rpartition(":")[2].partition("/")[0])
    address = Address(port)
    yield address, port
    address.close()


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, database: tuple[Address, int], sample_upstream: str
) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("unwritten")
    store = Store(directory / "valkey")
    store.directory.mkdir()
    store.start()
    address, port = database
    dsn = postgres_dsn.replace(f":{port}/", f":{address.port}/")
    try:
        with running(directory, store, store.url, dsn, sample_upstream) as stack:
            yield stack
    finally:
        store.end()


def admitted(stack: Stack, org: str, times: int) -> None:
    token = token_mint.mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
    with httpx.Client(base_url=stack.gateway, headers={"authorization": f"Bearer {token}"}) as client:
        for _ in range(times):
            assert client.get("/status/200").status_code == 200


async def test_a_flush_after_postgres_was_away_for_longer_than_receipts_were_kept_gives_no_unit_away(
    stack: Stack, database: tuple[Address, int]
) -> None:
    org, (address, port) = stack.entitle(600), database
    admitted(stack, org, 50)
    address.lead(free_port())
    since = time.monotonic()
    admitted(stack, org, 150)
    while True:
        admitted(stack, org, 1)
        if time.monotonic() > since + DEFAULT_INTERVALS.receipts_seconds + 2:
            break
        await asyncio.sleep(0.1)  # time itself: receipts are kept for so long, and no longer
    async with Redis.from_url(stack.store.url) as redis:
        before = await used(redis, org)
        assert before > 200, "the gateway went on while PostgreSQL was away"
        await redis.flushall()
        address.lead(port)
        load = Load(stack, org)

        async def nothing() -> None:
            pass

        await load.run(1, nothing)
        assert before + load.answers[200] == 600
        assert await used(redis, org) == 600
    assert await written(stack, org, 600) == 600

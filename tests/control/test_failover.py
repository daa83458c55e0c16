"""The promise: a control plane whose Redis failed over behind one address goes on with the new primary, though the old
one keeps its connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from common import redis_connections
from control.app import opened
from control.http.context import Context
from control.ledger.vouched import vouch
from control.settings.control_plane import Settings
from devstack import postgres
from quota import generation, keys
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import Admitted, Entitlement, MeterLimit, OveragePolicy, Report, Status
from quota.periods import Period
from tests import charging
from tests.control.usage import write_all
from tests.gateway.address import Address, leading_to
from tests.gateway.store import Store, follow, running_store

ORG = "acme"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    with running_store(tmp_path / "old") as old, running_store(tmp_path / "new") as new:
        yield old, new


@pytest.fixture
async def address(stores: tuple[Store, Store]) -> AsyncIterator[Address]:
    old, new = stores
    async with Redis.from_url(old.url) as redis, leading_to(old.port) as made:
        await follow(new, old, redis)
        yield made


async def fail_over(stores: tuple[Store, Store], address: Address, *, at_once: bool = True) -> None:
    old, new = stores
    async with Redis.from_url(old.url) as before, Redis.from_url(new.url) as after:
        await after.replicaof("NO", "ONE")
        await before.replicaof("127.0.0.1", new.port)
    if at_once:
        address.target = new.port


@asynccontextmanager
async def pair_of(stores: tuple[Store, Store]) -> AsyncIterator[tuple[Any, Any]]:
    old, new = stores
    async with Redis.from_url(old.url) as before, Redis.from_url(new.url) as after:
        yield before, after


async def believed(server: str, generations: Mapping[int, str | None]) -> Collection[int]:
    """Nobody has vouched for another."""
    return [shard for shard, generation in generations.items() if generation is None]


def entitlement(version: int) -> Entitlement:
    now = int(time.time())
    return Entitlement(
        ORG,
        version,
        Status.ACTIVE,
        OveragePolicy.HARD_STOP,
        periods=(Period(now - 1000, now + 100_000),),
        meters=(MeterLimit("api_calls", 100),),
    )


async def test_a_command_that_a_demoted_primary_refuses_is_given_to_the_new_one(
    stores: tuple[Store, Store], address: Address
) -> None:
    async with redis_connections.client(address.url) as redis:
        ledger = Ledger(redis)
        assert await ledger.publish(entitlement(1))
        await fail_over(stores, address)
        assert await ledger.publish(entitlement(2))
        await ledger.check_layout()
    async with Redis.from_url(stores[1].url) as new:
        assert await Ledger(new).peek(ORG) is not None


async def test_usage_that_a_demoted_primary_refuses_is_charged_when_it_is_reported_again(
    stores: tuple[Store, Store], address: Address
) -> None:
    """A script tells each report's error in its place."""
    async with redis_connections.client(address.url) as redis:
        vouch(redis, keys.SHARDS_DEFAULT, believed)
        ledger = Ledger(redis)
        await ledger.publish(entitlement(1))
        report = [Report("r1", "api_calls", 3, "k1"), Report("r2", "api_calls", 4, "k2")]
        await fail_over(stores, address)
        for decision in await ledger.report(ORG, report):
            assert isinstance(decision, LedgerUnavailable)
        await ledger.report(ORG, report)
        standing = await ledger.peek(ORG)
    assert standing is not None
    assert sum(counter.used for counter in standing.usage) == 7


async def test_a_read_that_waits_goes_on_at_the_new_primary(stores: tuple[Store, Store], address: Address) -> None:
    async with redis_connections.client(address.url, BlockingConnectionPool, socket_timeout=5) as redis:
        waiting = asyncio.ensure_future(redis.blpop(["list"], timeout=0))
        await fail_over(stores, address)
        async with asyncio.timeout(60), Redis.from_url(stores[1].url) as new:
            await new.rpush("list", "x")
            while True:
                try:
                    assert list(await waiting or ()) == [b"list", b"x"]
                    break
                except RedisError:  # it was told that its server is no primary any more
                    waiting = asyncio.ensure_future(redis.blpop(["list"], timeout=0))


async def test_a_replica_is_not_connected_to_until_the_address_leads_to_a_primary(
    stores: tuple[Store, Store], address: Address
) -> None:
    async with redis_connections.client(address.url) as redis:
        ledger = Ledger(redis)
        assert await ledger.publish(entitlement(1))
        await fail_over(stores, address, at_once=False)
        for _ in range(3):
            with pytest.raises(LedgerUnavailable, match="replica"):
                await ledger.publish(entitlement(2))
        address.target = stores[1].port
        assert await ledger.publish(entitlement(3))


async def test_what_gateways_tell_a_new_primary_waits_until_it_is_recovered(
    stores: tuple[Store, Store], address: Address, settings: Settings, context: Context, postgres_dsn: str
) -> None:
    """The old primary took requests for a moment beside it. They may be on their way into Postgres still, so that who
    puts them back at once counts them twice."""
    late = "SELECT count(*) FROM audit_journal WHERE action = 'usage.put_back_late'"
    before, org = postgres.execute(postgres_dsn, late), f"org-{uuid4().hex[:12]}"
    behind = settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": SecretStr(address.url)})})
    async with opened(behind) as control, pair_of(stores) as (old, new):
        await control.recovery.round()
        epoch = control.recovery.epoch
        assert await control.ledger.publish(replace(entitlement(1), org=org))
        assert int(await old.wait(1, 30_000)) == 1
        await new.replicaof("NO", "ONE")
        for request_id in ("r1", "r2", "r3"):
            assert isinstance(await charging.take(control.ledger, org, request_id, {"api_calls": 1}), Admitted)
        entries = await old.xrange(keys.events_key(keys.shard_of(org, keys.SHARDS_DEFAULT)))
        await old.replicaof("127.0.0.1", stores[1].port)
        address.target = stores[1].port
        await new.rpush(keys.RECEIPTS, b"\n".join(receipt for _, fields in entries for receipt in fields.values()))

        assert (await new.mget(keys.generation_key(0)))[0] is not None, "the old one's, which the new one has, too"
        await control.recovery.round()
        assert postgres.execute(postgres_dsn, late) == before
        async with asyncio.timeout(60):
            while (held := await control.ledger.generation(0)) is None or generation.epoch_of(held) == epoch:
                await control.recovery.round()
        standing = await control.ledger.peek(org)
        assert standing is not None
        assert sum(counter.used for counter in standing.usage) == 3
        await write_all(control)
        async with control.db.connection() as connection:
            rows = await connection.fetch("SELECT request_id FROM usage_event WHERE org = $1", org)
        assert sorted(row["request_id"] for row in rows) == ["r1", "r2", "r3"]
    await context.recovery.round()

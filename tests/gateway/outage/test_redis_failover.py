"""A failover behind one address: the gateway dials again, though its connections to the demoted primary stay."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from quota import keys
from tests.gateway.address import Address, leading_to
from tests.gateway.epochs import vouch
from tests.gateway.outage.readiness import PATIENCE_SECONDS, TIMES, ready, until_ready, until_served
from tests.gateway.rig import Organization, StartGateway, Until, Upstream
from tests.gateway.store import Store, follow, running_store
from tests.replies import as_bytes


@pytest.fixture
def replica(running: Redis, tmp_path: Path) -> Iterator[Store]:
    with running_store(tmp_path / "replica") as made:
        yield made


@pytest.fixture
async def address(running: Redis, store: Store) -> AsyncIterator[Address]:
    async with leading_to(store.port) as made:
        yield made


async def fail_over(store: Store, replica: Store, address: Address) -> None:
    """The two change their roles, and the address leads to the new primary. All connections stay."""
    async with Redis.from_url(replica.url) as new, Redis.from_url(store.url) as old:
        generations = [key async for key in new.scan_iter(match="qg:*:generation")]
        await new.replicaof("NO", "ONE")
        if generations:
            await new.delete(*generations)
        await old.replicaof("127.0.0.1", replica.port)
    address.target = replica.port


async def test_a_redis_that_failed_over_behind_one_address_is_dialed_again_though_its_connections_stay(
    start: StartGateway,
    acme: Organization,
    store: Store,
    replica: Store,
    running: Redis,
    address: Address,
    upstream: Upstream,
) -> None:
    await acme.publish(1000)
    await follow(replica, store, running)
    gateway = await start(redis={"url": address.url, **TIMES})
    assert (await gateway.get("/", acme)).status == 200
    await fail_over(store, replica, address)
    await until_served(gateway, acme)
    await until_ready(gateway)
    for _ in range(10):
        assert (await gateway.get("/", acme)).status == 200
    async with Redis.from_url(replica.url) as redis:
        acme._redis = acme.ledger.redis = redis
        assert await acme.used() == len(upstream.requests)


async def test_a_take_that_a_demoted_primary_refused_is_taken_by_the_new_one_within_its_budget(
    start: StartGateway,
    acme: Organization,
    store: Store,
    replica: Store,
    running: Redis,
    address: Address,
    upstream: Upstream,
) -> None:
    await acme.publish(1000)
    await follow(replica, store, running)
    gateway = await start(redis={"url": address.url, "budget_ms": 60_000})
    assert (await gateway.get("/", acme)).status == 200
    await fail_over(store, replica, address)
    answers = await asyncio.gather(*(gateway.get("/", acme) for _ in range(20)))
    assert [answer.status for answer in answers] == 20 * [200]
    async with Redis.from_url(replica.url) as redis:
        acme._redis = acme.ledger.redis = redis
        assert await acme.used() == len(upstream.requests) == 21
        assert not gateway.worker.settlements.open


async def test_what_a_demoted_primary_refuses_is_decided_at_once_by_its_route(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    address: Address,
    upstream: Upstream,
    tmp_path: Path,
    until: Until,
) -> None:
    """The address still leads to it: nobody is promoted for a while."""
    await acme.publish(1000)
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/on", "upstream": "api", "degraded": "allow"},
    ]
    gateway = await start(
        redis={"url": address.url, **TIMES}, routes=routes, degraded={"journal": tmp_path / "journal"}
    )
    assert (await gateway.get("/on", acme)).status == 200
    await running.execute_command("REPLICAOF", "127.0.0.1", "1")
    answers = await asyncio.gather(*(gateway.get("/on", acme) for _ in range(10)))
    assert [answer.status for answer in answers] == 10 * [200]
    answers = await asyncio.gather(*(gateway.get("/", acme) for _ in range(10)))
    assert [answer.status for answer in answers] == 10 * [503]
    assert await ready(gateway) == (503, ["redis is a replica"])
    assert not gateway.worker.settlements.open  # nothing is looked for: what was refused was not applied
    await until(lambda: address.accepted > 3)
    await running.execute_command("REPLICAOF", "NO", "ONE")
    await until_served(gateway, acme)
    await acme.comes_to(len(upstream.requests))
    assert len(upstream.requests) == 12


async def test_what_is_announced_after_a_failover_is_heard_from_the_new_primary(
    start: StartGateway, acme: Organization, store: Store, replica: Store, running: Redis, address: Address
) -> None:
    await acme.publish(1)
    await follow(replica, store, running)
    gateway = await start(redis={"url": address.url, **TIMES})
    assert (await gateway.get("/", acme)).status == 200
    assert (await gateway.get("/", acme)).status == 429
    await fail_over(store, replica, address)
    await running.execute_command("REPLICAOF", "127.0.0.1", "1")  # what the new one announces does not come by it
    async with Redis.from_url(replica.url) as redis, asyncio.timeout(PATIENCE_SECONDS):
        await redis.config_set("maxmemory", 1)  # so that the gateway finds it, and still has it to find
        await redis.config_set("maxmemory", 0)
        while (await redis.pubsub_numsub("qg:changed"))[0][1] == 0:
            await gateway.get("/other", acme)
            await gateway.get("/-/ready")
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("durability", ["aof", "replica"])
async def test_a_demoted_primary_that_was_to_confirm_is_dialed_again_too(
    start: StartGateway,
    acme: Organization,
    store: Store,
    replica: Store,
    running: Redis,
    address: Address,
    upstream: Upstream,
    tmp_path: Path,
    durability: str,
) -> None:
    other = Store(tmp_path / "other")
    for each in (running, Redis.from_url(replica.url)):
        await each.config_set("appendfsync", "always")
    await acme.publish(1000)
    await follow(replica, store, running)
    other.start()
    try:
        async with Redis.from_url(replica.url) as new:
            await follow(other, replica, new)
            gateway = await start(redis={"url": address.url, "durability": durability, "durability_ms": 1_000, **TIMES})
            gateway.expected_errors.add("redis does not keep the durability level")
            await until_served(gateway, acme)
            await fail_over(store, replica, address)
            await until_served(gateway, acme)
            acme._redis = acme.ledger.redis = new
            await acme.comes_to(len(upstream.requests))
    finally:
        other.end()


async def test_the_next_server_is_told_what_was_answered_at_the_one_before_also_where_it_is_vouched_for_already(
    start: StartGateway,
    acme: Organization,
    store: Store,
    replica: Store,
    running: Redis,
    address: Address,
) -> None:
    """A recovery that could not wait for this gateway is over. What only this one knows is put back late then."""
    await acme.publish(1000)
    await follow(replica, store, running)
    gateway = await start(redis={"url": address.url})
    assert (await gateway.get("/", acme)).status == 200
    async with Redis.from_url(replica.url, socket_timeout=2 * PATIENCE_SECONDS) as new:
        await new.replicaof("NO", "ONE")
        await vouch(new, 9)
        address.target = replica.port
        assert gateway.link.connection is not None
        gateway.link.connection.abort("the test ends it")
        report = await new.blpop([keys.RECEIPTS], timeout=PATIENCE_SECONDS)
    assert report is not None
    assert as_bytes(report[1]).startswith(b"t ")

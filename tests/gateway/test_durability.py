"""What the gateway does when Redis cannot keep the durability level: it forwards nothing, and keeps no charge."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.ledger.durability import Confirmed
from tests.gateway.address import leading_to
from tests.gateway.rig import (
    Client,
    Connect,
    Gateway,
    Organization,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
)
from tests.gateway.store import Store, follow, running_store

ALWAYS = {"appendfsync": "always"}


def held_replies(gateway: Gateway) -> int:
    """Takes that wait for what confirms them."""
    durability = gateway.link.durability
    assert isinstance(durability, Confirmed)
    return len(durability.held)


@pytest.fixture
async def running(store: Store, intervals: dict[str, Any]) -> AsyncIterator[Redis]:
    intervals["level_look_seconds"] = 0.02
    store.start(ALWAYS)
    async with Redis.from_url(store.url) as redis:
        yield redis


@pytest.fixture
def acme(running: Redis, acme: Organization) -> Organization:
    """acme in this test's own store."""
    acme._redis = acme.ledger.redis = running
    return acme


@pytest.fixture
def start(running: Redis, start: StartGateway) -> StartGateway:
    """Gateways end before the store does."""
    return start


@pytest.fixture
def replica(store: Store, running: Redis, tmp_path: Path) -> Iterator[Store]:
    """It follows the store from `follow` on."""
    with running_store(tmp_path / "replica") as replica:
        yield replica


async def refused(gateway: Gateway, organization: Organization) -> None:
    answer = await gateway.get("/", organization)
    assert (answer.status, answer["retry-after"]) == (503, "1")
    assert answer.problem["type"] == "urn:quotagate:problem:ledger-unavailable"


async def served(gateway: Gateway, organization: Organization) -> None:
    """The gateway serves again, after a time in which it may still refuse."""
    async with asyncio.timeout(60):
        while (await gateway.get("/", organization)).status != 200:  # noqa: ASYNC110 - it asks on its own
            await asyncio.sleep(0.01)


async def test_with_a_replica_that_hangs_nothing_is_forwarded_and_nothing_stays_charged_and_then_it_serves_again(
    start: StartGateway, acme: Organization, store: Store, running: Redis, replica: Store, upstream: Upstream
) -> None:
    await acme.publish(100)
    await follow(replica, store, running)
    # Long enough for a slow machine, and waited for twice.
    gateway = await start(redis={"url": store.url, "durability": "replica", "durability_ms": 2_000})
    gateway.expected_errors.add("redis does not keep the durability level")
    assert (await gateway.get("/", acme)).status == 200
    with replica.hanging():
        await asyncio.gather(*(refused(gateway, acme) for _ in range(10)))
        await refused(gateway, acme)
        assert len(upstream.requests) == 1
        await acme.comes_to(1)  # while the replica is still away
        ready = await gateway.get("/-/ready")
        assert ready.status == 503
        assert "redis does not keep the durability level" in json.loads(ready.body)["faults"]
    await served(gateway, acme)
    await acme.comes_to(len(upstream.requests))
    assert not gateway.worker.settlements.open


@pytest.mark.usefixtures("unopened")
async def test_with_too_few_replicas_the_gateway_does_not_open_and_says_how_many_there_are(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    replica: Store,
    upstream: Upstream,
    until: Until,
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url, "durability": "replica", "durability_ms": 1_000})
    await refused(gateway, acme)
    await until(lambda: "0 of 1 replicas" in gateway.link.down_reason)
    assert not gateway.link.open
    await follow(replica, store, running)
    await served(gateway, acme)
    await acme.comes_to(1)
    assert len(upstream.requests) == 1


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("appendonly", "no", "appendonly is disabled"),
        ("appendfsync", "everysec", "appendfsync is everysec, and must be always"),
        ("appendfsync", "no", "appendfsync is no, and must be always"),
    ],
)
async def test_a_redis_whose_settings_cannot_keep_aof_is_not_opened_and_the_reason_is_told(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    upstream: Upstream,
    until: Until,
    setting: str,
    value: str,
    reason: str,
) -> None:
    await acme.publish(100)
    await running.config_set(setting, value)
    gateway = await start(redis={"url": store.url, "durability": "aof", "durability_ms": 30_000})
    await refused(gateway, acme)
    await until(lambda: reason in gateway.link.down_reason)
    assert [entry for entry in gateway.logs if reason in entry.get("reason", "")]
    await running.config_set(setting, {"appendonly": "yes", "appendfsync": "always"}[setting])
    await served(gateway, acme)
    await acme.comes_to(1)
    assert len(upstream.requests) == 1


async def test_an_append_only_file_that_is_switched_off_under_load_lets_nothing_through_and_keeps_no_charge(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url, "durability": "aof", "durability_ms": 30_000})
    gateway.expected_errors.add("redis does not keep the durability level")
    assert (await gateway.get("/", acme)).status == 200
    await running.config_set("appendonly", "no")
    await asyncio.gather(*(refused(gateway, acme) for _ in range(10)))
    assert len(upstream.requests) == 1
    await acme.comes_to(1)
    await running.config_set("appendonly", "yes")
    await served(gateway, acme)
    await acme.comes_to(len(upstream.requests))


async def test_a_redis_that_dies_before_it_confirms_has_nothing_forwarded(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    replica: Store,
    upstream: Upstream,
    until: Until,
) -> None:
    await acme.publish(100)
    await follow(replica, store, running)
    gateway = await start(redis={"url": store.url, "durability": "replica", "durability_ms": 30_000})
    with replica.hanging():
        client = await gateway.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth)
        await until(lambda: held_replies(gateway))  # it is charged, and its answer is here
        store.send(signal.SIGKILL)
        assert (await client.answer()).status == 503
    assert not upstream.requests
    store.end()
    store.start(ALWAYS)
    await running.connection_pool.disconnect()
    await follow(replica, store, running)
    await served(gateway, acme)
    await acme.comes_to(len(upstream.requests))


@pytest.mark.parametrize("level", ["aof", "replica"])
async def test_scripts_that_are_flushed_under_load_fail_no_request_of_a_durable_level(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    replica: Store,
    upstream: Upstream,
    level: str,
) -> None:
    await acme.publish(100_000)
    await follow(replica, store, running)
    changes = {"durability": level, "durability_ms": 30_000}
    gateway = await start(redis={"url": store.url, **changes})
    clients = [await gateway.connect() for _ in range(10)]

    async def load(client: Client) -> set[int]:
        get = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth
        return {(await client.ask(get)).status for _ in range(20)}

    loads = asyncio.gather(*(load(client) for client in clients))
    while not loads.done():
        await running.script_flush()
    assert await loads == 10 * [{200}]
    assert await acme.used() == len(upstream.requests) == 200


async def test_requests_that_come_while_a_batch_is_confirmed_are_confirmed_together(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    replica: Store,
    upstream: Upstream,
    until: Until,
) -> None:
    await acme.publish(100)
    await follow(replica, store, running)
    changes = {"durability": "replica", "durability_ms": 30_000}
    gateway = await start(redis={"url": store.url, **changes})
    await running.config_resetstat()
    get = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth
    clients = [await gateway.connect() for _ in range(10)]
    with replica.hanging():
        clients[0].send(get)
        await until(lambda: held_replies(gateway))
        for client in clients[1:]:
            client.send(get)
        await until(lambda: len(gateway.link._batch) == 9)
        assert not upstream.requests
    assert [(await client.answer()).status for client in clients] == 10 * [200]
    calls = await running.info("commandstats")
    assert (calls["cmdstat_evalsha"]["calls"], calls["cmdstat_wait"]["calls"]) == (2, 2)


async def test_requests_that_wait_for_a_batch_before_them_are_refused_at_once_when_redis_is_slow(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    replica: Store,
    upstream: Upstream,
    until: Until,
) -> None:
    await acme.publish(100)
    await follow(replica, store, running)
    changes = {"durability": "replica", "budget_ms": 500, "durability_ms": 30_000}
    gateway = await start(redis={"url": store.url, **changes})
    get = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth
    first, second = await gateway.connect(), await gateway.connect()
    with replica.hanging():
        first.send(get)
        await until(lambda: held_replies(gateway))
        assert (await second.ask(get)).status == 503
    assert (await first.answer()).status == 200
    assert await acme.used() == len(upstream.requests) == 1


async def test_a_gateway_that_is_killed_between_take_and_forward_has_charged_and_not_forwarded(
    run: StartProcess, connect: Connect, acme: Organization, store: Store, upstream: Upstream, until: Until
) -> None:
    await acme.publish(100)
    async with leading_to(store.port) as address:
        process = await run(redis={"url": address.url})
        get = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth
        client = await connect(process.port)
        assert (await client.ask(get)).status == 200  # the script is loaded, and the connections are there
        with store.hanging():
            before = address.sent.count(b"acme")
            client.send(get)
            await until(lambda: address.sent.count(b"acme") > before)  # the take lies in Redis' socket
            for each in process.workers():
                each.kill()
            assert await client.gone() == b""
        await acme.comes_to(2)
        assert len(upstream.requests) == 1

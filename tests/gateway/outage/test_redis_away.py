"""Redis is away, hangs, forgets or refuses: a decision within 250 ms, and nothing is forwarded that was not charged."""

import asyncio
import json
import signal
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.ledger.link import Link
from gateway.redis.connection import Connection, ReplyTimes
from tests.gateway.outage.decisions import refused, refuses, served
from tests.gateway.rig import Client, MakeOrganization, Organization, Peer, StartGateway, Upstream, get
from tests.gateway.store import Store


@pytest.mark.usefixtures("unopened")
async def test_a_gateway_starts_without_redis_refuses_at_once_and_serves_when_it_is_there(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream
) -> None:
    await acme.publish(100)
    store.end()
    routes = [{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}]
    gateway = await start(redis={"url": store.url}, routes=routes)
    await refused(gateway, acme)
    assert not upstream.requests
    ready = await gateway.get("/-/ready")
    assert (ready.status, json.loads(ready.body)["status"]) == (503, "unready")
    assert "redis" in json.loads(ready.body)["faults"][0]
    assert (await gateway.get("/-/health")).status == 200
    assert (await gateway.get("/free")).status == 200
    store.start()
    await served(gateway, acme)
    assert (await gateway.get("/-/ready")).status == 200


async def test_a_redis_that_dies_is_noticed_at_once_and_one_that_comes_back_is_used(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 200
    store.send(signal.SIGKILL)
    for _ in range(3):
        await refused(gateway, acme)
    assert len(upstream.requests) == 1
    store.end()
    store.start()
    await running.connection_pool.disconnect()
    await served(gateway, acme)
    assert await acme.used() == len(upstream.requests) == 2


async def test_a_redis_that_hangs_is_given_up_in_time_and_what_it_charged_all_the_same_is_given_back(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 200
    with store.hanging(), gateway.hurried():
        await asyncio.gather(*(refused(gateway, acme) for _ in range(10)))
        await refused(gateway, acme)
        assert len(upstream.requests) == 1
    await served(gateway, acme)
    assert len(upstream.requests) == 2
    await acme.comes_to(2)


async def test_a_redis_that_was_restarted_loses_none_of_its_other_clients(
    start: StartGateway, acme: Organization, store: Store, running: Redis
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    await served(gateway, acme)
    store.end()
    store.start()
    clients = [Redis.from_url(store.url, single_connection_client=True, retry=None) for _ in range(30)]
    ids = [await client.client_id() for client in clients]
    await served(gateway, acme)
    assert [await client.client_id() for client in clients] == ids
    for client in clients:
        await client.aclose()
    await running.connection_pool.disconnect()


async def test_scripts_that_are_flushed_under_load_fail_no_request(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, redis_url: str
) -> None:
    gateway, acme = await start(), await organization("acme", 100_000)
    clients = [await gateway.connect() for _ in range(20)]

    async def load(client: Client) -> set[int]:
        return {(await client.ask(get("/", acme))).status for _ in range(30)}

    async with Redis.from_url(redis_url) as redis:
        loads = asyncio.gather(*(load(client) for client in clients))
        flushes = 0
        while not loads.done():
            await redis.script_flush()
            flushes += 1
        assert await loads == 20 * [{200}]
        assert flushes > 5
    assert await acme.used() == len(upstream.requests) == 600


REFUSALS = {
    "OOM": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "READONLY": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "NOPERM": (("ACL", "SETUSER", "default", "-evalsha"), ("ACL", "SETUSER", "default", "+evalsha")),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_redis_that_refuses_to_write_forwards_nothing(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream, kind: str
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 200
    gateway.expected_errors.add("take failed")
    fault, cure = REFUSALS[kind]
    await running.execute_command(*fault)
    with gateway.hurried():  # its budget is also the time for finding another Redis
        await refused(gateway, acme)
    assert len(upstream.requests) == 1
    await running.execute_command(*cure)
    await served(gateway, acme)
    await acme.comes_to(2)
    assert len(upstream.requests) == 2


async def test_a_redis_that_is_busy_with_a_script_forwards_nothing(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream
) -> None:
    await acme.publish(100)
    await running.config_set("busy-reply-threshold", 20)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 200
    async with Redis.from_url(store.url) as other:
        busy = asyncio.ensure_future(other.eval("while true do end", 0))
        while await refuses(running) != "BUSY":
            pass
        for _ in range(5):
            await refused(gateway, acme)
        await running.script_kill()
        with pytest.raises(Exception, match="killed"):
            await busy
    await served(gateway, acme)
    await acme.comes_to(len(upstream.requests))


async def test_a_redis_that_was_restarted_is_used_when_it_has_loaded_its_data_and_nothing_is_forwarded_before(
    start: StartGateway,
    acme: Organization,
    store: Store,
    running: Redis,
    upstream: Upstream,
    intervals: dict[str, Any],
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 200
    async with store.loading_after_a_restart():
        intervals["start_seconds"] = 0.1
        for _ in range(3):
            await refused(gateway, acme)
        newcomer = await start(redis={"url": store.url})
        await refused(newcomer, acme)
        for each in (gateway, newcomer):
            assert (await each.get("/-/ready")).status == 503
        assert len(upstream.requests) == 1
    await running.connection_pool.disconnect()
    await served(gateway, acme)
    await served(newcomer, acme)
    assert await acme.used() == len(upstream.requests) == 3


async def test_a_redis_that_loads_its_data_on_open_connections_forwards_nothing_and_corrects_charges_afterwards(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream
) -> None:
    held: list[Any] = []

    async def hold(peer: Peer, _: bytes) -> None:
        held.append(peer)
        await asyncio.sleep(3600)

    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    upstream.script = hold
    client = await gateway.connect()
    client.send(get("/", acme))
    await acme.settled("t")
    async with store.loading():
        for _ in range(5):
            await refused(gateway, acme)
        held[0].writer.transport.abort()
        assert (await client.answer()).status == 502
        assert gateway.worker.settlements.open == 1
        assert len(upstream.requests) == 1
        assert gateway.worker.link.open
        assert [entry for entry in gateway.logs if entry.get("reason", "").startswith("LOADING")]
    assert await acme.settled("ts")
    upstream.script = upstream._play
    await served(gateway, acme)
    assert await acme.used() == 1


@pytest.mark.usefixtures("unopened")
async def test_a_redis_with_another_number_of_shards_is_not_used(
    start: StartGateway, acme: Organization, store: Store, running: Redis, upstream: Upstream
) -> None:
    await running.set("qg:shards", 16)
    gateway = await start(redis={"url": store.url})
    await refused(gateway, acme)
    assert (await gateway.get("/-/ready")).status == 503
    assert [entry for entry in gateway.logs if "installed with 16" in entry.get("reason", "")]


@pytest.mark.parametrize("turns", range(5))
async def test_a_link_that_is_closed_just_as_it_connects_is_closed(redis_url: str, turns: int) -> None:
    link = Link(asyncio.get_running_loop(), redis_url, 32, ReplyTimes(1.0, 1.0))
    connection, connected = await link.connect(), asyncio.Event()

    class ConnectingLink:
        """The link, whose connection is there when the test says so."""

        def __getattr__(self, name: str) -> Any:
            return getattr(link, name)

        async def connect(self) -> Connection:
            await connected.wait()
            return connection

    link._reconnection._link = ConnectingLink()
    link.start()
    await asyncio.sleep(0.01)
    connected.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await link.close()
    connection.abort("the test is over")

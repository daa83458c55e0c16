"""Redis is away, hangs, forgets or refuses: a decision within 250 ms, and nothing is forwarded that was not charged."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.ledger.link import Link
from gateway.process import worker
from quota.model import MeterLimit
from tests.gateway import tunnels
from tests.gateway.rig import Client, Gateway, MakeOrganization, Organization, Peer, StartGateway, Until, Upstream, get
from tests.gateway.store import Store

DECISION_SECONDS = 30.0  # a decision is made within 250 ms, or late on a busy machine; Redis hangs until the test ends


@pytest.fixture
async def running(store: Store) -> AsyncIterator[Redis]:
    store.start()
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


async def refused(gateway: Gateway, organization: Organization, data: bytes | None = None) -> None:
    """503 soon, whatever Redis does."""
    loop = asyncio.get_running_loop()
    client = await gateway.connect()
    began = loop.time()
    answer = await client.ask(data or request(organization.auth))
    assert loop.time() - began < DECISION_SECONDS
    assert (answer.status, answer["retry-after"]) == (503, "1")
    assert answer.problem["type"] == "urn:quotagate:problem:ledger-unavailable"


async def served(gateway: Gateway, organization: Organization) -> None:
    """The gateway serves again, after a time in which it may still refuse."""
    async with asyncio.timeout(60):
        while (await gateway.get("/", organization)).status != 200:  # noqa: ASYNC110 - it reconnects on its own
            await asyncio.sleep(0.01)


async def refuses(redis: Redis) -> str:
    try:
        await redis.ping()
    except ResponseError as e:
        return str(e).split(" ", 1)[0]
    return ""


def request(auth: bytes = b"", path: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (path, auth)


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


async def test_a_correction_waits_for_a_redis_that_hangs(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        store.send(signal.SIGSTOP)

    upstream.serve = serve
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 502
    assert gateway.worker.settlements.open == 1
    store.send(signal.SIGCONT)
    assert await acme.settled("ts")
    assert await acme.used() == 0


@pytest.mark.parametrize(("status", "used", "refunds"), [(b"200 OK", 30, []), (b"500 No", 0, [1])])
async def test_a_settlement_whose_reply_is_lost_is_sent_again_and_counts_once(
    start: StartGateway,
    acme: Organization,
    store: Store,
    upstream: Upstream,
    until: Until,
    status: bytes,
    used: int,
    refunds: list[int],
) -> None:
    """What the upstream reported, and a refund that is counted to a cap."""

    async def answers(peer: Peer, _: bytes) -> None:
        store.send(signal.SIGSTOP)
        peer.send(b"HTTP/1.1 %b\r\nX-Units: 30\r\nContent-Length: 2\r\n\r\nok" % status)

    upstream.script = answers
    await acme.publish(100)
    cost = {"reported": {"header": "X-Units"}, "estimate": 10, "max": 200}
    refund = {"on": ["server_error"], "cap_per_period": 5}
    rule = {"path": "/", "upstream": "api", "meters": {"api_calls": cost}, "refund": refund}
    gateway = await start(redis={"url": store.url}, routes=[rule])
    assert (await gateway.get("/", acme)).status in (200, 500)
    assert gateway.worker.settlements.open == 1
    with gateway.hurried():
        await until(lambda: not gateway.worker.link.open)  # given up, but the script runs when Redis goes on
    store.send(signal.SIGCONT)
    await until(lambda: not gateway.worker.settlements.open)
    assert await acme.events() == ["t", "s"]
    assert await acme.used() == used
    assert list((await acme.standing()).refunds.values()) == refunds


async def test_a_correction_that_stays_open_at_the_end_is_logged(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SETTLE_SECONDS", 0.1)

    async def answers(peer: Peer, _: bytes) -> None:
        store.send(signal.SIGKILL)
        peer.send(b"HTTP/1.1 200 OK\r\nX-Units: 30\r\nContent-Length: 2\r\n\r\nok")

    upstream.script = answers
    await acme.publish(100)
    cost = {"reported": {"header": "X-Units"}, "estimate": 10, "max": 200}
    gateway = await start(
        redis={"url": store.url}, routes=[{"path": "/", "upstream": "api", "meters": {"api_calls": cost}}]
    )
    gateway.expected_errors.add("charge not corrected")
    assert (await gateway.get("/", acme)).status == 200
    await gateway.worker.settlements.drain(0.1)
    [entry] = [entry for entry in gateway.logs if entry["event"] == "charge not corrected"]
    assert entry["used"] == {"api_calls": 30}


async def test_scripts_that_are_flushed_under_load_fail_no_request(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, redis_url: str
) -> None:
    gateway, acme = await start(), await organization("acme", 100_000)
    clients = [await gateway.connect() for _ in range(20)]

    async def load(client: Client) -> set[int]:
        return {(await client.ask(request(acme.auth))).status for _ in range(30)}

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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    assert (await gateway.get("/", acme)).status == 200
    async with store.loading_after_a_restart():
        monkeypatch.setattr(worker, "START_SECONDS", 0.1)
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
        await asyncio.Event().wait()

    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    upstream.script = hold
    client = await gateway.connect()
    client.send(request(acme.auth))
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


async def test_a_request_with_a_key_whose_take_was_lost_is_charged_once_when_it_is_repeated(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    key = request(acme.auth + b"Idempotency-Key: k\r\n")
    with store.hanging(), gateway.hurried():
        await refused(gateway, acme, key)
    await served(gateway, acme)
    await acme.comes_to(1)  # what `served` asked for
    for _ in range(3):
        assert (await gateway.ask(key)).status == 200
    assert await acme.used() == 2


async def test_a_repetition_whose_take_was_lost_does_not_keep_the_charge_of_a_request_that_failed(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream, until: Until
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    key = request(acme.auth + b"Idempotency-Key: k\r\n")
    peers = []

    async def hold(peer: Peer, _: bytes) -> None:
        peers.append(peer)

    upstream.script = hold
    client = await gateway.connect()
    client.send(key)
    await until(lambda: peers)
    with store.hanging(), gateway.hurried():
        await refused(gateway, acme, key)
    await until(lambda: gateway.worker.link.open)
    peers[0].writer.transport.abort()
    assert (await client.answer()).status == 502
    await acme.comes_to(0)
    await until(lambda: not gateway.worker.settlements.open)


async def test_a_tunnel_whose_take_was_lost_is_not_opened_and_its_charge_given_back(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url}, routes=tunnels.route())
    with store.hanging(), gateway.hurried():
        await refused(gateway, acme, get("/", acme, tunnels.ASKED))
    assert await acme.settled("ts")
    assert await acme.used() == 0
    assert not upstream.requests


async def test_a_message_whose_take_was_lost_is_not_passed_on_and_its_charge_given_back(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream
) -> None:
    await acme.publish(None, meters=(MeterLimit("api_calls", 100), MeterLimit("messages", 5)))
    gateway = await start(redis={"url": store.url}, routes=tunnels.route(tunnel=tunnels.MESSAGE))
    client, far, _ = await tunnels.opened(gateway, acme, upstream)
    client.send(tunnels.frame(b"paid"))
    assert await far.exactly(10) == tunnels.frame(b"paid")
    with store.hanging(), gateway.hurried():
        client.send(tunnels.frame(b"lost"))
        assert tunnels.closed_with(1013, await client.gone())
        assert (await far.gone())[:1] == b"\x88"
    assert await acme.settled("ttts")
    assert (await acme.used(), await acme.used("messages")) == (1, 1)


async def test_a_permit_whose_take_was_lost_is_free_when_redis_is_back(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream, until: Until
) -> None:
    await acme.publish(100, concurrent_max=1)
    gateway = await start(redis={"url": store.url})
    with store.hanging(), gateway.hurried():
        await refused(gateway, acme)
    await served(gateway, acme)


@pytest.mark.parametrize("turns", range(5))
async def test_a_link_that_is_closed_just_as_it_connects_is_closed(
    redis_url: str, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(asyncio.get_running_loop(), redis_url, 32, 1.0)
    wire, connected = await link._connect(), asyncio.Event()

    async def connect() -> Any:
        await connected.wait()
        return wire

    monkeypatch.setattr(link, "_connect", connect)
    link.start()
    await asyncio.sleep(0.01)
    connected.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await link.close()
    wire.abort("the test is over")

"""A take or a settlement whose reply is lost: what it charged is given back or counts once."""

import signal
from typing import Any

import pytest

from quota.model import MeterLimit
from tests.gateway import tunnels
from tests.gateway.outage.decisions import refused, served
from tests.gateway.rig import Organization, Peer, StartGateway, Until, Upstream, get
from tests.gateway.store import Store


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
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream, intervals: dict[str, Any]
) -> None:
    intervals["settle_seconds"] = 0.1

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


async def test_a_request_with_a_key_whose_take_was_lost_is_charged_once_when_it_is_repeated(
    start: StartGateway, acme: Organization, store: Store, upstream: Upstream
) -> None:
    await acme.publish(100)
    gateway = await start(redis={"url": store.url})
    key = get("/", acme, b"Idempotency-Key: k\r\n")
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
    key = get("/", acme, b"Idempotency-Key: k\r\n")
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
    assert (await gateway.get("/", acme)).status == 200  # the token is looked at
    with store.hanging(), gateway.hurried():
        await refused(gateway, acme, get("/", acme, tunnels.ASKED))
    assert await acme.settled("tts")
    assert await acme.used() == 1
    assert len(upstream.requests) == 1


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
    assert (await gateway.get("/", acme)).status == 200  # the token is looked at
    with store.hanging(), gateway.hurried():
        await refused(gateway, acme)
    await served(gateway, acme)

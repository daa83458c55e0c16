"""An upstream of several targets: who gets which request, and how long and how many may wait."""

import asyncio
from typing import Any

import pytest

from tests.gateway.rig import Gateway, Organization, Peer, StartGateway, StartPair, Until, Upstream, request


@pytest.fixture
def pair(start: StartGateway, upstream: Upstream, issuer: Upstream) -> StartPair:
    """Starts a gateway in front of two targets: `upstream`, and the one that others use as an issuer."""

    async def started(**settings: Any) -> Gateway:
        targets = [upstream.url, issuer.url]
        return await start(None, upstreams={"api": {"targets": targets, **settings}})

    return started


async def test_targets_take_turns(pair: StartPair, acme: Organization, upstream: Upstream, issuer: Upstream) -> None:
    gateway = await pair()
    client = await gateway.connect()
    for _ in range(6):
        assert (await client.ask(request(acme.auth))).status == 200
    assert (len(upstream.requests), len(issuer.requests)) == (3, 3)
    assert (upstream.accepted, issuer.accepted) == (1, 1), "each target's connection is used again"


async def test_the_target_with_the_fewest_requests_is_next(
    pair: StartPair, acme: Organization, upstream: Upstream, issuer: Upstream
) -> None:
    gateway = await pair(balance="least_connections")
    release = upstream.holds()
    client, held = await gateway.connect(), []
    while not upstream.requests:
        held.append(await gateway.connect())
        held[-1].send(request(acme.auth))
        await asyncio.sleep(0.01)
    for _ in range(5):
        assert (await client.ask(request(acme.auth))).status == 200
    assert len(upstream.requests) == 1, "it has one under way, the other has none"
    release.set()


async def test_a_target_without_room_leaves_its_request_to_another(
    pair: StartPair, acme: Organization, upstream: Upstream, issuer: Upstream, until: Until
) -> None:
    gateway = await pair(connections_max=1, queue_max=0)
    release = upstream.holds()
    clients = [await gateway.connect() for _ in range(2)]
    for client in clients:
        client.send(request(acme.auth))
    await until(lambda: len(upstream.requests) == 1 and len(issuer.requests) == 1)
    third = await gateway.connect()
    for _ in range(4):
        assert (await third.ask(request(acme.auth))).status == 200
    issuer.script = upstream.script
    third.send(request(acme.auth))
    await until(lambda: len(issuer.requests) == 6)
    answer = await gateway.get("/", acme)
    assert (answer.status, answer["retry-after"]) == (503, "1"), "both are full"
    release.set()
    assert await acme.settled("t" * 8 + "s")


async def test_a_request_that_waits_too_long_for_a_connection_is_told_so_and_given_back(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    gateway = await start(upstreams={"api": {"connections_max": 1, "queue_max": 1, "queue_timeout_seconds": 0.1}})
    release = upstream.holds()
    first, second = await gateway.connect(), await gateway.connect()
    first.send(request(acme.auth))
    await until(lambda: bool(upstream.requests))
    second.send(request(acme.auth))
    await until(lambda: bool(gateway.worker._pools["api"]._waiting))
    third = await gateway.get("/", acme)
    assert third.status == 503, "the queue is full"
    assert (await second.answer()).status == 503
    release.set()
    assert (await first.answer()).status == 200
    assert await acme.settled("tttss")


async def test_an_answer_that_has_not_begun_by_the_total_timeout_is_a_504(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"total_timeout_seconds": 0.5}})

    async def silent(peer: Peer, _: bytes) -> None:
        await peer.gone()

    upstream.script = silent
    assert (await gateway.get("/", acme)).status == 504
    assert await acme.events() == ["t"]


async def test_an_answer_that_dribbles_past_the_total_timeout_is_cut(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"total_timeout_seconds": 1, "idle_timeout_seconds": 10}})
    gone = asyncio.Event()

    async def dribble(peer: Peer, _: bytes) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while True:
                await peer.send_all(b"x")
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    upstream.script = dribble
    client = await gateway.connect()
    client.send(request(acme.auth))
    await client.until(b"\r\n\r\n")
    await client.gone()
    await asyncio.wait_for(gone.wait(), 60)


async def test_within_the_total_timeout_nothing_is_different(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"total_timeout_seconds": 30}})
    client = await gateway.connect()
    for _ in range(3):
        assert (await client.ask(request(acme.auth))).body == b"ok"
    assert upstream.accepted == 1

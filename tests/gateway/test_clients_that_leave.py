"""A client that leaves ends its exchange soon, and leaks nothing."""

import asyncio

import pytest

from tests.gateway.rig import (
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    Until,
    Upstream,
    request,
)


@pytest.mark.parametrize("moment", ["before the head", "within the body"])
async def test_a_client_that_leaves_ends_its_exchange_within_a_second(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until, moment: str
) -> None:
    gone = asyncio.Event()

    async def slowly(peer: Peer, _: bytes) -> None:
        if moment == "within the body":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
        await peer.gone()
        gone.set()

    upstream.script = slowly
    client = await gateway.connect()
    client.send(request(acme.auth))
    await until(lambda: bool(upstream.requests))
    if moment == "within the body":
        await client.until(b"part")
    await client.close()
    await asyncio.wait_for(gone.wait(), 60)
    pool = gateway.pool
    await until(lambda: pool._open == 0 and not gateway.connections)
    assert not pool._idle
    assert await acme.events() == ["t"], "the upstream was at work"


async def test_a_client_that_leaves_while_it_uploads_ends_its_exchange(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.until(b"hel")
        await peer.gone()
        gone.set()

    upstream.serve = serve
    client = await gateway.connect()
    client.send(request(acme.auth, b"POST", b"Content-Length: 5\r\n", b"hel"))
    await until(lambda: upstream.accepted == 1)
    await client.close()
    await asyncio.wait_for(gone.wait(), 60)
    await until(lambda: gateway.pool._open == 0)


async def test_a_client_that_leaves_before_its_request_was_sent_is_not_charged(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    gateway = await start(upstreams={"api": {"connections_max": 1}})
    release = upstream.holds()
    first, second = await gateway.connect(), await gateway.connect()
    first.send(request(acme.auth))
    await until(lambda: bool(upstream.requests))
    second.send(request(acme.auth))
    await until(lambda: bool(gateway.pool._waiting))
    await second.close()
    await until(lambda: len(gateway.connections) == 1)
    release.set()
    assert (await first.answer()).status == 200
    assert await acme.settled("tts")
    assert await acme.used() == 1
    assert len(upstream.requests) == 1


async def test_a_thousand_clients_that_leave_leak_no_connection(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, until: Until
) -> None:
    many = await organization("many", 10_000)
    clients = []
    for number in range(300):
        client = await gateway.connect()
        client.send(request(many.auth))
        clients.append(client)
        if number % 3 == 0:
            await client.close()
        elif number % 3 == 1:
            client.writer.transport.abort()
    for client in clients[2::3]:
        assert (await client.answer()).status == 200
        await client.close()
    await until(lambda: not gateway.connections)
    pool = gateway.pool
    await until(lambda: pool._open == len(pool._idle))
    assert (await gateway.get("/", many)).status == 200

"""A connection of the pool that the upstream has closed, or on which it says more than it was asked."""

import pytest

from tests.gateway.rig import (
    OK,
    Client,
    Gateway,
    Organization,
    Peer,
    Until,
    Upstream,
    post,
    request,
)


async def stale(gateway: Gateway, upstream: Upstream, acme: Organization, until: Until) -> Client:
    """A client whose gateway holds one idle connection, which the upstream will close on the next request."""

    async def serve(peer: Peer) -> None:
        number = upstream.accepted
        upstream.requests.append(await peer.request() or b"")
        peer.send(OK)
        if number > 1:
            await upstream._serve(peer)
            return
        received = await peer.request()
        upstream.requests.append(received or b"")

    upstream.serve = serve
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth))).status == 200
    return client


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
async def test_an_idempotent_request_that_met_a_stale_connection_is_sent_once_more(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until, method: bytes
) -> None:
    client = await stale(gateway, upstream, acme, until)
    assert (await client.ask(request(acme.auth, method))).status == 200
    assert upstream.accepted == 2
    assert await acme.used() == 2


@pytest.mark.parametrize("lines", [b"", b"Content-Length: 5\r\n"])
async def test_a_post_that_met_a_stale_connection_is_never_sent_twice(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until, lines: bytes
) -> None:
    client = await stale(gateway, upstream, acme, until)
    answer = await client.ask(request(acme.auth, b"POST", lines, b"hello" if lines else b""))
    assert answer.status == 502
    assert len(upstream.requests) == 2
    assert await acme.settled("tts")
    assert await acme.used() == 1


async def test_a_request_is_sent_at_most_twice(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    async def serve(peer: Peer) -> None:
        upstream.requests.append(await peer.request() or b"")
        if upstream.accepted == 1:
            peer.send(OK)
            upstream.requests.append(await peer.request() or b"")

    upstream.serve = serve
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth))).status == 200
    assert (await client.ask(request(acme.auth))).status == 502
    assert (len(upstream.requests), upstream.accepted) == (3, 2)
    assert await acme.settled("tts")


async def test_idle_connections_that_the_upstream_closed_are_not_used(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth))).status == 200
    await upstream.peers[0].close()
    pool = gateway.pool
    await until(lambda: not pool._idle)
    assert pool._open == 0
    assert (await client.ask(post(acme.auth))).status == 200
    assert upstream.accepted == 2


async def test_an_answer_that_nobody_asked_for_goes_to_nobody(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth))).status == 200
    upstream.peers[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    await until(lambda: gateway.pool._open == 0)
    assert (await client.ask(request(acme.auth))).body == b"ok"


@pytest.mark.parametrize("first", [OK, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
async def test_a_second_answer_to_one_request_goes_to_nobody(
    gateway: Gateway, acme: Organization, upstream: Upstream, first: bytes
) -> None:
    upstream.answer = first + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    client = await gateway.connect()
    for accepted in (1, 2):
        answer = await client.ask(request(acme.auth))
        assert (answer.status, answer.body) == (int(first[9:12]), first.partition(b"\r\n\r\n")[2])
        assert upstream.accepted == accepted, "a connection that says too much is not used again"
        assert not client.unread


async def test_a_body_that_follows_the_answer_to_head_goes_to_nobody(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    for answer in (OK, OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"):
        upstream.answer = answer
        client = await gateway.connect()
        for _ in range(2):
            headed = await client.ask(request(acme.auth, b"HEAD"))
            assert (headed.status, headed["content-length"], client.unread) == (200, "2", b"")
    assert upstream.accepted == 4

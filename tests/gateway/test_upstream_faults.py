"""An upstream that refuses, breaks off, lies or falls silent: what the client is told, and what it is charged."""

import asyncio
import socket

import pytest

from tests.gateway.rig import (
    OK,
    Gateway,
    Organization,
    Peer,
    StartGateway,
    Until,
    Upstream,
    closed_port,
    post,
    request,
)


async def refused(gateway: Gateway, organization: Organization, data: bytes, status: int, slug: str) -> None:
    """The request is refused so, and what it was charged is given back once."""
    client = await gateway.connect()
    answer = await client.ask(data)
    assert (answer.status, answer.problem["type"]) == (status, f"urn:quotagate:problem:{slug}")
    assert answer["ratelimit"] is None, "it would tell a balance that is being corrected"
    assert await organization.settled("ts")
    assert await organization.used() == 0
    assert gateway.worker.settlements.open == 0


async def test_a_charge_is_given_back_when_the_upstream_refuses_the_connection(
    start: StartGateway, acme: Organization
) -> None:
    gateway = await start(f"http://127.0.0.1:{closed_port()}")
    await refused(gateway, acme, post(acme.auth), 502, "upstream-unreachable")


async def test_a_charge_is_given_back_when_the_upstream_has_no_address(start: StartGateway, acme: Organization) -> None:
    gateway = await start("http://upstream.invalid:80")
    await refused(gateway, acme, request(acme.auth), 502, "upstream-unreachable")


async def test_a_charge_is_given_back_when_the_connection_takes_too_long(
    start: StartGateway, acme: Organization
) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:  # the kernel's queue is full after these, so that the next connection is not answered
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        gateway = await start(url, upstreams={"api": {"connect_timeout_seconds": 0.1}})
        await refused(gateway, acme, request(acme.auth), 502, "upstream-unreachable")
        for one in waiting:
            one.close()


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("said", [b"", b"H", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Le", OK[:-6]])
async def test_a_charge_is_given_back_when_the_upstream_ends_before_a_head(
    gateway: Gateway, acme: Organization, upstream: Upstream, said: bytes, method: bytes
) -> None:
    async def serve(peer: Peer) -> None:
        upstream.requests.append(await peer.request() or b"")
        peer.send(said)

    upstream.serve = serve
    data = post(acme.auth) if method == b"POST" else request(acme.auth)
    await refused(gateway, acme, data, 502, "upstream-invalid")
    assert len(upstream.requests) == 1, "a request that may have been done is not sent again"


HEAD = b"HTTP/1.1 200 OK\r\n"
LIES = {
    "junk": b"\x00\xff junk\r\n\r\n",
    "another protocol": b"220 mail.example.com ESMTP\r\n",
    "two equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\nok",
    "a length and a coding": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a coding and a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a coding nobody asked for": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n" + OK,
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX-A: \x00\r\nContent-Length: 2\r\n\r\nok",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + OK,
    "a status below 100": b"HTTP/1.1 042 What\r\n\r\n" + OK,
    "an endless head": b"HTTP/1.1 200 OK\r\n"
    + b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 5000,
    "an endless field": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 300_000,
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_no_answer_is_told_as_502_and_nothing_of_it_reaches_the_client(
    gateway: Gateway, acme: Organization, upstream: Upstream, lie: str
) -> None:
    upstream.answer = LIES[lie]
    await refused(gateway, acme, request(acme.auth), 502, "upstream-invalid")


async def test_an_upstream_that_says_nothing_is_told_as_504_and_stays_charged(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    """It may be at work on the request."""
    gateway = await start(upstreams={"api": {"head_timeout_seconds": 0.1}})
    gone = asyncio.Event()

    async def silent(peer: Peer, _: bytes) -> None:
        await peer.gone()
        gone.set()

    upstream.script = silent
    client = await gateway.connect()
    answer = await client.ask(post(acme.auth))
    assert (answer.status, answer.problem["type"]) == (504, "urn:quotagate:problem:upstream-timeout")
    await asyncio.wait_for(gone.wait(), 60)
    assert await acme.events() == ["t"]
    upstream.script = upstream._play
    assert (await client.ask(request(acme.auth))).status == 200, "the client's connection goes on"


async def test_no_free_connection_in_time_is_told_as_busy_and_given_back(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"head_timeout_seconds": 0.2, "connections_max": 1}})
    release = asyncio.Event()

    async def slowly(peer: Peer, _: bytes) -> None:
        peer.send(OK[:-1])
        await release.wait()
        peer.send(OK[-1:])

    upstream.script = slowly
    first = await gateway.connect()
    first.send(request(acme.auth))
    assert await first.until(b"\r\n\r\no")
    second = await gateway.connect()
    answer = await second.ask(request(acme.auth))
    assert (answer.status, answer["retry-after"]) == (503, "1")
    release.set()
    assert await first.exactly(1) == b"k"
    assert await acme.settled("tts")
    assert await acme.used() == 1
    assert (await second.ask(request(acme.auth))).status == 200


async def test_an_early_answer_to_a_short_body_keeps_the_clients_connection(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    upstream.serve = serve
    client = await gateway.connect()
    answer = await client.ask(request(acme.auth, b"POST", b"Content-Length: 5\r\n"))
    assert (answer.status, answer["connection"]) == (403, None)
    upstream.serve = upstream._serve
    client.send(b"hello" + request(acme.auth))
    assert (await client.answer()).status == 200
    await until(lambda: gateway.pool._open == 1)
    assert upstream.accepted == 2, "the connection whose request was not finished is not used again"


async def test_an_early_answer_to_a_long_body_is_read_and_the_rest_need_not_be_sent(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    upstream.serve = serve
    client = await gateway.connect()
    client.send(request(acme.auth, b"POST", b"Content-Length: 100000000\r\n", b"x" * 300_000))
    answer = await client.answer("POST")
    assert (answer.status, answer.body, answer["connection"]) == (403, b"no", "close")
    assert await client.ended()

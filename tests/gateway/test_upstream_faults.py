"""An upstream that refuses, breaks off, lies or falls silent: what the client is told, and what it is charged."""

import asyncio
import socket

import pytest

from tests.gateway.rig import (
    Client,
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    Until,
    Upstream,
    closed_port,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def request(auth: bytes, method: bytes = b"GET", lines: bytes = b"", body: bytes = b"") -> bytes:
    return b"%b / HTTP/1.1\r\nHost: api.example.com\r\n%b%b\r\n%b" % (method, auth, lines, body)


def post(auth: bytes) -> bytes:
    return request(auth, b"POST", b"Content-Length: 5\r\n", b"hello")


async def refused(gateway: Gateway, organization: Organization, data: bytes, status: int, slug: str) -> None:
    """The request is refused so, and what it was charged is given back once."""
    client = await gateway.connect()
    answer = await client.ask(data)
    assert (answer.status, answer.problem["type"]) == (status, f"urn:quotagate:problem:{slug}")
    assert answer["ratelimit"] is None, "it would tell a balance that is being corrected"
    assert await organization.settled("ts")
    assert await organization.used() == 0
    assert gateway.worker.settlements.open == 0


# Before an answer


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


# A connection that went stale


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
            told = await client.ask(request(acme.auth, b"HEAD"))
            assert (told.status, told["content-length"], client.unread) == (200, "2", b"")
    assert upstream.accepted == 4


# Within the body

BROKEN = {
    "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\npart",
}


@pytest.mark.parametrize("shape", BROKEN)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_that_is_cut_is_visibly_cut_and_stays_charged(
    gateway: Gateway, acme: Organization, upstream: Upstream, shape: str, version: bytes
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        peer.send(BROKEN[shape])

    upstream.serve = serve
    client = await gateway.connect()
    client.send(request(acme.auth).replace(b"HTTP/1.1", b"HTTP/" + version))
    await client.until(b"part")
    if version == b"1.0" and shape != "sized":
        with pytest.raises(ConnectionResetError):  # nothing else tells an HTTP/1.0 client
            await client.rest()
    else:
        assert b"0\r\n\r\n" not in await client.gone()
    assert await acme.events() == ["t"]


async def test_junk_within_a_chunked_answer_cuts_it(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n"
    client = await gateway.connect()
    client.send(request(acme.auth))
    await client.until(b"part")
    assert b"0\r\n\r\n" not in await client.gone()


async def test_an_upstream_that_falls_silent_within_a_body_is_cut(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"idle_timeout_seconds": 0.1}})
    gone = asyncio.Event()

    async def silent(peer: Peer, _: bytes) -> None:
        peer.send(BROKEN["sized"])
        await peer.gone()
        gone.set()

    upstream.script = silent
    client = await gateway.connect()
    client.send(request(acme.auth))
    await client.until(b"part")
    await client.gone()
    await asyncio.wait_for(gone.wait(), 60)


async def test_endless_trailers_of_an_answer_are_cut(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    async def endless(peer: Peer, _: bytes) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nX-T: " + b"t" * 1_000_000)
        await asyncio.Event().wait()

    upstream.script = endless
    client = await gateway.connect()
    client.send(request(acme.auth))
    await client.until(b"part\r\n")
    await client.gone()


# The client


@pytest.mark.parametrize("moment", ["before the head", "within the body"])
async def test_a_client_that_leaves_ends_its_exchange_within_a_second(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until, moment: str
) -> None:
    gone = asyncio.Event()

    async def slowly(peer: Peer, _: bytes) -> None:
        if moment == "within the body":
            peer.send(BROKEN["sized"])
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


# The answer before the end of the request


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

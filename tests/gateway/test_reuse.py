"""When a connection to the upstream is used again, and what becomes of bytes that belong to no answer."""

import asyncio
import os
import socket
from functools import partial
from typing import Any, Protocol

import pytest

from gateway.http.deadlines import TICK_SECONDS
from gateway.http.headers import promised_idle_seconds
from gateway.upstream.connection.carried import CarriedRequest
from gateway.upstream.connection.reuse import peek, usable_seconds
from gateway.upstream.connection.upstream_connection import UpstreamConnection
from tests.gateway.rig import (
    OK,
    PATIENCE_SECONDS,
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    Until,
    Upstream,
    request,
)

EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


# What the upstream promises


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b"max=100, timeout=5", 5),
        (b"Timeout = 15", 15),
        (b'timeout="5"', 5),
        (b"timeout=5;max=3", 5),
        (b"timeout=0", 0),
        (b"timeout=5, max=0", 0),
        (b"max=7", None),
        (b"", None),
        (b"timeout", None),
        (b"timeout=", None),
        (b"timeout=-1", None),
        (b"timeout=five", None),
        (b"x-timeout=5", None),
        (b"timeout=99999999999999999999", None),
    ],
)
def test_what_a_keep_alive_field_promises(value: bytes, seconds: int | None) -> None:
    assert promised_idle_seconds(value) == seconds


def test_a_connection_is_given_up_a_second_or_a_tenth_before_the_upstream_does_so() -> None:
    for promised in range(1, 600):
        latest = usable_seconds(promised, TICK_SECONDS) + TICK_SECONDS  # deadlines are counted from up to a tick ahead
        assert 0 < latest < promised
        assert promised < 2 or promised - latest >= max(1, promised / 10) - 1e-9
    assert usable_seconds(0, TICK_SECONDS) == 0


class AskOnce(Protocol):
    async def __call__(self, lines: bytes) -> UpstreamConnection | None: ...


@pytest.fixture
async def idle(gateway: Gateway, acme: Organization, upstream: Upstream) -> AskOnce:
    """Asks once, and returns the idle connection, if there is one then."""

    async def asked(lines: bytes) -> UpstreamConnection | None:
        upstream.answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % lines
        answer = await gateway.get("/", acme)
        assert (answer.status, answer["keep-alive"]) == (200, None)
        return gateway.pool._idle[-1] if gateway.pool._idle else None

    return asked


async def test_a_connection_lives_as_long_as_the_upstream_promises_and_no_longer_than_the_settings_say(
    gateway: Gateway, idle: AskOnce
) -> None:
    """Also after answers that are recognized, and after one that says nothing of it."""

    async def left_seconds(lines: bytes) -> float:
        connection = await idle(lines)
        assert connection is not None
        return connection.deadline - gateway.worker.deadlines.now

    assert await left_seconds(b"") > 25
    for _ in range(3):
        assert await left_seconds(b"Keep-Alive: timeout=10, max=9\r\n") < 9.1
    assert await left_seconds(b"") < 9.1, "what was promised of this connection holds"
    assert await left_seconds(b"Keep-Alive: timeout=20\r\n") > 10
    assert await left_seconds(b"Keep-Alive: timeout=3600\r\n") <= 30


@pytest.mark.parametrize("lines", [b"Keep-Alive: timeout=0\r\n", b"Keep-Alive: timeout=5, max=0\r\n"])
async def test_a_connection_that_takes_no_further_request_gets_none(
    idle: AskOnce, upstream: Upstream, lines: bytes
) -> None:
    for count in (1, 2, 3):
        assert await idle(lines) is None
        assert upstream.accepted == count


async def test_a_connection_whose_time_is_over_is_not_used_though_it_is_still_open(
    gateway: Gateway, acme: Organization, upstream: Upstream, idle: AskOnce
) -> None:
    connection = await idle(b"Keep-Alive: timeout=5\r\n")
    assert connection is not None
    connection.deadline = gateway.worker.deadlines.now
    assert (await gateway.ask(request(acme.auth, b"POST", b"Content-Length: 2\r\n", b"hi"))).status == 200
    assert upstream.accepted == 2


async def test_an_idle_connection_is_ended_here_before_the_upstream_would_do_so(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok"
    client = await gateway.connect()
    for count in (1, 2, 3):
        assert (await client.ask(request(acme.auth, b"POST", b"Content-Length: 2\r\n", b"hi"))).status == 200
        assert upstream.accepted == count
        await until(lambda: not gateway.pool._idle)
        await until(lambda: gateway.pool._open == 0)


async def test_a_connection_that_is_about_to_end_gets_no_further_request(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    """A TLS layer that read the upstream's farewell has ended before the kernel knows of it."""
    gateway = await start()
    assert (await gateway.get("/", acme)).status == 200
    client = await gateway.connect()
    client.send(request(acme.auth, b"POST", b"Content-Length: 2\r\n", b"hi"))  # which is not sent again
    (connection,) = gateway.pool._idle
    api = gateway.worker.upstreams["api"]
    send = api.send

    def send_when_it_ends(exchange: CarriedRequest) -> None:
        connection.transport.close()
        send(exchange)

    api.send = send_when_it_ends
    assert (await client.answer("POST")).status == 200
    assert upstream.accepted == 2


async def test_an_end_that_the_kernel_knows_of_is_seen_before_a_post_is_sent(start: StartGateway) -> None:
    """The gateway's loop has not read it yet: a POST could not be sent again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        gateway = await start(
            f"http://127.0.0.1:{listener.getsockname()[1]}", routes=[{"path": "/", "upstream": "api", "exempt": True}]
        )
        client = await gateway.connect()
        post = request(b"", b"POST", b"Content-Length: 2\r\n", b"hi")

        async def served() -> socket.socket:
            async with asyncio.timeout(PATIENCE_SECONDS):
                connection, _ = await loop.sock_accept(listener)
                while not (await loop.sock_recv(connection, 65_536)).endswith(b"hi"):
                    pass
                await loop.sock_sendall(connection, OK)
            return connection

        client.send(post)
        first = await served()
        assert (await client.answer("POST")).status == 200
        # In one step of the loop: the request is there first, and the end of the idle connection behind it.
        os.write(client.writer.get_extra_info("socket").fileno(), post)
        first.close()
        second = await served()
        assert (await client.answer("POST")).status == 200
        second.close()


# Surplus bytes

ANSWERS = {
    "sized": ("GET", OK),
    "empty": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "chunked": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    "to HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 41\r\n\r\n"),
    "to HEAD, chunked": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 that tells of a body": ("DELETE", b"HTTP/1.1 204 No Content\r\nContent-Length: 41\r\n\r\n"),
    "204, chunked": ("DELETE", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "304 that tells of a body": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 41\r\n\r\n"),
}
TELL_OF_A_BODY = [kind for kind in ANSWERS if "HEAD" in kind or "tells" in kind or kind == "204, chunked"]


@pytest.mark.parametrize("kind", ANSWERS)
async def test_bytes_behind_an_answer_are_nobodys_answer_wherever_they_are_cut(
    start: StartGateway,
    intervals: dict[str, Any],
    organization: MakeOrganization,
    upstream: Upstream,
    until: Until,
    kind: str,
) -> None:
    """So many with the answer, the rest while its connection is idle."""
    intervals["distrust_seconds"] = -1000  # each round begins with connections that may be used again
    gateway = await start()
    acme = await organization("acme", 1000)
    method, said = ANSWERS[kind]
    client = await gateway.connect()
    for cut in range(len(EVIL) + 1):
        answered = asyncio.Event()

        async def script(peer: Peer, _: bytes, cut: int = cut, answered: asyncio.Event = answered) -> None:
            upstream.script = upstream._play
            peer.send(said + EVIL[:cut])
            await answered.wait()
            await peer.send_all(EVIL[cut:])

        upstream.script = script
        first = await client.ask(request(acme.auth, method.encode()), method)
        answered.set()
        assert first.status == int(said[9:12]), cut
        await until(lambda: not gateway.pool._idle)
        second = await client.ask(request(acme.auth, b"POST", b"Content-Length: 2\r\n", b"hi"))
        assert (second.status, second.body) == (200, b"ok"), cut
        assert not client.unread


@pytest.mark.parametrize("kind", TELL_OF_A_BODY)
async def test_a_connection_whose_bodiless_answer_told_of_a_body_is_not_used_again(
    gateway: Gateway, acme: Organization, upstream: Upstream, kind: str
) -> None:
    """The body that some upstreams send all the same may come after the next request was sent."""
    method, upstream.answer = ANSWERS[kind]
    client = await gateway.connect()
    for count in (1, 2, 3):
        assert (await client.ask(request(acme.auth, method.encode()), method)).status < 400
        assert upstream.accepted == count
    assert not gateway.pool._idle


async def test_bytes_that_the_kernel_holds_are_seen_before_a_connection_is_used_again(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    assert (await gateway.get("/", acme)).status == 200
    connection = gateway.pool._idle[-1]
    connection.transport.pause_reading()  # as if the loop had not come to it yet
    upstream.peers[0].send(EVIL)
    await upstream.peers[0].writer.drain()
    await until(lambda: bool(peek(connection.transport)))
    answer = await gateway.get("/", acme)
    assert (answer.status, answer.body) == (200, b"ok")
    assert upstream.accepted == 2
    assert any(entry["event"] == "the upstream says more than its answers" for entry in gateway.logs)


async def test_after_surplus_bytes_no_connection_to_the_target_carries_a_second_request_for_a_while(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    """Neither those that were idle, nor one that was busy, nor new ones."""

    def are_busy(count: int) -> bool:
        return sum(connection.exchange is not None for connection in gateway.pool._connections) == count

    clients = [await gateway.connect() for _ in range(3)]
    for held in (clients, clients[:1]):
        release = upstream.holds()
        for client in held:
            client.send(request(acme.auth))
        await until(partial(are_busy, len(held)))
        if held is clients:
            release.set()
            for client in held:
                assert (await client.answer()).status == 200
    (busy,) = (connection for connection in gateway.pool._connections if connection.exchange is not None)
    port = gateway.pool._idle[0].transport.get_extra_info("sockname")[1]
    (talker,) = (peer for peer in upstream.peers if peer.writer.get_extra_info("peername")[1] == port)
    talker.send(b"x")
    await until(lambda: not gateway.pool._idle)
    assert busy.retired
    release.set()
    assert (await clients[0].answer()).status == 200
    await until(lambda: gateway.pool._open == 0)
    upstream.script = upstream._play
    for count in (4, 5, 6):
        assert (await clients[0].ask(request(acme.auth))).body == b"ok"
        assert upstream.accepted == count
    gateway.pool._used_again_from = 0.0  # the while is over
    for _ in range(3):
        assert (await clients[0].ask(request(acme.auth))).body == b"ok"
    assert upstream.accepted == 7


@pytest.mark.parametrize("junk", [b"x", b"evil\r\n\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"RTSP/1.0 200 OK\r\n\r\n"])
@pytest.mark.parametrize("method", [b"GET", b"PUT", b"POST"])
async def test_junk_in_place_of_an_answer_on_a_used_connection_costs_an_idempotent_request_nothing(
    gateway: Gateway, acme: Organization, upstream: Upstream, junk: bytes, method: bytes
) -> None:
    """What came late behind the answer before. A POST may have been done, so it is told as 502 and given back."""
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth))).status == 200

    async def late(peer: Peer, _: bytes) -> None:
        peer.send(junk)
        upstream.script = upstream._play

    upstream.script = late
    lines, body = (b"", b"") if method == b"GET" else (b"Content-Length: 2\r\n", b"hi")
    answer = await client.ask(request(acme.auth, method, lines, body))
    assert answer.status == (502 if method == b"POST" else 200)
    assert upstream.accepted == (1 if method == b"POST" else 2)
    assert await acme.settled("tts" if method == b"POST" else "tt")


async def test_junk_on_a_new_connection_is_told_as_502_at_once(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = b"junk\r\n\r\n"
    assert (await gateway.get("/", acme)).status == 502
    assert len(upstream.requests) == 1


async def test_an_upstream_that_announces_the_end_of_an_idle_connection_is_trusted_further(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    """RFC 9110 section 15.5.9."""
    assert (await gateway.get("/", acme)).status == 200
    upstream.peers[0].send(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    await until(lambda: gateway.pool._open == 0)
    for _ in range(2):
        assert (await gateway.get("/", acme)).status == 200
    assert upstream.accepted == 2


async def test_without_kept_connections_each_carries_one_request_also_when_others_wait(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    gateway = await start(upstreams={"api": {"keepalive_idle_max": 0, "connections_max": 1}})
    clients = [await gateway.connect() for _ in range(3)]
    for client in clients:
        client.send(request(acme.auth))
    for client in clients:
        assert (await client.answer()).status == 200
    assert upstream.accepted == 3

"""However the bytes of a message are cut into reads, it is the same message: on both sides, at every boundary."""

import asyncio
import fcntl
import socket
import sys
import termios
from typing import cast

import pytest

from tests.gateway.rig import Client, Gateway, MakeOrganization, Organization, Peer, Upstream

BYTES_RECEIVED_AT = 128  # in Linux' struct tcp_info

REQUESTS = {
    "without a body": b"GET /path?query HTTP/1.1\r\nHost: api.example.com\r\n%bAccept: */*\r\nX-Empty:\r\n\r\n",
    "sized": b"POST /path HTTP/1.1\r\nHost: api.example.com\r\n%bContent-Length: 11\r\n\r\nhello world",
    "chunked": (
        b"POST /path HTTP/1.1\r\nHost: api.example.com\r\n%bTransfer-Encoding: chunked\r\n\r\n"
        b"6;e=1\r\nhello \r\n5\r\nworld\r\n0\r\nX-Trailer: t\r\n\r\n"
    ),
}
ANSWERS = {
    "sized": b"HTTP/1.1 200 OK\r\nX-A: a\r\nContent-Length: 11\r\n\r\nhello world",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;e\r\nhello \r\n5\r\nworld\r\n0\r\nX: t\r\n\r\n",
    "after an interim one": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"
    ),
    "empty": b"HTTP/1.1 204 No Content\r\nX-A: a\r\n\r\n",
}


def unchunked(message: bytes) -> tuple[list[bytes], bytes]:
    """Fields and body of a message, where the sizes of the chunks do not count."""
    head, _, body = message.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"X-Request-Id")]
    if b"Transfer-Encoding: chunked" in lines:
        whole = b""
        while not body.startswith(b"0\r\n"):
            size, _, rest = body.partition(b"\r\n")
            whole, body = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = whole
    return lines, body


def of_client(gateway: Gateway) -> socket.socket:
    """The gateway's end of the connection that its only client has made."""
    (connection,) = gateway.connections
    return cast("socket.socket", connection.transport.get_extra_info("socket"))


def of_upstream(gateway: Gateway) -> socket.socket:
    """Its end of the connection to the upstream."""
    (connection,) = next(iter(gateway.worker.upstreams.values())).targets[0]._connections
    return cast("socket.socket", connection.transport.get_extra_info("socket"))


def received_bytes(end: socket.socket) -> int:
    """By the kernel."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED_AT + 8)
    return int.from_bytes(info[BYTES_RECEIVED_AT:], sys.byteorder)


def waiting_bytes(end: socket.socket) -> int:
    """What the kernel has received, and the gateway has not read."""
    return int.from_bytes(fcntl.ioctl(end.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


async def send_and_see_read(peer: Peer | Client, part: bytes, end: socket.socket) -> None:
    """Sends something, and waits until the gateway has read it: what is sent next comes in another read."""
    expected = received_bytes(end) + len(part)
    peer.send(part)
    async with asyncio.timeout(60):
        while received_bytes(end) < expected or waiting_bytes(end):  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_request_cut_anywhere_is_the_same_request(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, kind: str
) -> None:
    acme = await organization("a", 100_000)
    request = REQUESTS[kind] % b"Authorization: Bearer %b\r\n" % acme.token.encode()
    client = await gateway.connect()
    assert (await client.ask(request)).status == 200
    expected = unchunked(upstream.requests.pop())
    token = request.index(b"Bearer") + 20
    cuts = [at for at in range(1, len(request)) if not token < at < token + 200]
    for at in cuts:
        await send_and_see_read(client, request[:at], of_client(gateway))
        client.send(request[at:])
        answer = await client.answer(request[:4].strip().decode())
        assert (answer.status, answer.body) == (200, b"ok"), at
        assert unchunked(upstream.requests.pop()) == expected, at
        assert not upstream.requests
    assert upstream.accepted == 1


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_cut_anywhere_is_the_same_answer(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, kind: str
) -> None:
    acme = await organization("a", 100_000)
    request = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n%b\r\n" % acme.auth
    answer, at = ANSWERS[kind], 0

    async def cut(peer: Peer, _: bytes) -> None:
        if at:
            await send_and_see_read(peer, answer[:at], of_upstream(gateway))
            peer.send(answer[at:])
        else:
            peer.send(answer)

    upstream.script = cut
    client = await gateway.connect()
    first = await client.ask(request)
    assert first.status == int(answer.rpartition(b"HTTP/1.1 ")[2][:3])
    for at in range(1, len(answer)):
        received = await client.ask(request)
        assert (received.status, received.body, received.interim) == (first.status, first.body, first.interim), at
        kept = [field for field in received.fields if field[0] not in (b"X-Request-Id", b"RateLimit")]
        assert kept == [field for field in first.fields if field[0] not in (b"X-Request-Id", b"RateLimit")], at
    assert upstream.accepted == 1


async def test_messages_that_come_byte_by_byte_are_whole_messages(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    async def drop_by_drop(peer: Peer, _: bytes) -> None:
        for at in range(len(ANSWERS["chunked"])):
            await send_and_see_read(peer, ANSWERS["chunked"][at : at + 1], of_upstream(gateway))

    upstream.script = drop_by_drop
    client = await gateway.connect()
    request = REQUESTS["chunked"] % acme.auth
    for at in range(len(request)):
        await send_and_see_read(client, request[at : at + 1], of_client(gateway))
    answer = await client.answer("POST")
    assert (answer.status, answer.body) == (200, b"hello world")
    assert unchunked(upstream.requests[0])[1] == b"hello world"


async def test_server_sent_events_arrive_one_by_one_as_they_are_sent(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    more = asyncio.Event()

    async def events(peer: Peer, _: bytes) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            event = b"data: %d\n\n" % number
            peer.send(b"%x\r\n%b\r\n" % (len(event), event))
            await more.wait()
            more.clear()
        peer.send(b"0\r\n\r\n")

    upstream.script = events
    client = await gateway.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth)
    await client.until(b"\r\n\r\n")
    for number in range(5):  # none is sent before the one before has arrived
        assert await client.until(b"\n\n\r\n") == b"9\r\ndata: %d\n\n\r\n" % number
        more.set()
    assert await client.until(b"0\r\n\r\n")

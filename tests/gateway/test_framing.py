"""However the bytes of a message are cut into reads, it is the same message: on both sides, at every boundary."""

import asyncio
from typing import Any

import pytest

from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, Upstream

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


async def read_apart(peer: Peer, message: bytes, at: int, readers: list[int]) -> None:
    """Sends a message so that its two parts arrive in two reads."""
    count = len(readers)
    peer.send(message[:at])
    async with asyncio.timeout(60):
        while len(readers) == count:  # noqa: ASYNC110 - until the gateway has read the first part
            await asyncio.sleep(0)
    peer.send(message[at:])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The lengths of what the gateway reads from clients and from upstreams."""
    from gateway.client.client_connection import ClientConnection
    from gateway.upstream.connection.upstream_connection import UpstreamConnection

    lengths: dict[str, list[int]] = {}

    def count(side: str, protocol: type[ClientConnection | UpstreamConnection]) -> None:
        lengths[side], received = [], protocol.data_received

        def counted(self: Any, data: bytes) -> None:
            lengths[side].append(len(data))
            received(self, data)

        monkeypatch.setattr(protocol, "data_received", counted)

    count("client", ClientConnection)
    count("upstream", UpstreamConnection)
    return lengths


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_request_cut_anywhere_is_the_same_request(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, reads: dict[str, list[int]], kind: str
) -> None:
    acme = await organization("a", 100_000)
    request = REQUESTS[kind] % b"Authorization: Bearer %b\r\n" % acme.token.encode()
    client = await gateway.connect()
    assert (await client.ask(request)).status == 200
    expected = unchunked(upstream.requests.pop())
    token = request.index(b"Bearer") + 20
    cuts = [at for at in range(1, len(request)) if not token < at < token + 200]
    for at in cuts:
        await read_apart(client, request, at, reads["client"])
        answer = await client.answer(request[:4].strip().decode())
        assert (answer.status, answer.body) == (200, b"ok"), at
        assert unchunked(upstream.requests.pop()) == expected, at
        assert not upstream.requests
    assert upstream.accepted == 1


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_cut_anywhere_is_the_same_answer(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, reads: dict[str, list[int]], kind: str
) -> None:
    acme = await organization("a", 100_000)
    request = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n%b\r\n" % acme.auth
    answer, at = ANSWERS[kind], 0

    async def cut(peer: Peer, _: bytes) -> None:
        if at:
            await read_apart(peer, answer, at, reads["upstream"])
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
    gateway: Gateway, acme: Organization, upstream: Upstream, reads: dict[str, list[int]]
) -> None:
    async def drop_by_drop(peer: Peer, _: bytes) -> None:
        for at in range(len(ANSWERS["chunked"])):
            count = len(reads["upstream"])
            peer.send(ANSWERS["chunked"][at : at + 1])
            while len(reads["upstream"]) == count:  # noqa: ASYNC110 - until the gateway has read the byte
                await asyncio.sleep(0)

    upstream.script = drop_by_drop
    client = await gateway.connect()
    request = REQUESTS["chunked"] % acme.auth
    for at in range(len(request)):
        count = len(reads["client"])
        client.send(request[at : at + 1])
        async with asyncio.timeout(60):
            while len(reads["client"]) == count:  # noqa: ASYNC110 - until the gateway has read the byte
                await asyncio.sleep(0)
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

"""Connections on both sides: used again, closed when either side wishes it, pipelined, and bounded in number."""

import asyncio

from tests.gateway.request_heads import request_with
from tests.gateway.rig import OK, Gateway, Organization, Peer, StartGateway, Upstream, request


async def test_connections_are_used_again_on_both_sides(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    for number in range(10):
        body = b"x" * number
        answer = await client.ask(
            request_with(acme.auth + b"Content-Length: %d\r\n" % number, b"POST /%d HTTP/1.1" % number, body)
        )
        assert answer.status == 200
    assert upstream.accepted == 1
    assert len(gateway.connections) == 1
    assert (await gateway.get("/", acme)).status == 200, "and by the next client"
    assert upstream.accepted == 1


async def test_either_sides_wish_to_close_is_followed(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    client = await gateway.connect()
    answer = await client.ask(request(acme.auth + b"Connection: close\r\n"))
    assert answer["connection"] == "close"
    assert await client.ended()
    upstream.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    client = await gateway.connect()
    for accepted in (1, 2, 3):
        assert (await client.ask(request(acme.auth)))["connection"] is None
        assert upstream.accepted == accepted


async def test_pipelined_requests_are_answered_in_order(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    async def echo(peer: Peer, message: bytes) -> None:
        path = message.split(b" ")[1]
        await asyncio.sleep(0.005 if path == b"/0" else 0)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    upstream.script = echo
    client = await gateway.connect()
    client.send(b"".join(request_with(acme.auth, b"GET /%d HTTP/1.1" % n) for n in range(20)))
    assert [(await client.answer()).body for _ in range(20)] == [b"/%d" % n for n in range(20)]
    client.send(
        request_with(acme.auth, b"GET /0 HTTP/1.1")
        + request_with(b"", b"GET /refused HTTP/1.1")
        + request_with(acme.auth + b"Content-Length: 5\r\n", b"POST /2 HTTP/1.1", b"hello")
        + request_with(acme.auth, b"HEAD /3 HTTP/1.1")
        + request_with(acme.auth + b"Connection: close\r\n", b"GET /4 HTTP/1.1")
    )
    answers = [await client.answer(method) for method in ("GET", "GET", "POST", "HEAD", "GET")]
    assert [answer.status for answer in answers] == [200, 401, 200, 200, 200]
    assert [answer.body for answer in answers if answer.status == 200] == [b"/0", b"/2", b"", b"/4"]
    assert await client.ended()


async def test_thousands_of_pipelined_refusals_are_answered_one_after_the_other(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    client.send(request(acme.auth) + request_with(b"", b"GET /x HTTP/1.1") * 1500)
    assert (await client.answer()).status == 200
    assert {(await client.answer()).status for _ in range(1500)} == {401}
    assert (await client.ask(request(acme.auth))).status == 200


async def test_an_unknown_number_of_connections_is_bounded_and_the_others_wait(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"connections_max": 2}})

    async def slowly(peer: Peer, _: bytes) -> None:
        await asyncio.sleep(0.005)
        peer.send(OK)

    upstream.script = slowly
    answers = await asyncio.gather(*(gateway.get("/", acme) for _ in range(20)))
    assert [answer.status for answer in answers] == 20 * [200]
    assert upstream.accepted == 2

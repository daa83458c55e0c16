"""What of the upstream's answer reaches the client: the exact bytes, in the client's version of HTTP."""

import pytest

from tests.gateway.request_heads import fields, request_with
from tests.gateway.rig import OK, Gateway, MakeOrganization, Organization, Peer, Upstream, request


async def test_an_answer_arrives_as_it_was_sent(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    own = [
        b"Server: X",
        b"x-lower: 1",
        b"Set-Cookie: a",
        b"Set-Cookie: b",
        b"X-Empty: ",
        b"Date: today",
        b"Via: 1.1 in",
    ]
    upstream.answer = b"HTTP/1.1 418 I'm a Teapot\r\n%b\r\nContent-Length: 3\r\n\r\ntea" % b"\r\n".join(own)
    client = await gateway.connect()
    for _ in range(3):  # parsed, and recognized
        client.send(request(acme.auth))
        head = (await client.until(b"\r\n\r\n")).split(b"\r\n")
        assert await client.exactly(3) == b"tea"
        assert head[0] == b"HTTP/1.1 418 I'm a Teapot"
        assert head[1:9] == [*own, b"Content-Length: 3"]
        assert [line.split(b":")[0] for line in head[9:-2]] == [b"RateLimit-Policy", b"RateLimit", b"X-Request-Id"]


async def test_fields_of_the_upstreams_connection_stay_on_it(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nUpgrade: h2c\r\n"
        b"Proxy-Authenticate: Basic\r\nX-Stays: 2\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await gateway.get("/", acme)
    assert answer["x-stays"] == "2"
    for gone in ("connection", "keep-alive", "x-hop", "upgrade", "proxy-authenticate"):
        assert answer[gone] is None


async def test_an_upstream_that_repeats_the_request_id_makes_no_second_one(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nX-Request-Id: of-the-upstream\r\nContent-Length: 0\r\n\r\n"
    answer = await gateway.get("/", acme, b"X-Request-Id: of-the-client\r\n")
    assert answer["x-request-id"] == "of-the-client"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n06\r\n world\r\n0\r\nX-T: t\r\n\r\n"


async def test_a_chunked_answer_is_chunked_for_the_client(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = CHUNKED
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(request(acme.auth))
        assert (answer.status, answer.body, answer["transfer-encoding"]) == (200, b"hello world", "chunked")
        assert answer["content-length"] is None
    assert upstream.accepted == 1


async def test_a_chunked_answer_reaches_an_http_1_0_client_up_to_the_end_of_the_connection(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = CHUNKED
    client = await gateway.connect()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n%b\r\n" % acme.auth)
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert body == b"hello world"
    assert b"chunked" not in head
    assert b"Connection: close" in head


async def test_a_sized_answer_keeps_the_connection_of_an_http_1_0_client_that_asks_for_it(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n%b\r\n" % acme.auth)
        assert (answer.status, answer["connection"]) == (200, "keep-alive")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_without_a_length_ends_with_the_upstreams_connection(
    gateway: Gateway, acme: Organization, upstream: Upstream, version: bytes
) -> None:
    async def once(peer: Peer, _: bytes) -> None:
        peer.send(b"HTTP/%b 200 OK\r\n\r\nto the end" % version)
        await peer.close()

    upstream.script = once
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(request(acme.auth))
        assert (answer.body, answer["transfer-encoding"]) == (b"to the end", "chunked")
    assert upstream.accepted == 2
    old = await gateway.connect()
    old.send(b"GET / HTTP/1.0\r\n%b\r\n" % acme.auth)
    assert (await old.rest()).endswith(b"\r\n\r\nto the end")


async def test_answers_without_a_body_keep_the_connections_usable(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    bodiless = [
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ]
    for method, upstream.answer in bodiless:
        answer = await client.ask(request_with(acme.auth, b"%b / HTTP/1.1" % method.encode()), method)
        assert (answer.status, answer.body) == (int(upstream.answer[9:12]), b"")
        assert answer["ratelimit"]
        if b"Content-Length" in upstream.answer:
            assert answer["content-length"] == upstream.answer.split(b": ")[1].split(b"\r\n")[0].decode()
    upstream.answer = OK
    assert (await client.ask(request(acme.auth))).body == b"ok"
    assert upstream.accepted == 1


async def test_a_204_announces_no_length(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    """RFC 9110 section 8.6: a client that believed it would wait for a body."""
    upstream.answer = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth)))["content-length"] is None
    upstream.answer = OK
    assert (await client.ask(request(acme.auth))).body == b"ok"


async def test_interim_answers_are_passed_on(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    upstream.answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(request(acme.auth))
        assert (answer.interim, answer.status, answer.body) == ([103, 102], 200, b"ok")
        assert answer.interim_fields[0] == [(b"Link", b"</a>")]
        assert answer.all("link") == []
    old = await gateway.connect()
    old.send(b"GET / HTTP/1.0\r\n%b\r\n" % acme.auth)
    assert (await old.rest()).startswith(b"HTTP/1.1 200 OK\r\n"), "HTTP/1.0 knows no interim answers"


async def test_100_continue_is_the_upstreams_own(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    heads: list[bytes] = []

    async def serve(peer: Peer) -> None:
        heads.append(await peer.until(b"\r\n\r\n"))
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        heads.append(await peer.exactly(5))
        peer.send(OK)

    upstream.serve = serve
    client = await gateway.connect()
    client.send(request_with(acme.auth + b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"PUT / HTTP/1.1"))
    assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert (await client.answer()).status == 200
    assert fields(heads[0])["expect"] == "100-continue"
    assert heads[1] == b"hello"


async def test_a_refused_client_that_waits_for_100_continue_need_not_send_its_body(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    empty = await organization("empty", 0)
    client = await gateway.connect()
    answer = await client.ask(
        request_with(empty.auth + b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"PUT / HTTP/1.1")
    )
    assert (answer.status, answer.interim, answer["connection"]) == (429, [], "close")
    assert await client.ended()
    assert not upstream.requests

"""Requests that two parsers could read differently: refused, the connection ended, and nothing reaches the upstream."""

import pytest

from tests.gateway.rig import Gateway, Organization, StartGateway, Until, Upstream

HOST = b"Host: api.example.com\r\n"


def post(lines: bytes, body: bytes = b"", auth: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n%b%b%b\r\n%b" % (HOST, auth, lines, body)


SHAPES = {
    "CL.TE": post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nG"),
    "TE.CL": post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"5c\r\nGPOST\r\n0\r\n\r\n"),
    "TE.TE, the second obscured": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "TE.TE, the first obscured": post(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "TE.TE, equal": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "a coding before chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "a coding after chunked": post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "an empty coding": post(b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n"),
    "a coding that only looks like chunked": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "a tab before the coding's name": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "a coding in a folded line": post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "a coding in quotes": post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"),
    "a tab after the field's name": post(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n"),
    "a no-break blank before the coding": post(b"Transfer-Encoding: \xa0chunked\r\n", b"0\r\n\r\n"),
    "a parameter of the coding": post(b"Transfer-Encoding: chunked;x=1\r\n", b"0\r\n\r\n"),
    "NUL after the coding": post(b"Transfer-Encoding: chunked\x00\r\n", b"0\r\n\r\n"),
    "CL.TE behind a bare CR": post(b"Content-Length: 5\r\nX: a\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "a length in a folded line": post(b"Content-Length:\r\n 5\r\n", b"hello"),
    "a length with a fraction": post(b"Content-Length: 5.0\r\n", b"hello"),
    "a length with an underscore": post(b"Content-Length: 1_0\r\n", b"0123456789"),
    "NUL after the length": post(b"Content-Length: 5\x00\r\n", b"hello"),
    "a coding for HTTP/1.0": b"POST / HTTP/1.0\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % HOST,
    "two lengths": post(b"Content-Length: 0\r\nContent-Length: 5\r\n", b"hello"),
    "two equal lengths": post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    "two lengths in one": post(b"Content-Length: 5, 5\r\n", b"hello"),
    "a signed length": post(b"Content-Length: +5\r\n", b"hello"),
    "a negative length": post(b"Content-Length: -1\r\n"),
    "a length in hex": post(b"Content-Length: 0x5\r\n", b"hello"),
    "a length beyond 64 bits": post(b"Content-Length: 36893488147419103237\r\n", b"hello"),
    "no length": post(b"Content-Length: \r\n"),
    "two hosts": b"GET / HTTP/1.1\r\n%bHost: evil.example.com\r\n\r\n" % HOST,
    "two equal hosts": b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, HOST),
    "no host": b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: api.example.com/x\r\n\r\n",
    "two hosts in one": b"GET / HTTP/1.1\r\nHost: a.example.com, b.example.com\r\n\r\n",
    "another host in the target": b"GET http://evil.example.com/ HTTP/1.1\r\n%b\r\n" % HOST,
    "a blank before the colon": post(b"Content-Length : 5\r\n", b"hello"),
    "a blank before the first name": b"GET / HTTP/1.1\r\n Host: api.example.com\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\n%bX-Long: a\r\n b\r\n\r\n" % HOST,
    "bare LF between fields": b"GET / HTTP/1.1\r\n%bX-A: a\nX-B: b\r\n\r\n" % HOST,
    "bare LF after the request line": b"GET / HTTP/1.1\n%b\r\n" % HOST,
    "bare LF at the end": b"GET / HTTP/1.1\r\n%b\n" % HOST,
    "bare CR in a field": b"GET / HTTP/1.1\r\n%bX-A: a\rX-B: b\r\n\r\n" % HOST,
    "NUL in a value": b"GET / HTTP/1.1\r\n%bX-A: a\x00b\r\n\r\n" % HOST,
    "NUL in a name": b"GET / HTTP/1.1\r\n%bX-\x00A: a\r\n\r\n" % HOST,
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n%b\r\n" % HOST,
    "a field without a colon": b"GET / HTTP/1.1\r\n%bX-A\r\n\r\n" % HOST,
    "a field without a name": b"GET / HTTP/1.1\r\n%b: a\r\n\r\n" % HOST,
    "a name with a bracket": b"GET / HTTP/1.1\r\n%bX(A): a\r\n\r\n" % HOST,
    "a target with a blank": b"GET /a b HTTP/1.1\r\n%b\r\n" % HOST,
    "a target without a slash": b"GET api HTTP/1.1\r\n%b\r\n" % HOST,
    "an encoded slash": b"GET /a%%2fb HTTP/1.1\r\n%b\r\n" % HOST,
    "an unknown method": b"PWN / HTTP/1.1\r\n%b\r\n" % HOST,
    "a method in lower case": b"get / HTTP/1.1\r\n%b\r\n" % HOST,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 with fields": b"GET /\r\n%b\r\n" % HOST,
    "HTTP/1.2": b"GET / HTTP/1.2\r\n%b\r\n" % HOST,
    "HTTP/2.0": b"GET / HTTP/2.0\r\n%b\r\n" % HOST,
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("160301002f0100002b0303"),
    "CONNECT": b"CONNECT evil.example.com:443 HTTP/1.1\r\nHost: evil.example.com:443\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n%b\r\n" % HOST,
}
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"


def upgrading(shape: bytes) -> bytes:
    """The same request, and it asks for an Upgrade as well."""
    line, _, rest = shape.partition(b"\r\n")
    return line + b"\r\n" + UPGRADE + rest


# What llhttp itself reads differently behind an Upgrade, it must not read more kindly.
UPGRADING = [name for name, shape in SHAPES.items() if b" HTTP/1.1\r\n" in shape and b"Host: " in shape]


@pytest.mark.parametrize(
    "request_",
    [*SHAPES.values(), *(upgrading(SHAPES[name]) for name in UPGRADING)],
    ids=[*SHAPES, *(f"{name}, with an Upgrade" for name in UPGRADING)],
)
async def test_a_request_with_two_readings_is_refused_and_its_connection_ended(
    start: StartGateway, upstream: Upstream, request_: bytes
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "exempt": True}])
    client = await gateway.connect()
    answer = await client.ask(request_, "POST")
    assert answer.status in (400, 405, 501, 505), answer
    assert answer.problem["detail"]
    assert answer["x-request-id"]
    assert answer["connection"] == "close"
    assert await client.ended()
    assert not upstream.requests


CHUNKS = {
    "a negative size": b"-1\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a blank after the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare LF in an extension": b"5;a\nhello\r\n0\r\n\r\n",
    "more data than the size": b"5\r\nhello world\r\n0\r\n\r\n",
    "no end of the chunk": b"5\r\nhello0\r\n\r\n",
    "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "bare CR after the data": b"5\r\nhello\r0\r\n\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\x00\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a blank before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "bare LF at the end": b"5\r\nhello\r\n0\r\n\n",
}


@pytest.mark.parametrize("upgrade", [b"", UPGRADE], ids=["plain", "with an Upgrade"])
@pytest.mark.parametrize("shape", CHUNKS)
async def test_a_body_with_two_readings_is_refused_and_the_upstream_never_has_it_whole(
    gateway: Gateway, acme: Organization, upstream: Upstream, shape: str, upgrade: bytes
) -> None:
    assert (await gateway.get("/", acme)).status == 200  # else the body would be refused before anything is charged
    client = await gateway.connect()
    answer = await client.ask(post(upgrade + b"Transfer-Encoding: chunked\r\n", CHUNKS[shape], acme.auth))
    assert (answer.status, answer["connection"]) == (400, "close")
    assert await client.ended()
    assert await acme.settled("tts"), "nothing was delivered, so nothing is charged"
    assert await acme.used() == 1
    assert len(upstream.requests) == 1, "a whole request"


async def test_junk_behind_a_good_request_ends_the_connection_after_its_answer(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    good = b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth)
    for junk in (b"\x00\x01", b"GET / HTTP/2.0\r\n\r\n", SHAPES["CONNECT"], SHAPES["TLS"], SHAPES["CL.TE"]):
        client = await gateway.connect()
        assert (await client.ask(good + junk)).status == 200
        assert await client.ended()
    assert len(upstream.requests) == 5


async def test_what_a_refused_request_hides_in_its_body_is_no_request(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth)
    lengths = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % (len(hidden) + 5)
    client = await gateway.connect()
    assert (await client.ask(post(lengths, b"0\r\n\r\n" + hidden))).status == 400
    assert await client.ended()
    assert not upstream.requests


async def test_a_get_with_a_body_keeps_the_body_with_it(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    """CL.0: an upstream that ignores the body of a GET would read it as the next request."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    client = await gateway.connect()
    for _ in range(2):
        request = b"GET / HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (HOST, acme.auth, len(hidden), hidden)
        assert (await client.ask(request)).status == 200
    assert [request.endswith(b"\r\n\r\n" + hidden) for request in upstream.requests] == [True, True]
    assert [b"Content-Length: 33\r\n" in request for request in upstream.requests] == [True, True]


@pytest.mark.parametrize(
    "body",
    [
        b"\r\nTransfer-Encoding: chunked\r\nX: ",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: ",
        b"x\r\nContent-Length: 5\r\nX: ",
    ],
)
async def test_a_body_teaches_the_gateway_no_header_section(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until, body: bytes
) -> None:
    """Header sections are recognized by their bytes. The end of a body that came with the next request in one read
    must not become part of what is recognized: it would hide a Transfer-Encoding from the gateway."""
    client = await gateway.connect()
    client.send(post(b"Content-Length: %d\r\n" % len(body), b"", acme.auth))
    await until(lambda: bool(gateway.connections) and gateway.connections[0].receiving is not None)
    tail = body + b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth)
    client.send(tail)  # in one read: the rest of a body, and a request
    assert [(await client.answer(method)).status for method in ("POST", "GET")] == [200, 200]
    answer = await client.ask(b"GET /again HTTP/1.1\r\n" + tail.partition(b"\r\n")[2] + b"0\r\n\r\n")
    assert answer.status == 200
    assert upstream.requests[-1].startswith(b"GET /again HTTP/1.1\r\n")
    assert upstream.requests[-1].endswith(b"\r\n\r\n0\r\n\r\n"), "the body has stayed a body"
    assert (await client.ask(b"GET /last HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth))).status == 200


async def test_a_header_section_is_recognized_only_when_it_is_whole(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    again = b"GET /%d HTTP/1.1\r\n" + HOST + acme.auth + b"\r\n"
    for number in range(3):
        assert (await client.ask(again % number)).status == 200
    for request in (
        b"POST /5 HTTP/1.1\r\n%b%bContent-Length: 2\r\n\r\nhi" % (HOST, acme.auth),
        again % 6 + again % 7,
        b"\r\n" + again % 8,
    ):
        client.send(request)
    methods = ["POST", "GET", "GET", "GET"]
    assert [(await client.answer(method)).status for method in methods] == 4 * [200]
    lines = [request.split(b" HTTP", 1)[0] for request in upstream.requests]
    assert lines == [b"GET /0", b"GET /1", b"GET /2", b"POST /5", b"GET /6", b"GET /7", b"GET /8"]
    assert (await client.ask((again % 9).replace(b"/9 ", b"/\x80 "))).status == 400
    assert await client.ended()

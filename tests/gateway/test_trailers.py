"""Trailers of a chunked body go on in both directions, but for fields that a recipient decides by (RFC 9110 6.5.1)."""

import pytest

from gateway.http.headers import NOT_IN_TRAILERS, accepts_trailers, trailer_goes_on
from tests.gateway.bench import Bench
from tests.gateway.rig import Gateway, Organization, Peer, StartGateway, Upstream

HOST = b"Host: api.example.com\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FORBIDDEN = (
    b"Host: evil\r\nAuthorization: evil\r\n"
    b"X-Quota-Org: evil\r\nX_Quota_Org: evil\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nTE: x\r\n"
    b"X-Request-Id: evil\r\nRateLimit: evil\r\nRateLimit-Policy: evil\r\nX-RateLimit-Limit: 6\r\nSet-Cookie: evil\r\n"
    b"Content-Type: evil\r\nCookie: evil\r\nKeep-Alive: evil\r\nProxy-Authorization: evil\r\n"
    b"Access-Control-Allow-Origin: *\r\nVia: evil\r\n"
)


def post(lines: bytes, trailers: bytes, body: bytes = b"5\r\nhello\r\n") -> bytes:
    return b"POST / HTTP/1.1\r\n%b%b%b\r\n%b0\r\n%b\r\n" % (HOST, CHUNKED, lines, body, trailers)


def answer(lines: bytes, trailers: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%b%b\r\n5\r\nhello\r\n0\r\n%b\r\n" % (CHUNKED, lines, trailers)


async def test_a_requests_trailers_reach_the_upstream(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    client = await gateway.connect()
    for _ in range(2):
        sent = post(acme.auth + b"Trailer: Digest\r\n", b"Digest: sha-256=x\r\nX-T:  two words \r\n")
        assert (await client.ask(sent)).status == 200
    assert len(upstream.requests) == 2
    for request in upstream.requests:
        arrived = request.replace(b"words \r\n", b"words\r\n")  # the parser keeps a blank at the end
        assert arrived.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\nDigest: sha-256=x\r\nX-T: two words\r\n\r\n")
        assert b"\r\nTrailer: Digest\r\n" in arrived


async def test_trailers_of_an_empty_body_arrive(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    assert (await gateway.ask(post(acme.auth, b"X-T: t\r\n", b""))).status == 200
    assert upstream.requests[0].endswith(b"\r\n\r\n0\r\nX-T: t\r\n\r\n")


def test_trailers_cut_anywhere_are_the_same_trailers(bench: Bench) -> None:
    request = post(b"", b"X-T: t\r\nCookie: 7\r\nX-U: u\r\n")
    head = answer(b"", b"X-A: a\r\nSet-Cookie: 7\r\nX-B: b\r\n")
    for at in range(request.index(b"\r\n\r\n"), len(request)):
        written, [message], goes_on = bench.play([request[:at], request[at:]], [head])
        assert message.endswith(b"\r\n0\r\nX-T: t\r\nX-U: u\r\n\r\n"), at
        assert written.endswith(b"\r\n0\r\nX-A: a\r\nX-B: b\r\n\r\n")
        assert goes_on
    for at in range(head.index(b"\r\n\r\n"), len(head)):
        written, *_ = bench.play([request], [head[:at], head[at:]])
        assert written.endswith(b"\r\n0\r\nX-A: a\r\nX-B: b\r\n\r\n"), at


async def test_an_answers_trailers_reach_the_client(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    upstream.answer = answer(b"Trailer: Server-Timing\r\n", b"Server-Timing: db;dur=53\r\nX-T: t\r\n")
    client = await gateway.connect()
    for _ in range(2):
        client.send(b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth))
        assert b"\r\nTrailer: Server-Timing\r\n" in await client.until(b"\r\n\r\n")
        expected = b"5\r\nhello\r\n0\r\nServer-Timing: db;dur=53\r\nX-T: t\r\n\r\n"
        assert await client.exactly(len(expected)) == expected
    upstream.answer = answer(b"", b"")
    client.send(b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth))
    assert (await client.until(b"0\r\n\r\n")).endswith(b"hello\r\n0\r\n\r\n"), "one answer's trailers stay with it"


async def test_an_http_1_0_client_gets_no_trailers(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    upstream.answer = answer(b"", b"X-T: t\r\n")
    client = await gateway.connect()
    client.send(b"GET / HTTP/1.0\r\n%b\r\n" % acme.auth)
    assert (await client.rest()).endswith(b"\r\n\r\nhello")


async def test_fields_that_are_decided_by_are_no_trailers_in_either_direction(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    hop = b"Connection: X-Hop\r\n"
    upstream.answer = answer(hop, FORBIDDEN + b"X-Hop: evil\r\nX-T: t\r\n")
    client = await gateway.connect()
    client.send(post(acme.auth + hop, FORBIDDEN + b"X-Hop: evil\r\nX-T: t\r\n"))
    expected = b"5\r\nhello\r\n0\r\nX-T: t\r\n\r\n"
    await client.until(b"\r\n\r\n")
    assert await client.exactly(len(expected)) == expected
    assert upstream.requests[0].endswith(b"\r\n\r\n" + expected)
    assert b"evil" not in upstream.requests[0]
    assert (await client.ask(post(acme.auth, b""))).status == 200


@pytest.mark.parametrize("line", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"X : y\r\n", b"X\r\n"])
async def test_a_trailer_that_frames_the_message_or_is_no_field_never_reaches_the_upstream(
    gateway: Gateway, acme: Organization, upstream: Upstream, line: bytes
) -> None:
    client = await gateway.connect()
    answer = await client.ask(post(acme.auth, line))
    assert answer.status in (200, 400)
    assert not any(line in request.partition(b"\r\n\r\n")[2] for request in upstream.requests)
    assert (answer.status == 200) == bool(upstream.requests)


async def test_trailers_are_limited_as_heads_are(start: StartGateway, acme: Organization, upstream: Upstream) -> None:
    gateway = await start(limits={"head_bytes_max": 2048, "header_fields_max": 10})
    for trailers in (
        b"X: y\r\n" * 11,
        b"Cookie: y\r\n" * 11,  # those that are dropped count, too
        b"X: %b\r\n" % (b"y" * 2048),
        b"X: %b\r\n" % (b"y" * 300) * 8,
    ):
        client = await gateway.connect()
        answer = await client.ask(post(acme.auth, trailers), "POST")
        assert (answer.status, answer["connection"]) == (431, "close"), trailers
        assert await client.ended()
    assert not upstream.requests, "a whole request"
    assert (await gateway.ask(post(acme.auth, b"X: y\r\n" * 10), "POST")).status == 200
    await acme.comes_to(1)


async def test_an_upstreams_endless_trailers_cut_the_answer(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    async def endless(peer: Peer, _: bytes) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n0\r\n" % CHUNKED)
        for _line in range(1000):
            await peer.send_all(b"X-T: %b\r\n" % (b"t" * 1000))

    upstream.script = endless
    client = await gateway.connect()
    assert await client.loses(b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth))


async def test_te_trailers_is_told_upstream_only_for_a_client_that_told_this_hop(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    said = {
        b"Connection: TE\r\nTE: trailers\r\n": True,
        b"Connection: keep-alive, te\r\nTE: gzip;q=0.5, Trailers\r\n": True,
        b"TE: trailers\r\n": False,  # RFC 9110 section 10.1.4: it must be nominated
        b"Connection: TE\r\nTE: gzip\r\n": False,
        b"Connection: TE\r\n": False,
        b"": False,
    }
    client = await gateway.connect()
    for lines, goes_on in said.items():
        for _ in range(2):  # parsed, and recognized
            assert (await client.ask(b"GET / HTTP/1.1\r\n%b%b%b\r\n" % (HOST, acme.auth, lines))).status == 200
            arrived = upstream.requests[-1]
            assert (b"\r\nTE: trailers\r\nConnection: TE\r\n" in arrived) is goes_on, lines
            assert arrived.lower().count(b"\r\nte:") == goes_on


@pytest.mark.parametrize("name", [*sorted(NOT_IN_TRAILERS), b"x-quota-plan", b"ratelimit-reset", b"sec-fetch-mode"])
def test_a_protected_name_is_no_trailer_in_any_spelling(name: bytes) -> None:
    assert not any(trailer_goes_on(spelt) for spelt in (name, name.upper(), name.replace(b"-", b"_")))


def test_what_is_no_field_name_is_no_trailer() -> None:
    assert not any(trailer_goes_on(name) for name in (b"", b"a b", b"x:y", b"x\r", b"\xff" * 100))
    assert trailer_goes_on(b"Digest")
    assert not trailer_goes_on(b"Digest", [b"digest"])
    assert accepts_trailers(b"deflate, TRAILERS")
    assert not accepts_trailers(b"trailersx")

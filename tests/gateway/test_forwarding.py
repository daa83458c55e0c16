"""What reaches the upstream and what comes back: the exact bytes on both sides."""

import asyncio
import hashlib
import json
import re
from typing import Any

import httpx
import pytest

from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, StartGateway, Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def request(lines: bytes = b"", line: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    return b"%b\r\nHost: api.example.com\r\n%b\r\n%b" % (line, lines, body)


def lines_of(message: bytes) -> list[bytes]:
    return message.partition(b"\r\n\r\n")[0].split(b"\r\n")


def fields_of(message: bytes) -> dict[str, str]:
    pairs = [line.decode().split(": ", 1) for line in lines_of(message)[1:]]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "a field is there twice"
    return {name.lower(): value for name, value in pairs}


# The request


async def test_a_request_arrives_as_it_was_sent_and_what_the_gateway_adds_comes_last(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    own = b"Accept: */*\r\nX-b: 1\r\nX-A:2\r\nx-b: 3  \r\nCookie: a=b\r\nX-Empty:\r\nX-Latin: \xe9\r\n"
    answer = await gateway.ask(request(own + acme.auth, b"PATCH /a/%7eb?q=1&q=%20 HTTP/1.1"))
    assert answer.status == 200
    arrived = lines_of(upstream.requests[0])
    assert arrived[:3] == [b"PATCH /a/~b?q=1&q=%20 HTTP/1.1", b"Host: api.example.com", b"Accept: */*"]
    kept = [line.rstrip() for line in arrived[3:9]]
    assert kept == [b"X-b: 1", b"X-A: 2", b"x-b: 3", b"Cookie: a=b", b"X-Empty:", b"X-Latin: \xe9"]
    assert arrived[9] == acme.auth.rstrip()
    added = {line.split(b": ")[0].lower(): line.split(b": ")[1] for line in arrived[10:]}
    assert added.pop(b"x-request-id") == (answer["x-request-id"] or "").encode()
    assert added == {
        b"x-forwarded-for": b"127.0.0.1",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"api.example.com",
        b"x-quota-org": b"acme",
        b"via": b"1.1 quotagate",
    }


async def test_fields_of_one_connection_stay_on_it(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    lines = (
        b"Connection: keep-alive, X-Secret-Hop\r\nConnection: x-other-hop\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n"
        b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic YTpi\r\nX-Secret-Hop: 1\r\nX-Other-Hop: 2\r\n"
        b"X-Stays: 3\r\nUpgrade: h2c\r\n"
    )
    assert (await gateway.ask(request(lines + acme.auth))).status == 200
    fields = fields_of(upstream.requests[0])
    assert fields["x-stays"] == "3"
    for gone in ("connection", "keep-alive", "te", "proxy-connection", "proxy-authorization", "upgrade"):
        assert gone not in fields
    assert "x-secret-hop" not in fields
    assert "x-other-hop" not in fields


async def test_connection_cannot_take_from_the_upstream_what_it_decides_by(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    nominated = b"Connection: X-Quota-Org, Authorization, Host, X-Forwarded-For, Via, Content-Length, Cookie\r\n"
    line = b"POST / HTTP/1.1"
    assert (
        await gateway.ask(request(nominated + acme.auth + b"Cookie: a\r\nContent-Length: 2\r\n", line, b"hi"))
    ).status == 200
    fields = fields_of(upstream.requests[0])
    assert (fields["x-quota-org"], fields["x-forwarded-for"], fields["host"]) == (
        "acme",
        "127.0.0.1",
        "api.example.com",
    )
    assert (fields["via"], fields["content-length"], fields["cookie"]) == ("1.1 quotagate", "2", "a")
    assert "authorization" in fields


@pytest.mark.parametrize("exempt", [False, True])
async def test_what_a_client_says_of_itself_never_arrives_as_the_gateways_word(
    start: StartGateway, acme: Organization, upstream: Upstream, exempt: bool
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", **({"exempt": True} if exempt else {})}])
    claims = (
        b"X-Quota-Org: evil\r\nX_Quota_Org: evil\r\nx-quota_org: evil\r\nX-QUOTA-PLAN: evil\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n"
        b"X-Forwarded-Proto: evil\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n"
        b"X-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 6\r\nX_Request_Id: evil\r\nContent_Length: 6\r\n"
        b"Transfer_Encoding: chunked\r\n"
    )
    assert (await gateway.ask(request(claims + acme.auth))).status == 200
    arrived = upstream.requests[0]
    assert b"evil" not in arrived
    assert b"6.6.6.6" not in arrived
    assert b"_" not in b"".join(line.partition(b":")[0] for line in lines_of(arrived))
    assert fields_of(arrived).get("x-quota-org") == (None if exempt else "acme")


async def test_a_request_id_is_continued_when_it_is_sane_and_made_otherwise(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    answer = await client.ask(request(acme.auth + b"X-Request-Id: trace-1:2/3\r\n"))
    assert answer["x-request-id"] == "trace-1:2/3"
    assert fields_of(upstream.requests[0])["x-request-id"] == "trace-1:2/3"
    made = set()
    for insane in (b"", b"X-Request-Id: a b\r\n", b"X-Request-Id: <x>\r\n", b"X-Request-Id: %b\r\n" % (b"x" * 200)):
        answer = await client.ask(request(acme.auth + insane))
        made.add(fields_of(upstream.requests[-1])["x-request-id"])
        assert answer["x-request-id"] in made
    assert len(made) == 4
    assert all(re.fullmatch("[0-9a-f]{20}", one) for one in made)


async def test_the_absolute_form_is_sent_on_as_the_path_it_names(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    answer = await gateway.ask(request(acme.auth, b"GET http://api.example.com/x?y HTTP/1.1"))
    assert answer.status == 200
    assert lines_of(upstream.requests[0])[:2] == [b"GET /x?y HTTP/1.1", b"Host: api.example.com"]


async def test_an_http_1_0_client_without_a_host_is_served(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    answer = await gateway.ask(b"GET / HTTP/1.0\r\n%b\r\n" % acme.auth)
    assert (answer.status, answer["connection"]) == (200, "close")
    assert fields_of(upstream.requests[0])["host"] == upstream.url.removeprefix("http://")
    assert lines_of(upstream.requests[0])[0] == b"GET / HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"])
async def test_each_method_is_forwarded_as_it_is(
    gateway: Gateway, acme: Organization, upstream: Upstream, method: str
) -> None:
    answer = await gateway.ask(request(acme.auth, b"%b /x HTTP/1.1" % method.encode()))
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"ok")
    assert lines_of(upstream.requests[0])[0] == b"%b /x HTTP/1.1" % method.encode()


# Request bodies


async def test_a_sized_body_stays_sized(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    answer = await gateway.ask(request(acme.auth + b"Content-Length: 5\r\n", b"POST / HTTP/1.1", b"hello"))
    assert answer.status == 200
    assert fields_of(upstream.requests[0])["content-length"] == "5"
    assert upstream.requests[0].endswith(b"\r\n\r\nhello")


async def test_an_empty_body_is_told_as_empty(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth + b"Content-Length: 0\r\n", b"POST / HTTP/1.1"))).status == 200
    assert fields_of(upstream.requests[0])["content-length"] == "0"
    assert (await client.ask(request(acme.auth, b"POST / HTTP/1.1"))).status == 200
    assert "content-length" not in fields_of(upstream.requests[1])
    chunked = request(acme.auth + b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.1", b"0\r\n\r\n")
    assert (await client.ask(chunked)).status == 200
    assert fields_of(upstream.requests[2])["transfer-encoding"] == "chunked"
    assert upstream.requests[2].endswith(b"\r\n\r\n0\r\n\r\n")


async def test_a_chunked_body_stays_chunked_without_its_extensions(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    body = b"5;name=value\r\nhello\r\n006\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
    client = await gateway.connect()
    lines = acme.auth + b"Transfer-Encoding: Chunked\r\n"
    assert (await client.ask(request(lines, b"POST / HTTP/1.1", body))).status == 200
    assert upstream.requests[0].endswith(b"\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n")
    assert (await client.ask(request(acme.auth))).status == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_three_mebibytes_arrive_unchanged_in_both_directions(
    start: StartGateway, acme: Organization, sample_upstream: str, chunked: bool
) -> None:
    gateway = await start(sample_upstream)
    sent = hashlib.sha256(b"seed").digest() * 98_304
    url = f"http://127.0.0.1:{gateway.port}"
    headers = {"authorization": f"Bearer {acme.token}"}

    async def parts() -> Any:
        for at in range(0, len(sent), 100_000):
            yield sent[at : at + 100_000]

    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        told = (await client.post("/post", content=parts() if chunked else sent)).json()
        assert (told["bytes_received"], told["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())
        path = "/stream-bytes/3145728" if chunked else "/bytes/3145728"
        async with httpx.AsyncClient() as direct:
            expected = await direct.get(f"{sample_upstream}{path}?seed=1")
        received = await client.get(f"{path}?seed=1")
    assert ("content-length" in received.headers) is not chunked
    assert len(received.content) == 3_145_728
    assert hashlib.sha256(received.content).digest() == hashlib.sha256(expected.content).digest()
    assert await acme.used() == 2


# The answer


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
        answer = await client.ask(request(acme.auth, b"%b / HTTP/1.1" % method.encode()), method)
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
    client.send(request(acme.auth + b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"PUT / HTTP/1.1"))
    assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert (await client.answer()).status == 200
    assert fields_of(heads[0])["expect"] == "100-continue"
    assert heads[1] == b"hello"


async def test_a_refused_client_that_waits_for_100_continue_need_not_send_its_body(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    empty = await organization("empty", 0)
    client = await gateway.connect()
    answer = await client.ask(request(empty.auth + b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"PUT / HTTP/1.1"))
    assert (answer.status, answer.interim, answer["connection"]) == (429, [], "close")
    assert await client.ended()
    assert not upstream.requests


# Connections


async def test_connections_are_used_again_on_both_sides(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    for number in range(10):
        body = b"x" * number
        answer = await client.ask(
            request(acme.auth + b"Content-Length: %d\r\n" % number, b"POST /%d HTTP/1.1" % number, body)
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
    client.send(b"".join(request(acme.auth, b"GET /%d HTTP/1.1" % n) for n in range(20)))
    assert [(await client.answer()).body for _ in range(20)] == [b"/%d" % n for n in range(20)]
    client.send(
        request(acme.auth, b"GET /0 HTTP/1.1")
        + request(b"", b"GET /refused HTTP/1.1")
        + request(acme.auth + b"Content-Length: 5\r\n", b"POST /2 HTTP/1.1", b"hello")
        + request(acme.auth, b"HEAD /3 HTTP/1.1")
        + request(acme.auth + b"Connection: close\r\n", b"GET /4 HTTP/1.1")
    )
    answers = [await client.answer(method) for method in ("GET", "GET", "POST", "HEAD", "GET")]
    assert [answer.status for answer in answers] == [200, 401, 200, 200, 200]
    assert [answer.body for answer in answers if answer.status == 200] == [b"/0", b"/2", b"", b"/4"]
    assert await client.ended()


async def test_thousands_of_pipelined_refusals_are_answered_one_after_the_other(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    client.send(request(acme.auth) + request(b"", b"GET /x HTTP/1.1") * 1500)
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
    found = await asyncio.gather(*(gateway.get("/", acme) for _ in range(20)))
    assert [answer.status for answer in found] == 20 * [200]
    assert upstream.accepted == 2


async def test_the_sample_upstream_sees_what_the_client_sent(
    start: StartGateway, acme: Organization, sample_upstream: str
) -> None:
    gateway = await start(sample_upstream)
    lines = acme.auth + b"Content-Type: application/json\r\nContent-Length: 7\r\n"
    answer = await gateway.ask(request(lines, b"POST /anything/a?b=c HTTP/1.1", b'{"a":1}'))
    told = json.loads(answer.body)
    assert (told["method"], told["args"], told["json"], told["origin"]) == ("POST", {"b": "c"}, {"a": 1}, "127.0.0.1")
    assert told["url"] == "http://api.example.com/anything/a?b=c"

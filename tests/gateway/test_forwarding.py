"""What of a request reaches the upstream: the exact bytes."""

import hashlib
import json
import re
from typing import Any

import httpx
import pytest

from tests.gateway.request_heads import fields, lines_of, request_with
from tests.gateway.rig import Gateway, Organization, StartGateway, Upstream, request


async def test_a_request_arrives_as_it_was_sent_and_what_the_gateway_adds_comes_last(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    own = b"Accept: */*\r\nX-b: 1\r\nX-A:2\r\nx-b: 3  \r\nCookie: a=b\r\nX-Empty:\r\nX-Latin: \xe9\r\n"
    answer = await gateway.ask(request_with(own + acme.auth, b"PATCH /a/%7eb?q=1&q=%20 HTTP/1.1"))
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
    arrived = fields(upstream.requests[0])
    assert arrived["x-stays"] == "3"
    for gone in ("connection", "keep-alive", "te", "proxy-connection", "proxy-authorization", "upgrade"):
        assert gone not in arrived
    assert "x-secret-hop" not in arrived
    assert "x-other-hop" not in arrived


async def test_connection_cannot_take_from_the_upstream_what_it_decides_by(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    nominated = b"Connection: X-Quota-Org, Authorization, Host, X-Forwarded-For, Via, Content-Length, Cookie\r\n"
    line = b"POST / HTTP/1.1"
    assert (
        await gateway.ask(request_with(nominated + acme.auth + b"Cookie: a\r\nContent-Length: 2\r\n", line, b"hi"))
    ).status == 200
    arrived = fields(upstream.requests[0])
    assert (arrived["x-quota-org"], arrived["x-forwarded-for"], arrived["host"]) == (
        "acme",
        "127.0.0.1",
        "api.example.com",
    )
    assert (arrived["via"], arrived["content-length"], arrived["cookie"]) == ("1.1 quotagate", "2", "a")
    assert "authorization" in arrived


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
    assert fields(arrived).get("x-quota-org") == (None if exempt else "acme")


async def test_a_request_id_is_continued_when_it_is_sane_and_made_otherwise(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    answer = await client.ask(request(acme.auth + b"X-Request-Id: trace-1:2/3\r\n"))
    assert answer["x-request-id"] == "trace-1:2/3"
    assert fields(upstream.requests[0])["x-request-id"] == "trace-1:2/3"
    made = set()
    for insane in (b"", b"X-Request-Id: a b\r\n", b"X-Request-Id: <x>\r\n", b"X-Request-Id: %b\r\n" % (b"x" * 200)):
        answer = await client.ask(request(acme.auth + insane))
        made.add(fields(upstream.requests[-1])["x-request-id"])
        assert answer["x-request-id"] in made
    assert len(made) == 4
    assert all(re.fullmatch("[0-9a-f]{20}", one) for one in made)


async def test_the_absolute_form_is_sent_on_as_the_path_it_names(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    answer = await gateway.ask(request_with(acme.auth, b"GET http://api.example.com/x?y HTTP/1.1"))
    assert answer.status == 200
    assert lines_of(upstream.requests[0])[:2] == [b"GET /x?y HTTP/1.1", b"Host: api.example.com"]


async def test_an_http_1_0_client_without_a_host_is_served(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    answer = await gateway.ask(b"GET / HTTP/1.0\r\n%b\r\n" % acme.auth)
    assert (answer.status, answer["connection"]) == (200, "close")
    assert fields(upstream.requests[0])["host"] == upstream.url.removeprefix("http://")
    assert lines_of(upstream.requests[0])[0] == b"GET / HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"])
async def test_each_method_is_forwarded_as_it_is(
    gateway: Gateway, acme: Organization, upstream: Upstream, method: str
) -> None:
    answer = await gateway.ask(request_with(acme.auth, b"%b /x HTTP/1.1" % method.encode()))
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"ok")
    assert lines_of(upstream.requests[0])[0] == b"%b /x HTTP/1.1" % method.encode()


async def test_a_sized_body_stays_sized(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    answer = await gateway.ask(request_with(acme.auth + b"Content-Length: 5\r\n", b"POST / HTTP/1.1", b"hello"))
    assert answer.status == 200
    assert fields(upstream.requests[0])["content-length"] == "5"
    assert upstream.requests[0].endswith(b"\r\n\r\nhello")


async def test_an_empty_body_is_told_as_empty(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    client = await gateway.connect()
    assert (await client.ask(request_with(acme.auth + b"Content-Length: 0\r\n", b"POST / HTTP/1.1"))).status == 200
    assert fields(upstream.requests[0])["content-length"] == "0"
    assert (await client.ask(request_with(acme.auth, b"POST / HTTP/1.1"))).status == 200
    assert "content-length" not in fields(upstream.requests[1])
    chunked = request_with(acme.auth + b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.1", b"0\r\n\r\n")
    assert (await client.ask(chunked)).status == 200
    assert fields(upstream.requests[2])["transfer-encoding"] == "chunked"
    assert upstream.requests[2].endswith(b"\r\n\r\n0\r\n\r\n")


async def test_a_chunked_body_stays_chunked_without_its_extensions(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    body = b"5;name=value\r\nhello\r\n006\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
    client = await gateway.connect()
    lines = acme.auth + b"Transfer-Encoding: Chunked\r\n"
    assert (await client.ask(request_with(lines, b"POST / HTTP/1.1", body))).status == 200
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
        echoed = (await client.post("/post", content=parts() if chunked else sent)).json()
        assert (echoed["bytes_received"], echoed["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())
        path = "/stream-bytes/3145728" if chunked else "/bytes/3145728"
        async with httpx.AsyncClient() as direct:
            expected = await direct.get(f"{sample_upstream}{path}?seed=1")
        received = await client.get(f"{path}?seed=1")
    assert ("content-length" in received.headers) is not chunked
    assert len(received.content) == 3_145_728
    assert hashlib.sha256(received.content).digest() == hashlib.sha256(expected.content).digest()
    assert await acme.used() == 2


async def test_the_sample_upstream_sees_what_the_client_sent(
    start: StartGateway, acme: Organization, sample_upstream: str
) -> None:
    gateway = await start(sample_upstream)
    lines = acme.auth + b"Content-Type: application/json\r\nContent-Length: 7\r\n"
    answer = await gateway.ask(request_with(lines, b"POST /anything/a?b=c HTTP/1.1", b'{"a":1}'))
    echoed = json.loads(answer.body)
    assert (echoed["method"], echoed["args"], echoed["json"], echoed["origin"]) == (
        "POST",
        {"b": "c"},
        {"a": 1},
        "127.0.0.1",
    )
    assert echoed["url"] == "http://api.example.com/anything/a?b=c"

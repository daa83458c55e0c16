"""Tokens that do not come by Authorization: where they are found, what two of them mean, and that none goes on."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.token_sources import Sources, split_query
from gateway.settings.rewriting import RouteTokenSources
from tests.gateway import tunnels
from tests.gateway.request_heads import ask, fields, line
from tests.gateway.rig import MakeOrganization, Organization, StartGateway, Until, Upstream
from tests.gateway.test_forward_auth import KINDS, TRUSTED, told
from tests.gateway.test_settings import read, refusal

ALL = {"header": "X-Access-Token", "cookie": "session", "query": "access_token", "subprotocol": "bearer"}


def on(tokens: dict[str, Any], path: str = "/", **more: Any) -> dict[str, Any]:
    upgrades = {"upgrades": ["websocket"]} if "subprotocol" in tokens else {}
    return {"routes": [{"path": path, "upstream": "api", "tokens": tokens, **upgrades, **more}]}


LINES = {
    "authorization": "Authorization: Bearer {}\r\n",
    "header": "x-access-TOKEN:  {}\r\n",
    "header with a scheme": "X-Access-Token: bearer  {}\r\n",
    "cookie": "Cookie: a=1; session={}; b=2\r\n",
    "quoted cookie": 'Cookie: session="{}"\r\n',
    "one of several cookie fields": "Cookie: a=1\r\nCookie: session={}\r\n",
    "subprotocol": "Sec-WebSocket-Protocol: chat, bearer, {}\r\n",
    "subprotocols in two fields": "Sec-WebSocket-Protocol: bearer\r\nsec-websocket-protocol: {}\r\n",
}
QUERIES = {"query": "?access_token={}", "encoded query": "?access%5ftoken={}"}
WAYS = [*LINES, *QUERIES]
NOT_AUTHORIZATION = [way for way in WAYS if way != "authorization"]


def carrying(way: str, token: str, path: str = "/") -> bytes:
    """A request that carries its token in this way."""
    query = QUERIES.get(way, "").format(token.replace(".", "%2E") if way == "encoded query" else token)
    return ask(path + query, LINES.get(way, "").format(token).encode())


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_is_believed_wherever_the_route_lets_it_stand_and_does_not_go_upstream(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, until: Until, way: str
) -> None:
    file = tmp_path / "access.log"
    told = {"access_log": {"path": str(file), "query": True}, "trace": {"create": True}}
    gateway = await start(**on(ALL), **told)
    client = await gateway.connect()
    for _ in range(2):  # parsed, and recognized
        assert (await client.ask(carrying(way, acme.token))).status == 200
        if way != "authorization":
            assert acme.token.encode() not in upstream.requests[-1]
            assert acme.token.replace(".", "%2E").encode() not in upstream.requests[-1]
        assert fields(upstream.requests[-1])["x-quota-org"] == "acme"
    assert await acme.used() == 2
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == 2)
    signature = acme.token.rpartition(".")[2]
    assert signature not in file.read_text() + repr(gateway.logs)
    assert [json.loads(row)["path"] for row in file.read_text().splitlines()] == ["/", "/"]


@pytest.mark.parametrize("way", NOT_AUTHORIZATION)
async def test_where_the_route_does_not_let_it_stand_there_it_is_no_token(
    start: StartGateway, acme: Organization, upstream: Upstream, way: str
) -> None:
    gateway = await start()
    answer = await gateway.ask(carrying(way, acme.token))
    assert (answer.status, answer.problem["detail"]) == (401, "A bearer token is required.")
    assert not upstream.requests


async def test_what_one_route_believes_another_on_the_same_connection_does_not(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/h", "upstream": "api", "tokens": {"header": "X-Access-Token"}},
        {"path": "/c", "upstream": "api", "tokens": {"cookie": "session"}},
        {"path": "/q", "upstream": "api", "tokens": {"query": "access_token"}},
        {"path": "/n", "upstream": "api", "tokens": {"authorization": False, "header": "X-Access-Token"}},
    ]
    gateway = await start(routes=routes)
    ways = {"/": "authorization", "/h": "header", "/c": "cookie", "/q": "query", "/n": "header"}
    for way in ("authorization", "header", "cookie", "query"):
        client = await gateway.connect()
        for path, good in [*ways.items(), *ways.items()]:
            expected = 200 if way == good or (way == "authorization" and path != "/n") else 401
            assert (await client.ask(carrying(way, acme.token, path))).status == expected, (way, path)


async def test_the_general_setting_holds_for_routes_without_their_own(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/own", "upstream": "api", "tokens": {"header": "X-Own"}},
        {"path": "/free", "upstream": "api", "exempt": True},
    ]
    gateway = await start(routes=routes, tokens={"cookie": "session"})
    cookie = f"Cookie: session={acme.token}; a=1\r\n".encode()
    for path, status in (("/", 200), ("/own", 401), ("/free", 200)):
        assert (await gateway.ask(ask(path, cookie))).status == status
    assert [fields(request)["cookie"] for request in upstream.requests] == ["a=1", "a=1"]


# Several


@pytest.mark.parametrize("one", ["authorization", "header", "query", "subprotocol"])
@pytest.mark.parametrize("other", ["authorization", "header", "query", "subprotocol"])
async def test_of_two_tokens_none_counts(
    start: StartGateway, acme: Organization, organization: MakeOrganization, upstream: Upstream, one: str, other: str
) -> None:
    globex = await organization("globex", 10)
    gateway = await start(**on(ALL))
    query = QUERIES.get(one, "").format(acme.token)
    query += QUERIES.get(other, "").format(globex.token).replace("?", "&" if query else "?")
    lines = LINES.get(one, "").format(acme.token) + LINES.get(other, "").format(globex.token)
    answer = await gateway.ask(ask(f"/{query}", lines.encode()))
    assert (answer.status, upstream.requests) == (401, [])
    assert 'error="invalid_request"' in (answer["www-authenticate"] or "")
    assert acme.token not in answer.body.decode()


async def test_a_cookie_counts_only_where_nothing_else_carries_a_token(
    start: StartGateway, acme: Organization, organization: MakeOrganization, upstream: Upstream
) -> None:
    globex = await organization("globex", 10)
    gateway = await start(**on(ALL))
    for way in ("authorization", "header", "query", "subprotocol"):
        query, lines = QUERIES.get(way, "").format(acme.token), LINES.get(way, "").format(acme.token)
        cookies = f"Cookie: session={globex.token}; b=2\r\nCookie: session=x\r\n"
        assert (await gateway.ask(ask(f"/{query}", (lines + cookies).encode()))).status == 200
        assert fields(upstream.requests[-1])["x-quota-org"] == "acme"
        assert globex.token.encode() not in upstream.requests[-1]
    assert (await gateway.ask(ask("/", cookies.encode()))).status == 401, "two of them, and nothing else"
    wrong = LINES["header"].format("x.y.z") + LINES["cookie"].format(acme.token)
    assert (await gateway.ask(ask("/", wrong.encode()))).status == 401, "a wrong token is not made good by a cookie"


@pytest.mark.parametrize(
    "lines",
    [
        "X-Access-Token: \r\n",
        "X-Access-Token: a b\r\n",
        "X-Access-Token: a,b\r\n",
        "Cookie: session=\r\n",
        "Cookie: session\r\n",
        "Sec-WebSocket-Protocol: bearer\r\n",
        "Sec-WebSocket-Protocol: chat, bearer\r\n",
        f"X-Access-Token: {'a' * 8193}\r\n",
    ],
)
async def test_what_is_no_token_is_told_as_an_invalid_request(
    start: StartGateway, upstream: Upstream, lines: str
) -> None:
    gateway = await start(**on(ALL))
    answer = await gateway.ask(ask("/", lines.encode()))
    assert answer.status == 401
    assert 'error="invalid_request"' in (answer["www-authenticate"] or "")


async def test_another_scheme_goes_upstream_beside_a_token_of_another_place(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on(ALL))
    assert (await gateway.ask(carrying("header", acme.token)[:-2] + b"Authorization: Basic dTpw\r\n\r\n")).status == 200
    assert fields(upstream.requests[-1])["authorization"] == "Basic dTpw"
    gateway = await start(**on({"authorization": False, "header": "X-Access-Token"}))
    own = b"Authorization: Bearer the-upstreams-own\r\n\r\n"
    assert (await gateway.ask(carrying("header", acme.token)[:-2] + own)).status == 200
    assert fields(upstream.requests[-1])["authorization"] == "Bearer the-upstreams-own"


# What goes on


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("?access_token={}", ""),
        ("?a=1&access_token={}", "?a=1"),
        ("?b=%7e&access_token={}&&a=+;x&a", "?b=%7e&&a=+;x&a"),
        ("?access_token={}&", ""),
        ("?Access_Token=1&access_token={}", "?Access_Token=1"),
        ("?xaccess_token=1&access_token={}&access_tokens=2", "?xaccess_token=1&access_tokens=2"),
    ],
)
async def test_the_other_parameters_keep_their_order_and_spelling(
    start: StartGateway, acme: Organization, upstream: Upstream, query: str, sent: str
) -> None:
    gateway = await start(**on({"query": "access_token"}))
    assert (await gateway.ask(ask("/a" + query.format(acme.token)))).status == 200
    assert line(upstream.requests[-1]) == f"GET /a{sent} HTTP/1.1"


@pytest.mark.parametrize("query", ["?a=1;access_token={}", "?access_token={}&access_token={}", "?access_token={};a=1"])
async def test_a_parameter_with_two_readings_is_no_token_and_does_not_go_on(
    start: StartGateway, acme: Organization, upstream: Upstream, query: str
) -> None:
    tokens = {"query": "access_token"}
    free = {"path": "/free", "upstream": "api", "exempt": True, "tokens": tokens}
    gateway = await start(routes=[{"path": "/", "upstream": "api", "tokens": tokens}, free])
    assert (await gateway.ask(ask("/" + query.format(acme.token, acme.token)))).status == 401
    assert (await gateway.ask(ask("/free" + query.format(acme.token, acme.token)))).status == 200
    assert acme.token.encode() not in b"".join(upstream.requests)


async def test_the_other_cookies_keep_their_order_and_spelling(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on({"cookie": "session"}))
    for came, sent in (
        ('a="x; y";session={};  B = 2;c', 'a="x; y";  B = 2;c'),
        ("session={}; a=1", "a=1"),
        ("sessions=1; session={}; Session=2", "sessions=1; Session=2"),
        ("session={}", None),
    ):
        assert (await gateway.ask(ask("/", f"cookie: {came.format(acme.token)}\r\n".encode()))).status == 200
        assert fields(upstream.requests[-1]).get("cookie") == sent


async def test_no_other_spelling_of_the_field_and_no_trailer_brings_the_token_upstream(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on({"header": "X-Access-Token"}))
    lines = LINES["header"].format(acme.token) + f"X_Access_Token: {acme.token}\r\nTransfer-Encoding: chunked\r\n"
    trailer = f"0\r\nX-Access-Token: {acme.token}\r\nX-Sum: 1\r\n\r\n"
    assert (await gateway.ask(ask("/", lines.encode(), "POST") + trailer.encode())).status == 200
    assert acme.token.encode() not in upstream.requests[-1]
    assert upstream.requests[-1].endswith(b"0\r\nX-Sum: 1\r\n\r\n")


async def test_a_shadowed_request_goes_on_without_what_it_carried(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(**on(ALL, shadow=True))
    for way in NOT_AUTHORIZATION:
        assert (await gateway.ask(carrying(way, "not.a.token"))).status == 200
        assert b"not.a.token" not in upstream.requests[-1]


async def test_an_idempotency_key_holds_for_another_token_of_the_organization(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    import time
    from datetime import timedelta

    from devstack.token_mint import mint
    from tests.gateway.rig import SECRET

    gateway = await start(**on({"query": "access_token"}))
    other = mint("acme", SECRET, now=time.time(), ttl=timedelta(hours=2))
    for token in (acme.token, other):
        request = ask(f"/?a=1&access_token={token}", b"Idempotency-Key: k\r\n")
        assert (await gateway.ask(request)).status == 200
    assert await acme.used() == 1


async def test_no_refusal_has_the_token_of_a_query_logged(
    start: StartGateway, acme: Organization, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    routes = [
        {"path": "/q", "upstream": "api", "tokens": {"query": "access_token"}},
        {"path": "/other", "upstream": "api"},
    ]
    gateway = await start(routes=routes, access_log={"path": str(file), "query": True}, **TRUSTED)
    query = f"?a=1&access_token={acme.token}&b=2"
    asked = ["/q", "/none", "/other", "/q/%zz", "/-/ready", "/-/none", "/-/authorize/none", "/-/authorize/nginx"]
    for path in asked:
        await gateway.ask(ask(path + query))
    await gateway.ask(ask("/q" + query + "\x01"), "GET")
    await gateway.ask(ask("/-/authorize/envoy/none" + query))
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == len(asked) + 2)
    assert acme.token not in file.read_text()
    paths = [json.loads(row)["path"] for row in file.read_text().splitlines()]
    assert paths[:3] == ["/q?a=1&b=2", "/none?a=1&b=2", "/other?a=1&b=2"]


async def test_a_request_line_with_a_token_is_not_kept_in_memory(start: StartGateway, acme: Organization) -> None:
    gateway = await start(**on({"query": "t"}))
    short = ask("/?t=short.signed.token")
    assert (await gateway.ask(short)).status == 401
    assert (await gateway.ask(ask("/?a=1", acme.auth))).status == 200
    assert [row for row, _ in gateway.worker.destinations.known] == [b"GET /?a=1 HTTP/1.1"]


def test_a_query_is_split_and_left_as_it_was() -> None:
    assert split_query(b"a=1&t=x&b", b"t") == ((b"x",), b"a=1&b")
    assert split_query(b"a=1", b"t") == ((), b"a=1")
    assert split_query(b"", b"t") == ((), b"")
    assert split_query(b"t", b"t") == ((b"",), None)


PARTS = st.sampled_from(["t", "%74", "T", "tt", "=", "==", "&", ";", "+", "%3D", "x", "", "t=secret", "a=1"])


@given(st.lists(PARTS, max_size=14).map(lambda parts: "".join(parts).encode()))
def test_whatever_the_query_nothing_is_left_that_anyone_reads_as_the_token(query: bytes) -> None:
    values, rest = split_query(query, b"t")
    left = [] if rest is None else re.split(rb"[&;]", rest)
    assert all(unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")) != b"t" for part in left)
    pairs = query.split(b"&")
    kept = [] if rest is None else rest.split(b"&")
    assert rest is None or len(kept) + len(values) == len(pairs)
    left_over = iter(pairs)
    assert all(pair in left_over for pair in kept), "in their order, as they were spelt"


CRUMBS = st.lists(st.sampled_from(["s=secret", ' s = "secret"', "a=1", " ss=2", "", "s", "S=3", "a=s"]), max_size=6)


@given(CRUMBS)
def test_whatever_the_cookies_no_token_is_left_and_all_others_are(crumbs: list[str]) -> None:
    sources = Sources(RouteTokenSources(cookie="s"))
    lines = [f"Cookie: {';'.join(crumbs)}\r\n".encode(), b"X: s=secret\r\n"]
    sent = b"".join(sources.without(lines)).decode()
    others = [crumb.strip() for crumb in crumbs if crumb.partition("=")[0].strip() != "s"]
    assert sent.count("\r\n") == sent.count("\n") == 1 + ("Cookie: " in sent)
    found = [crumb.strip() for crumb in sent.partition("Cookie: ")[2].partition("\r\n")[0].split(";")]
    assert [crumb for crumb in found if crumb] == [crumb for crumb in others if crumb]


# WebSocket


@pytest.mark.parametrize(
    ("offered", "sent", "chosen", "answered"),
    [
        ("chat, bearer, {}", "chat", "chat", "chat"),
        ("bearer, {}, chat, super", "chat, super", "super", "super"),
        ("bearer, {}", None, None, "bearer"),
        ("chat, bearer, {}", "chat", None, "bearer"),
    ],
)
async def test_the_subprotocol_that_a_browser_is_answered_is_one_that_it_offered(
    start: StartGateway,
    acme: Organization,
    upstream: Upstream,
    offered: str,
    sent: str | None,
    chosen: str | None,
    answered: str,
) -> None:
    """A browser gives up a connection whose answer names none of what it offered, or something else."""
    gateway = await start(**on({"subprotocol": "bearer"}))
    line_of = f"Sec-WebSocket-Protocol: {chosen}\r\n".encode() if chosen else b""
    accepting = tunnels.Accepting(upstream, switches=tunnels.SWITCHES[:-2] + line_of + b"\r\n")
    client = await gateway.connect()
    client.send(ask("/", tunnels.ASKED + f"Sec-WebSocket-Protocol: {offered.format(acme.token)}\r\n".encode()))
    head = await client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert fields(head).get("sec-websocket-protocol") == answered
    assert acme.token.encode() not in head
    assert fields(upstream.requests[-1]).get("sec-websocket-protocol") == sent
    await (await accepting.far()).close()


async def test_without_the_mark_the_upstreams_answer_stays_as_it_is(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on({"subprotocol": "bearer"}))
    accepting = tunnels.Accepting(upstream)
    client = await gateway.connect()
    client.send(ask("/", tunnels.ASKED + acme.auth + b"Sec-WebSocket-Protocol: chat\r\n"))
    assert b"sec-websocket-protocol" not in (await client.until(b"\r\n\r\n")).lower()
    assert fields(upstream.requests[-1])["sec-websocket-protocol"] == "chat"
    await (await accepting.far()).close()


# Proxies that forward themselves


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [way for way in WAYS if way != "encoded query"])
async def test_a_proxy_that_forwards_itself_is_told_what_to_forward_without_the_token(
    start: StartGateway, acme: Organization, kind: str, way: str
) -> None:
    gateway = await start(**on(ALL), **TRUSTED)
    query = QUERIES.get(way, "").format(acme.token)
    answer = await gateway.ask(told(kind, f"/v1{query}", LINES.get(way, "").format(acme.token).encode()))
    assert (answer.status, answer["x-quota-org"], answer["x-quota-target"]) == (200, "acme", "/v1")
    assert acme.token.encode() not in repr(answer.fields).encode()
    expected = {"cookie": "a=1; b=2", "one of several cookie fields": "a=1"}.get(way)
    assert answer["x-quota-cookie"] == expected
    assert answer["x-quota-subprotocols"] == ("chat" if way == "subprotocol" else None)


# Settings


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tokens": {"authorization": False}}, "tokens.authorization: is false, and nothing else may carry a token"),
        ({"tokens": {"header": "Cookie"}}, "tokens.header: must name a field of its own"),
        ({"tokens": {"header": "Authorization"}}, "tokens.header: must name a field of its own"),
        ({"tokens": {"header": "X-Quota-Token"}}, "tokens.header: must name a field of its own"),
        ({"tokens": {"header": "Proxy-Authorization"}}, "tokens.header: must name a field of its own"),
        ({"tokens": {"header": "Sec-WebSocket-Protocol"}}, "tokens.header: must name a field of its own"),
        ({"tokens": {"header": "a b"}}, "tokens.header: must name a field of its own"),
        ({"tokens": {"cookie": "a;b"}}, "tokens.cookie: "),
        ({"tokens": {"query": "t"}}, "tokens.query: unknown field"),
    ],
)
def test_general_sources_that_cannot_be_meant_are_named(changes: dict[str, Any], told: str) -> None:
    assert refusal(**changes).startswith(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tokens": {"subprotocol": "bearer"}}, "tokens.subprotocol: is for routes with upgrades: [websocket]"),
        ({"tokens": {"query": "a b"}}, "tokens.query: "),
        (
            {"tokens": {"query": "n"}, "meters": {"m": {"query": "n", "max": 3}}},
            "tokens.query: tells what the request costs (meters.m)",
        ),
        (
            {"tokens": {"header": "x_cost"}, "meters": {"m": {"header": "X-Cost", "max": 3}}},
            "tokens.header: tells what the request costs (meters.m)",
        ),
    ],
)
def test_sources_of_a_route_that_cannot_be_meant_are_named(changes: dict[str, Any], told: str) -> None:
    assert refusal(routes=[{"path": "/", "upstream": "sample", **changes}]).startswith(f"routes[0].{told}")


def test_the_usual_way_alone_costs_the_hot_path_nothing() -> None:
    assert Sources.of(read().tokens) is None
    assert Sources.of(RouteTokenSources()) is None
    assert Sources.of(RouteTokenSources(query="t")) is not None

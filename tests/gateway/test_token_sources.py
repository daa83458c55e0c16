"""Tokens that do not come by Authorization: where they are found, what two of them mean, and that none goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.routing.token_sources import Sources
from gateway.settings.rewriting import RouteTokenSources
from tests.gateway import tunnels
from tests.gateway.proxies import KINDS, TRUSTED, question
from tests.gateway.request_heads import ask, fields
from tests.gateway.rig import MakeOrganization, Organization, StartGateway, Until, Upstream
from tests.gateway.settings import read, refusal
from tests.gateway.token_ways import ALL, LINES, NOT_AUTHORIZATION, QUERIES, WAYS, carrying, on


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_is_believed_wherever_the_route_lets_it_stand_and_does_not_go_upstream(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, until: Until, way: str
) -> None:
    file = tmp_path / "access.log"
    logging = {"access_log": {"path": str(file), "query": True}, "trace": {"create": True}}
    gateway = await start(**on(ALL), **logging)
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [way for way in WAYS if way != "encoded query"])
async def test_a_proxy_that_forwards_itself_is_told_what_to_forward_without_the_token(
    start: StartGateway, acme: Organization, kind: str, way: str
) -> None:
    gateway = await start(**on(ALL), **TRUSTED)
    query = QUERIES.get(way, "").format(acme.token)
    answer = await gateway.ask(question(kind, f"/v1{query}", LINES.get(way, "").format(acme.token).encode()))
    assert (answer.status, answer["x-quota-org"], answer["x-quota-target"]) == (200, "acme", "/v1")
    assert acme.token.encode() not in repr(answer.fields).encode()
    expected = {"cookie": "a=1; b=2", "one of several cookie fields": "a=1"}.get(way)
    assert answer["x-quota-cookie"] == expected
    assert answer["x-quota-subprotocols"] == ("chat" if way == "subprotocol" else None)


@pytest.mark.parametrize(
    ("changes", "message"),
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
def test_general_sources_that_cannot_be_meant_are_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
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
def test_sources_of_a_route_that_cannot_be_meant_are_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(routes=[{"path": "/", "upstream": "sample", **changes}]).startswith(f"routes[0].{message}")


def test_the_usual_way_alone_costs_the_hot_path_nothing() -> None:
    assert Sources.of(read().tokens) is None
    assert Sources.of(RouteTokenSources()) is None
    assert Sources.of(RouteTokenSources(query="t")) is not None

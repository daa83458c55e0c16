"""What changes on the way: the Host, the credential, the path's prefix, header fields. And what may not change."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from common.settings_file import SettingsError
from gateway.settings.root import GatewaySettings
from tests.gateway.rig import MakeOrganization, Organization, Peer, StartGateway, Until, Upstream
from tests.gateway.test_settings import read, refusal

KEY = "Bearer upstream-key-0123456789"


def fields(request: bytes) -> dict[str, str]:
    lines = [line.decode().split(": ", 1) for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    found = {name.lower(): value for name, value in lines}
    assert len(found) == len(lines), "each field stands there once"
    return found


def line(request: bytes) -> str:
    return request.partition(b"\r\n")[0].decode()


def to(**upstream: Any) -> dict[str, Any]:
    return {"upstreams": {"api": upstream}}


def on(path: str = "/", **route: Any) -> dict[str, Any]:
    return {"routes": [{"path": path, "upstream": "api", **route}]}


def ask(target: str = "/", lines: bytes = b"", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: Api.Example.com:8080\r\n".encode() + lines + b"\r\n"


# Host


@pytest.mark.parametrize("host", ["preserve", "upstream", "internal.example.com:8443"])
async def test_the_upstream_is_sent_the_host_that_its_settings_say(
    start: StartGateway, acme: Organization, upstream: Upstream, host: str
) -> None:
    gateway = await start(**to(host=host))
    expected = {"preserve": "Api.Example.com:8080", "upstream": f"127.0.0.1:{upstream.port}"}.get(host, host)
    client = await gateway.connect()
    for _ in range(2):  # parsed, and recognized
        assert (await client.ask(ask("/", acme.auth))).status == 200
        sent = fields(upstream.requests[-1])
        assert (sent["host"], sent["x-forwarded-host"]) == (expected, "Api.Example.com:8080")
    old = await gateway.connect()
    assert (await old.ask(b"GET / HTTP/1.0\r\n%b\r\n" % acme.auth)).status == 200
    assert fields(upstream.requests[-1])["host"] == (host if "." in host else f"127.0.0.1:{upstream.port}")


async def test_each_target_is_sent_its_own_host(
    start: StartGateway, acme: Organization, upstream: Upstream, issuer: Upstream
) -> None:
    told = {"url": None, "targets": [upstream.url, issuer.url], "host": "upstream"}
    gateway = await start(**to(**told))
    client = await gateway.connect()
    for _ in range(4):
        assert (await client.ask(ask("/", acme.auth))).status == 200
    for target in (upstream, issuer):
        assert [fields(request)["host"] for request in target.requests] == [f"127.0.0.1:{target.port}"] * 2


def test_a_default_port_is_left_out_of_the_host() -> None:
    from gateway.upstream.pool import _host_line

    assert _host_line("upstream", "api.example.com:443", "https") == b"Host: api.example.com\r\n"
    assert _host_line("upstream", "api.example.com:80", "https") == b"Host: api.example.com:80\r\n"
    assert _host_line("upstream", "[::1]:80", "http") == b"Host: [::1]\r\n"
    assert _host_line("preserve", "api.example.com", "http") == b""


async def test_a_virtual_host_behind_tls_is_asked_by_its_own_name(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path
) -> None:
    """As CDNs do: 421 for a Host that is not the name that TLS asked for."""
    from tests.gateway.test_tls_upstream import Authority

    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("localhost"))

    async def serve(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            named = fields(request)["host"].partition(":")[0] == "localhost"
            peer.send(
                b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % (b"200 OK" if named else b"421 Misdirected Request")
            )

    upstream.serve = serve
    server = await asyncio.start_server(upstream.on_connection, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    tls = {"ca_file": str(authority.ca_file)}
    for host, status in (("preserve", 421), ("upstream", 200)):
        gateway = await start(url, **to(host=host, tls=tls))
        assert (await gateway.ask(ask("/", acme.auth))).status == status
    server.close()


# Credentials


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
async def test_the_upstreams_own_credential_goes_in_place_of_the_clients_token(
    start: StartGateway, acme: Organization, upstream: Upstream, header: str
) -> None:
    gateway = await start(**to(credential={"header": header, "value": KEY}))
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(ask("/", acme.auth + b"X-API-Key: mine\r\nX_Api_Key: mine\r\nX-Other: 1\r\n"))
        assert answer.status == 200
        request = upstream.requests[-1]
        assert acme.token.encode() not in request
        assert fields(request)[header.lower()] == KEY
        assert (b"mine" in request) == (header == "Authorization")
        assert fields(request)["x-other"] == "1"
    assert await acme.used() == 2


async def test_the_credential_goes_with_nobody_whose_token_was_not_believed(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    routes = [
        {"path": "/", "upstream": "api", "shadow": True},
        {"path": "/free", "upstream": "api", "exempt": True},
    ]
    gateway = await start(routes=routes, **to(credential={"value": KEY}))
    assert (await gateway.ask(ask("/", b"Authorization: Bearer x.y.z\r\n"))).status == 200
    assert "authorization" not in fields(upstream.requests[-1]), "refused, but for the shadow"
    asks_leave = b"Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"
    for path in ("/", "/free"):
        assert (await gateway.ask(ask(path, asks_leave, "OPTIONS"), "OPTIONS")).status == 200
        assert "authorization" not in fields(upstream.requests[-1]), "a preflight speaks for nobody"
    assert (await gateway.ask(ask("/free"))).status == 200
    assert fields(upstream.requests[-1])["authorization"] == KEY
    client = await gateway.connect()
    for path, with_key in (("/", True), ("/free", True), ("/", True)):
        assert (await client.ask(ask(path, acme.auth))).status == 200
        assert (fields(upstream.requests[-1]).get("authorization") == KEY) == with_key


async def test_health_probes_ask_as_requests_do(start: StartGateway, upstream: Upstream, until: Until) -> None:
    health = {"path": "/healthz", "interval_seconds": 0.02}
    await start(**to(credential={"value": KEY}, host="api.internal", health=health))
    await until(lambda: upstream.requests)
    assert (fields(upstream.requests[0])["host"], fields(upstream.requests[0])["authorization"]) == (
        "api.internal",
        KEY,
    )


async def test_no_credential_and_no_value_is_shown(start: StartGateway, acme: Organization, upstream: Upstream) -> None:
    told = {**to(credential={"value": KEY}), **on(request_headers={"set": {"X-Key": "hidden-value-17"}})}
    settings = read(upstreams={"sample": {"url": "http://a", **told["upstreams"]["api"]}})
    assert KEY not in repr(settings) + str(settings) + str(settings.model_dump())
    gateway = await start(**told)
    await gateway.ask(ask("/", acme.auth))
    assert fields(upstream.requests[0])["x-key"] == "hidden-value-17"
    route = next(iter(gateway.worker.destinations.routes()))
    for shown in (repr(route), repr(gateway.worker.settings), repr(gateway.logs)):
        assert KEY not in shown
        assert "hidden-value-17" not in shown
    with pytest.raises(SettingsError) as refused:
        read(upstreams={"sample": {"url": "http://a", "credential": {"value": KEY + "\n"}}})
    assert KEY not in str(refused.value)


# Prefixes


@pytest.mark.parametrize(
    ("route", "asked", "sent"),
    [
        ({"path": "/api", "strip_prefix": "/api"}, "/api/v1/x?a=/api", "/v1/x?a=/api"),
        ({"path": "/api", "strip_prefix": "/api"}, "/api", "/"),
        ({"path": "/api", "strip_prefix": "/api"}, "/api?x", "/?x"),
        ({"path": "/api", "strip_prefix": "/api"}, "/api/", "/"),
        ({"path": "/api", "strip_prefix": "/api"}, "/api/api/./%61pi", "/api/api"),
        ({"path": "/api/v1", "strip_prefix": "/api"}, "/x/../api/v1/y/", "/v1/y/"),
        ({"path": "/", "add_prefix": "/base"}, "/", "/base/"),
        ({"path": "/", "add_prefix": "/base/"}, "/a", "/base/a"),
        ({"path": "/api", "strip_prefix": "/api", "add_prefix": "/v2/x"}, "/api/a", "/v2/x/a"),
        ({"path": "/api", "strip_prefix": "/api", "add_prefix": "/v2"}, "/api", "/v2"),
    ],
)
async def test_a_prefix_goes_and_comes_by_whole_segments(
    start: StartGateway, acme: Organization, upstream: Upstream, route: dict[str, Any], asked: str, sent: str
) -> None:
    gateway = await start(**on(**route))
    client = await gateway.connect()
    for _ in range(2):
        assert (await client.ask(ask(asked, acme.auth))).status == 200
        assert line(upstream.requests[-1]) == f"GET {sent} HTTP/1.1"


async def test_routes_that_share_a_connection_do_not_share_their_changes(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/a", "upstream": "api", "strip_prefix": "/a", "request_headers": {"set": {"X-From": "a"}}},
        {"path": "/b", "upstream": "api", "request_headers": {"remove": ["x-from"]}},
    ]
    gateway = await start(routes=routes)
    client = await gateway.connect()
    for path, sent, told in (
        ("/", "/", "me"),
        ("/a/x", "/x", "a"),
        ("/b/x", "/b/x", None),
        ("/a/x", "/x", "a"),
        ("/", "/", "me"),
    ):
        assert (await client.ask(ask(path, acme.auth + b"X-From: me\r\n"))).status == 200
        assert line(upstream.requests[-1]) == f"GET {sent} HTTP/1.1"
        assert fields(upstream.requests[-1]).get("x-from") == told


# Fields


async def test_fields_of_the_request_are_set_added_and_removed(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    edits = {"set": {"X-Env": "blue"}, "add": {"X-Tag": "b"}, "remove": ["X-Debug", "User-Agent"]}
    gateway = await start(**on(request_headers=edits))
    sent = b"x-env: red\r\nX_Env: red\r\nX-Tag: a\r\nX-DEBUG: 1\r\nx_debug: 1\r\nUser-Agent: u\r\nX-Last: 1\r\n"
    client = await gateway.connect()
    for _ in range(2):
        assert (await client.ask(ask("/", acme.auth + sent))).status == 200
        head = upstream.requests[-1]
        assert b"red" not in head
        assert b"ebug" not in head.lower()
        assert b"user-agent" not in head.lower()
        assert head.index(b"X-Tag: a\r\n") < head.index(b"X-Last: 1\r\n") < head.index(b"X-Env: blue\r\nX-Tag: b\r\n")


async def test_what_is_removed_comes_by_no_trailer_and_no_connection_option_removes_what_is_set(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on(request_headers={"set": {"X-Env": "blue"}, "remove": ["X-Debug"]}))
    lines = acme.auth + b"Connection: X-Env\r\nTransfer-Encoding: chunked\r\n"
    body = b"2\r\nok\r\n0\r\nX-Env: red\r\nX-Debug: 1\r\nX-Kept: 1\r\n\r\n"
    assert (await gateway.ask(ask("/", lines, "POST") + body)).status == 200
    request = upstream.requests[-1]
    assert b"X-Env: blue\r\n" in request
    assert request.endswith(b"0\r\nX-Kept: 1\r\n\r\n")


async def test_fields_of_the_answer_are_set_added_and_removed(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    edits = {"set": {"Cache-Control": "no-store"}, "add": {"Vary": "X-Env"}, "remove": ["Server", "X-Powered-By"]}
    gateway = await start(
        routes=[
            {"path": "/", "upstream": "api", "response_headers": edits},
            {"path": "/plain", "upstream": "api"},
        ]
    )
    told = b"Server: s\r\nX_Powered_By: p\r\nCache-Control: max-age=9\r\nVary: Accept\r\nX-Kept: 1\r\n"
    upstream.answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % told
    client = await gateway.connect()
    for _ in range(3):  # parsed, and recognized
        answer = await client.ask(ask("/", acme.auth))
        assert (answer.status, answer.body, answer["cache-control"], answer["x-kept"]) == (200, b"ok", "no-store", "1")
        assert answer.all("vary") == ["Accept", "X-Env"]
        assert answer["server"] is None
        assert answer["x_powered_by"] is None
        plain = await client.ask(ask("/plain", acme.auth))
        assert (plain["server"], plain["cache-control"], plain.all("vary")) == ("s", "max-age=9", ["Accept"])
    refused = await client.ask(ask("/"))
    assert (refused.status, refused["vary"]) == (401, None)


async def test_interim_answers_and_trailers_do_not_hold_what_is_removed(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on(response_headers={"remove": ["X-Secret"]}))
    upstream.answer = (
        b"HTTP/1.1 103 Early Hints\r\nX-Secret: 1\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Secret\r\n\r\n"
        b"2\r\nok\r\n0\r\nX-Secret: 1\r\nX-Sum: 2\r\n\r\n"
    )
    client = await gateway.connect()
    client.send(ask("/", acme.auth))
    whole = await client.until(b"X-Sum: 2\r\n\r\n")
    assert b"X-Secret: 1" not in whole
    assert b"Link: </a>" in whole


async def test_what_is_reported_is_read_before_it_is_removed(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    acme = await organization("acme", 100)
    meters = {"api_calls": {"reported": {"header": "X-Units"}, "estimate": 5, "max": 50}}
    gateway = await start(**on(meters=meters, response_headers={"remove": ["X-Units"]}))
    upstream.answer = b"HTTP/1.1 200 OK\r\nX-Units: 7\r\nContent-Length: 2\r\n\r\nok"
    assert (await gateway.ask(ask("/", acme.auth)))["x-units"] is None
    assert await acme.settled("ts")
    assert await acme.used() == 7


# Refused by config check


def edit(kind: str, part: str, name: str) -> str:
    return refusal(
        routes=[{"path": "/", "upstream": "sample", kind: {part: [name] if part == "remove" else {name: "v"}}}]
    )


@pytest.mark.parametrize("part", ["set", "add", "remove"])
@pytest.mark.parametrize("kind", ["request_headers", "response_headers"])
@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "keep-alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "transfer_encoding",
        "Content-Length",
        "Upgrade",
        "Proxy-Authorization",
        "HTTP2-Settings",
        "X-Request-Id",
        "Sec-WebSocket-Key",
        "Content-Encoding",
        "A B",
        "",
    ],
)
def test_fields_of_one_connection_and_of_the_gateway_are_refused(kind: str, part: str, name: str) -> None:
    at = "[0]: " if part == "remove" else f".{name}: "
    assert edit(kind, part, name).startswith(f"routes[0].{kind}.{part}{at}")


@pytest.mark.parametrize("part", ["set", "add", "remove"])
@pytest.mark.parametrize(
    "name",
    [
        "X-Quota-Org",
        "x_quota_anything",
        "Host",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "Forwarded",
        "Via",
        "Idempotency-Key",
    ],
)
def test_who_the_caller_is_cannot_be_told_otherwise(part: str, name: str) -> None:
    assert edit("request_headers", part, name).startswith(f"routes[0].request_headers.{part}")


@pytest.mark.parametrize("name", ["RateLimit", "RateLimit-Policy", "Date", "X-Quota-Org"])
def test_what_the_gateway_tells_clients_cannot_be_told_otherwise(name: str) -> None:
    assert edit("response_headers", "set", name).startswith("routes[0].response_headers.set")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"request_headers": {"set": {"Authorization": "x"}}},
            "request_headers.set.Authorization: is set by `credential`",
        ),
        (
            {"request_headers": {"set": {"X-A": "1"}, "remove": ["x_a"]}},
            "request_headers.remove[0]: is named under set, too",
        ),
        ({"request_headers": {"set": {"X-A": "1", "x-a": "1"}}}, "request_headers.set.x-a: is named under set, too"),
        (
            {"request_headers": {"set": {"X-A": "1\r\nX-Quota-Org: b"}}},
            "request_headers.set.X-A: must be visible ASCII",
        ),
        ({"request_headers": {"set": {"X-A": " 1"}}}, "request_headers.set.X-A: must be visible ASCII"),
        ({"response_headers": {"add": {"X-A": "é"}}}, "response_headers.add.X-A: must be visible ASCII"),
        ({"response_headers": {"sett": {}}}, "response_headers.sett: unknown field (did you mean set?)"),
        (
            {"meters": {"n": {"header": "X-Cost", "max": 9}}, "request_headers": {"remove": ["x_cost"]}},
            "request_headers.remove[0]: tells what the request costs (meters.n)",
        ),
        ({"strip_prefix": "/b"}, "strip_prefix: must be /a/b or whole segments of its start"),
        ({"strip_prefix": "/a/b/c"}, "strip_prefix: must be /a/b or whole segments of its start"),
        ({"strip_prefix": "/"}, "strip_prefix: must be an absolute path of at least one segment"),
        ({"strip_prefix": "a"}, "strip_prefix: must be an absolute path"),
        ({"add_prefix": "/x/../y"}, "add_prefix: must be an absolute path"),
        ({"add_prefix": "/x%2Fy"}, "add_prefix: the path holds an encoded slash"),
        ({"add_prefix": "/x y"}, "add_prefix: the path holds a blank"),
        ({"encoded_slash": "decode"}, "encoded_slash: should be 'reject' or 'keep'"),
    ],
)
def test_changes_that_cannot_be_meant_are_named(changes: dict[str, Any], told: str) -> None:
    assert refusal(routes=[{"path": "/a/b", "upstream": "sample", **changes}]).startswith(f"routes[0].{told}")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"host": "a b"}, "host: must be preserve, upstream, or a host"),
        ({"host": "a\r\nX: y"}, "host: must be preserve, upstream, or a host"),
        ({"host": "http://a"}, "host: must be preserve, upstream, or a host"),
        ({"credential": {"value": ""}}, "credential.value: must not be empty"),
        ({"credential": {}}, "credential.value: is missing"),
        ({"credential": {"header": "X-Quota-Org", "value": "x"}}, "credential.header: tells the upstream who"),
        (
            {"credential": {"header": "Proxy-Authorization", "value": "x"}},
            "credential.header: belongs to one connection",
        ),
    ],
)
def test_hosts_and_credentials_that_cannot_be_meant_are_named(changes: dict[str, Any], told: str) -> None:
    found = refusal(upstreams={"sample": {"url": "http://127.0.0.1:9", **changes}})
    assert found.startswith(f"upstreams.sample.{told}")


def test_a_route_that_changes_nothing_is_sent_as_all_others_are() -> None:
    """The hot path: one comparison decides that the lines of the request before are good for this one."""
    from types import SimpleNamespace

    from gateway.http.head import RequestHead
    from gateway.routing.destinations import Destinations
    from gateway.routing.routes import compile_routes

    settings: GatewaySettings = read(
        routes=[{"path": "/", "upstream": "sample"}, {"path": "/b", "upstream": "sample", "encoded_slash": "keep"}]
    )
    upstream: Any = SimpleNamespace(settings=settings.upstreams["sample"])
    destinations = Destinations(compile_routes(settings), {"sample": upstream})
    head = RequestHead()
    head.hosts.append(b"a")
    first, second = (destinations.find(b"GET", path, head).route for path in (b"/", b"/b"))
    assert first
    assert second
    assert first.sent_as is second.sent_as
    assert (first.rewriting, first.tokens, first.response_edits) == (None, None, None)

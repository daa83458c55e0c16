"""What changes on the way: the Host, the path's prefix, header fields. And that nothing else does."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from gateway.settings.root import GatewaySettings
from tests.authority import Authority
from tests.gateway.request_heads import ask, fields, line, on, to
from tests.gateway.rig import MakeOrganization, Organization, Peer, StartGateway, Upstream
from tests.gateway.settings import read


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
    settings = {"url": None, "targets": [upstream.url, issuer.url], "host": "upstream"}
    gateway = await start(**to(**settings))
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
    for path, sent, caller in (
        ("/", "/", "me"),
        ("/a/x", "/x", "a"),
        ("/b/x", "/b/x", None),
        ("/a/x", "/x", "a"),
        ("/", "/", "me"),
    ):
        assert (await client.ask(ask(path, acme.auth + b"X-From: me\r\n"))).status == 200
        assert line(upstream.requests[-1]) == f"GET {sent} HTTP/1.1"
        assert fields(upstream.requests[-1]).get("x-from") == caller


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
    answer_lines = b"Server: s\r\nX_Powered_By: p\r\nCache-Control: max-age=9\r\nVary: Accept\r\nX-Kept: 1\r\n"
    upstream.answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % answer_lines
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


async def test_a_route_that_changes_nothing_is_sent_as_all_others_are() -> None:
    """The hot path: one comparison decides that the lines of the request before are good for this one."""
    from gateway.http.deadlines import DeadlineSweep
    from gateway.http.head import RequestHead
    from gateway.routing.destinations import Destinations
    from gateway.routing.routes import compile_routes
    from gateway.upstream.balancer import Upstream

    settings: GatewaySettings = read(
        routes=[{"path": "/", "upstream": "sample"}, {"path": "/b", "upstream": "sample", "encoded_slash": "keep"}]
    )
    loop = asyncio.get_running_loop()
    upstream = Upstream(loop, DeadlineSweep(loop), "sample", settings.upstreams["sample"])
    destinations = Destinations(compile_routes(settings), {"sample": upstream})
    head = RequestHead()
    head.hosts.append(b"a")
    first, second = (destinations.find(b"GET", path, head).route for path in (b"/", b"/b"))
    assert first
    assert second
    assert first.sent_as is second.sent_as
    assert (first.rewriting, first.tokens, first.response_edits) == (None, None, None)

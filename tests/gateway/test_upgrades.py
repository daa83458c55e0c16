"""An Upgrade that the route does not offer is ignored (RFC 9110 section 7.8): the answer is one of HTTP/1.1."""

import pytest

from tests.gateway.rig import Gateway, Organization, StartGateway, Upstream

HOST = b"Host: api.example.com\r\n"
JAVA = (  # java.net.http.HttpClient, JDK 17; `curl --http2` sends the same three fields
    b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    b"Upgrade: h2c\r\nUser-Agent: Java-http-client/17.0.19\r\n"
)
WEBSOCKET = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n"
)
IGNORED = {
    "java and curl": JAVA,
    "Apache HttpClient 5.4": b"Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "a WebSocket": WEBSOCKET,
    "a list": b"Connection: Upgrade\r\nUpgrade: h2c, foo/2\r\nUpgrade: IRC/6.9\r\n",
    "an empty one": b"Connection: Upgrade\r\nUpgrade:\r\n",
    "one that Connection does not name": b"Upgrade: h2c\r\n",
}
GONE = (b"upgrade", b"http2-settings", b"sec-websocket")
CHUNKED = b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n"


def asking(method: bytes, path: bytes, organization: Organization, lines: bytes, body: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, path, HOST, organization.auth, lines, body)


def is_plain(request: bytes) -> bool:
    return not any(name in request.partition(b"\r\n\r\n")[0].lower() for name in GONE)


@pytest.mark.parametrize("asked", IGNORED)
async def test_an_upgrade_that_no_route_offers_is_answered_in_http_1_and_goes_no_further(
    gateway: Gateway, acme: Organization, upstream: Upstream, asked: str
) -> None:
    client = await gateway.connect()
    for number in range(3):  # from the second on the head is recognized by its bytes
        answer = await client.ask(asking(b"GET", b"/%d" % number, acme, IGNORED[asked]))
        assert (answer.status, answer.body, answer["upgrade"]) == (200, b"ok", None)
    assert [request.split(b" ")[1] for request in upstream.requests] == [b"/0", b"/1", b"/2"]
    assert all(map(is_plain, upstream.requests))
    assert await acme.used() == 3


@pytest.mark.parametrize("asked", IGNORED)
@pytest.mark.parametrize("cut", [1, 7, 100_000])
async def test_bodies_of_such_requests_keep_their_framing_and_the_requests_behind_them_are_read(
    gateway: Gateway, acme: Organization, upstream: Upstream, asked: str, cut: int
) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    lines = IGNORED[asked]
    sized = lines + b"Content-Length: %d\r\n" % len(hidden)
    stream = (
        asking(b"POST", b"/sized", acme, sized, hidden)
        + asking(b"GET", b"/plain", acme, b"")
        + asking(b"PUT", b"/chunked", acme, lines + b"Transfer-Encoding: chunked\r\n", CHUNKED)
        + asking(b"POST", b"/empty", acme, lines + b"Content-Length: 0\r\n")
        + asking(b"GET", b"/last", acme, lines)
    )
    client = await gateway.connect()
    for at in range(0, len(stream), cut):
        client.send(stream[at : at + cut])
        if cut < 100:
            await client.writer.drain()
    assert [(await client.answer(m)).status for m in ("POST", "GET", "PUT", "POST", "GET")] == 5 * [200]
    heads = [request.partition(b"\r\n\r\n")[0] for request in upstream.requests]
    assert [head.split(b" ")[1] for head in heads] == [b"/sized", b"/plain", b"/chunked", b"/empty", b"/last"]
    assert all(map(is_plain, upstream.requests))
    assert upstream.requests[0].endswith(b"\r\n\r\n" + hidden)
    assert b"Content-Length: %d" % len(hidden) in heads[0].split(b"\r\n")
    assert b"Transfer-Encoding: chunked" in heads[2].split(b"\r\n")
    assert b"".join(upstream.requests[2].partition(b"\r\n\r\n")[2].split(b"\r\n")[1:-1:2]).startswith(b"hel")
    assert upstream.requests[2].endswith(b"0\r\nX-Sum: 1\r\n\r\n")
    assert await acme.used() == 5


async def test_a_body_behind_an_ignored_upgrade_ends_with_its_bytes_and_its_connection_where_it_says_so(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    lines = JAVA.replace(b"Connection: ", b"Connection: close, ") + b"Content-Length: 2\r\n"
    client.send(asking(b"POST", b"/", acme, lines, b"hi") + asking(b"GET", b"/behind", acme, b""))
    assert (await client.answer("POST")).status == 200
    assert await client.ended()
    assert len(upstream.requests) == 1


async def test_an_upgrade_of_http_1_0_is_ignored_as_it_must_be(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    for lines in (JAVA, WEBSOCKET):
        answer = await gateway.ask(b"GET / HTTP/1.0\r\n%b%b%b\r\n" % (HOST, acme.auth, lines))
        assert (answer.status, answer.body) == (200, b"ok")
    assert all(map(is_plain, upstream.requests))


async def test_an_upgrade_is_ignored_on_the_routes_that_do_not_offer_it_only(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    routes = [{"path": "/ws", "upstream": "api", "upgrades": ["websocket"]}, {"path": "/", "upstream": "api"}]
    gateway = await start(routes=routes)
    client = await gateway.connect()
    for _ in range(2):
        assert (await client.ask(asking(b"GET", b"/", acme, WEBSOCKET))).status == 200
    for lines in (JAVA, WEBSOCKET + b"Content-Length: 2\r\n"):  # not what is offered; and not by such a request
        body = b"hi" if b"Length" in lines else b""
        assert (await client.ask(asking(b"GET", b"/ws", acme, lines, body))).status == 200
    assert (await client.ask(asking(b"POST", b"/ws", acme, WEBSOCKET))).status == 200
    assert all(map(is_plain, upstream.requests))
    client.send(asking(b"GET", b"/ws", acme, WEBSOCKET))  # the section that was ignored before
    upstream.answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" in upstream.requests[-1]


@pytest.mark.parametrize(
    "upgrade",
    [b"Upgrade: h2c, WebSocket\r\n", b"Upgrade: websocket\r\nUpgrade: h2c\r\n", b"Upgrade: TLS/1.2,,websocket\r\n"],
)
async def test_of_several_protocols_the_one_that_the_route_offers_is_asked_for(
    start: StartGateway, acme: Organization, upstream: Upstream, upgrade: bytes
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "upgrades": ["websocket"]}])
    upstream.answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    client = await gateway.connect()
    client.send(asking(b"GET", b"/", acme, b"Connection: Upgrade\r\n" + upgrade))
    assert b"\r\nUpgrade: websocket\r\n" in await client.until(b"\r\n\r\n")
    assert upstream.requests[0].lower().count(b"upgrade: ") == 1


async def test_a_switch_that_an_upstream_makes_of_an_ignored_upgrade_is_a_502(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert (await gateway.get("/", acme, WEBSOCKET)).status == 502


async def test_an_exempt_route_and_the_gateways_own_endpoints_ignore_upgrades_too(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "exempt": True}])
    assert (await gateway.get("/", lines=JAVA)).status == 200
    assert (await gateway.get("/-/health", lines=JAVA)).status == 200

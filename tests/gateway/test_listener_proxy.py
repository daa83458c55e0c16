"""PROXY protocol in front of the gateway's connections: a trusted proxy says whose they are."""

import asyncio
from pathlib import Path

import pytest

from gateway.listener.entrance import Turned
from tests.authority import Authority
from tests.gateway.request_heads import ask, fields
from tests.gateway.rig import STREAM_LIMIT, Client, Organization, StartGateway, Until, Upstream
from tests.gateway.test_listener_tls import NAME, secured, trusting
from tests.gateway.test_proxy_header import V4, v2, value

V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"
LOCAL = {"proxy_protocol": {"trusted": ["127.0.0.0/8"]}}


@pytest.mark.parametrize(
    ("header", "address", "scheme"),
    [
        (V1, "192.0.2.7", "http"),
        (v2(V4), "192.0.2.7", "http"),
        (v2(V4 + value(0x20, b"\x01" + bytes(4))), "192.0.2.7", "https"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1", "http"),
        (v2(b"", 0x20, 0), "127.0.0.1", "http"),
    ],
)
async def test_upstreams_are_told_whom_the_header_names(
    start: StartGateway, acme: Organization, upstream: Upstream, header: bytes, address: str, scheme: str
) -> None:
    gateway = await start(listen=LOCAL)
    client = await gateway.connect()
    client.send(header[:20])
    await asyncio.sleep(0)
    assert (await client.ask(header[20:] + ask("/", acme.auth), "GET")).status == 200
    assert (await client.ask(ask("/", acme.auth))).status == 200
    told = fields(upstream.requests[1])
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == (address, scheme)


async def test_what_the_client_of_a_proxy_says_of_itself_is_believed_by_the_address_in_the_header(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(listen=LOCAL, forwarded={"trusted": ["127.0.0.1"]})
    client = await gateway.connect()
    said = acme.auth + b"X-Forwarded-For: 203.0.113.9\r\n"
    assert (await client.ask(V1 + ask("/", said), "GET")).status == 200
    assert fields(upstream.requests[0])["x-forwarded-for"] == "192.0.2.7", "the proxy is trusted, its client is not"


async def test_a_connection_without_a_header_or_of_somebody_else_is_closed_and_costs_nothing(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    gateway = await start(listen=LOCAL, timeouts={"handshake_seconds": 0.2})
    for sent in (ask("/", acme.auth), V1[:20]):
        client = await gateway.connect()
        await client.send_all(sent)
        assert await client.gone() == b""
    assert gateway.turned == {Turned.PROXY_HEADER: 1, Turned.TIMEOUT: 1}
    await (await gateway.connect()).close()  # a health check of the port
    strict = await start(listen={"proxy_protocol": {"trusted": ["10.0.0.0/8", "unix"]}})
    client = await strict.connect()
    client.send(V1 + ask("/", acme.auth))
    assert await client.gone() == b""
    assert strict.turned == {Turned.PROXY_UNTRUSTED: 1}
    assert upstream.requests == []
    await until(lambda: not gateway.state.connections and not strict.state.connections)
    assert gateway.turned == {Turned.PROXY_HEADER: 1, Turned.TIMEOUT: 1}


async def test_a_header_comes_before_tls(
    start: StartGateway, acme: Organization, upstream: Upstream, authority: Authority
) -> None:
    gateway = await start(listen={**secured(authority.issue(NAME)), **LOCAL})
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=STREAM_LIMIT)
    writer.write(V1)
    await writer.start_tls(trusting(authority), server_hostname=NAME)
    client = gateway.keep(Client(reader, writer))
    assert (await client.ask(ask("/", acme.auth))).status == 200
    told = fields(upstream.requests[0])
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == ("192.0.2.7", "https")


async def connected_to(path: Path) -> Client:
    return Client(*await asyncio.open_unix_connection(path, limit=STREAM_LIMIT))


async def test_requests_come_by_a_unix_socket_and_their_proxy_is_believed_if_it_is_trusted(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path
) -> None:
    said = acme.auth + b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
    cases: list[tuple[list[str], bytes, str, str]] = [
        ([], said, "unknown", "http"),
        (["10.0.0.0/8"], said, "unknown", "http"),
        (["unix"], said, "203.0.113.9", "https"),
        (["unix"], acme.auth, "unknown", "http"),
    ]
    for at, (trusted, lines, address, scheme) in enumerate(cases):
        path = tmp_path / f"{at}.sock"
        gateway = await start(listen={"socket": str(path)}, forwarded={"trusted": trusted, "rfc7239": True})
        client = gateway.keep(await connected_to(path))
        for _ in range(2):
            assert (await client.ask(ask("/", lines))).status == 200
        told = fields(upstream.requests[-1])
        assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == (address, scheme)
        assert told["forwarded"].startswith("for=unknown;proto=http;")
    body = b"x" * 3_000_000
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    posted = await client.ask(ask("/", acme.auth + b"Content-Length: %d\r\n" % len(body), "POST") + body)
    assert posted.body == body


async def test_a_proxy_at_a_unix_socket_says_whose_connection_it_is(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.sock"
    gateway = await start(listen={"socket": str(path), "proxy_protocol": {"trusted": ["unix"]}})
    client = gateway.keep(await connected_to(path))
    assert (await client.ask(v2(V4) + ask("/", acme.auth), "GET")).status == 200
    assert fields(upstream.requests[0])["x-forwarded-for"] == "192.0.2.7"


async def test_a_sender_at_a_unix_socket_that_is_refused_reads_why(
    start: StartGateway, acme: Organization, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.sock"
    gateway = await start(listen={"socket": str(path)}, limits={"body_bytes_max": 10})
    client = gateway.keep(await connected_to(path))
    client.send(ask("/", acme.auth + b"Content-Length: 900000\r\n", "POST") + b"x" * 900_000)
    assert (await client.answer("POST")).status == 413


async def test_more_connections_than_there_may_be_are_closed_also_while_they_show_nothing(
    start: StartGateway, acme: Organization, until: Until
) -> None:
    gateway = await start(listen=LOCAL, limits={"connections_max": 2})
    silent = [await gateway.connect() for _ in range(2)]
    await until(lambda: len(gateway.state.connections) == 2)
    assert await (await gateway.connect()).gone() == b""
    silent[0].send(V1)
    assert (await silent[0].ask(ask("/", acme.auth))).status == 200, "it is one of two"

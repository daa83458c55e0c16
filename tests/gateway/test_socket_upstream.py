"""An upstream on a Unix socket is as any other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway import tunnels
from tests.gateway.request_heads import ask, fields
from tests.gateway.rig import STREAM_LIMIT, Organization, StartGateway, Until, Upstream
from tests.gateway.settings import read, refusal


@pytest.fixture
async def path(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "app.sock"
    server = await asyncio.start_unix_server(upstream.on_connection, path, limit=STREAM_LIMIT)
    yield path
    server.close()


async def test_requests_reach_a_unix_socket_and_its_connections_are_kept(
    start: StartGateway, acme: Organization, upstream: Upstream, path: Path
) -> None:
    gateway = await start(f"unix://{path}")
    client = await gateway.connect()
    for _ in range(3):
        assert (await client.ask(ask("/a", acme.auth))).body == b"ok"
    assert upstream.accepted == 1
    assert fields(upstream.requests[0])["host"] == "Api.Example.com:8080"
    body = b"x" * 300_000
    posted = await client.ask(ask("/", acme.auth + b"Content-Length: 300000\r\n", "POST") + body)
    assert (posted.status, upstream.requests[-1].endswith(body)) == (200, True)


@pytest.mark.parametrize(("host", "sent"), [("upstream", "localhost"), ("app.internal", "app.internal")])
async def test_what_a_socket_is_called(
    start: StartGateway, acme: Organization, upstream: Upstream, path: Path, host: str, sent: str
) -> None:
    gateway = await start(f"unix://{path}", upstreams={"api": {"host": host}})
    assert (await gateway.ask(ask("/", acme.auth))).status == 200
    assert fields(upstream.requests[0])["host"] == sent


async def test_a_socket_that_is_not_there_is_502_and_costs_nothing_and_is_used_when_it_is(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "late.sock"
    gateway = await start(f"unix://{path}")
    answer = await gateway.ask(ask("/", acme.auth))
    assert (answer.status, answer.problem["type"]) == (502, "urn:quotagate:problem:upstream-unreachable")
    assert str(path) not in answer.body.decode()
    assert await acme.settled("ts")
    server = await asyncio.start_unix_server(upstream.on_connection, path)
    assert (await gateway.ask(ask("/", acme.auth))).status == 200
    server.close()


async def test_a_tunnel_reaches_a_unix_socket(
    start: StartGateway, acme: Organization, upstream: Upstream, path: Path
) -> None:
    gateway = await start(f"unix://{path}", routes=tunnels.route())
    client, far, _ = await tunnels.opened(gateway, acme, upstream)
    far.send(b"\x81\x02hi")
    assert await client.exactly(4) == b"\x81\x02hi"
    await far.close()


async def test_probes_reach_a_unix_socket(start: StartGateway, upstream: Upstream, path: Path, until: Until) -> None:
    health = {"path": "/healthz", "interval_seconds": 0.02, "unhealthy_after": 1, "healthy_after": 1}
    gateway = await start(f"unix://{path}", upstreams={"api": {"health": health}})
    await until(lambda: len(upstream.requests) >= 2)
    assert upstream.requests[0].startswith(b"GET /healthz HTTP/1.1\r\n")
    assert gateway.worker.upstreams["api"].state == "available"
    upstream.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    await until(lambda: gateway.worker.upstreams["api"].state == "unavailable")


async def test_two_sockets_take_turns(
    start: StartGateway, acme: Organization, upstream: Upstream, issuer: Upstream, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b.sock"
    server = await asyncio.start_unix_server(issuer.on_connection, other)
    settings = {"url": None, "targets": [f"unix://{path}", f"unix://{other}"]}
    gateway = await start(upstreams={"api": settings})
    client = await gateway.connect()
    for _ in range(4):
        assert (await client.ask(ask("/", acme.auth))).status == 200
    assert (len(upstream.requests), len(issuer.requests)) == (2, 2)
    server.close()


@pytest.mark.parametrize(
    "url",
    [
        "unix:/a.sock",
        "unix://a.sock",
        "unix://host/a.sock",
        "unix:///",
        "unix:///a/",
        "unix:///a?b",
        "unix:///a%20b",
        "unix:///a\tb",
    ],
)
def test_what_names_no_socket_is_refused(url: str) -> None:
    assert refusal(upstreams={"sample": {"url": url}}).startswith("upstreams.sample.url: must be unix:///path")


def test_a_socket_fits_no_tls_no_other_scheme_and_no_longer_path() -> None:
    long = f"unix:///{'a' * 107}"
    assert "by at most 107 bytes" in refusal(upstreams={"sample": {"url": long}})
    assert read(upstreams={"sample": {"url": long[:-1]}}).upstreams["sample"].url == long[:-1]
    assert refusal(upstreams={"sample": {"url": "unix:///a", "tls": {}}}).startswith(
        "upstreams.sample.tls: is for https"
    )
    mixed = {"sample": {"targets": ["unix:///a", "http://b"]}}
    assert refusal(upstreams=mixed).startswith("upstreams.sample.targets[1]: must have the scheme of the others")

"""Upgraded connections: a tunnel after admission, how it opens, what holds it back, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings.route import RouteSettings
from tests.gateway.rig import (
    MakeOrganization,
    Organization,
    StartGateway,
    Until,
    Upstream,
    get,
)
from tests.gateway.tunnels import (
    ASKED,
    MESSAGE,
    SWITCHES,
    Accepting,
    closed_with,
    frame,
    held_by_slow_ends,
    opened,
    route,
)


async def test_an_allowed_upgrade_is_charged_once_and_carries_bytes_both_ways(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    gateway = await start(routes=route())
    client, far, head = await opened(gateway, acme, upstream)
    lines = head.lower().split(b"\r\n")
    assert b"upgrade: websocket" in lines
    assert b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in lines
    assert any(line.startswith(b'ratelimit: "api_calls";r=99') for line in lines)
    assert any(line.startswith(b"x-request-id: ") for line in lines)
    request = upstream.requests[0]
    assert request.count(b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n") == 1
    assert request.lower().count(b"upgrade: ") == 1
    assert b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" in request
    fragments = frame(b"a" * 70_000, fin=False) + frame(b"ping", 9) + frame(b"b" * 300, 0)
    client.send(fragments)
    assert await far.exactly(len(fragments)) == fragments
    far.send(frame(b"c" * 200_000, mask=None))
    assert await client.exactly(200_010) == frame(b"c" * 200_000, mask=None)
    assert await acme.used() == 1
    assert gateway.connections[0].in_flight == 1


async def test_bytes_behind_the_request_and_behind_the_101_keep_their_order(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    gateway = await start(routes=route())
    accepting = Accepting(upstream, behind=frame(b"early", mask=None))
    client = await gateway.connect()
    client.send(get("/", acme, ASKED) + frame(b"one"))
    client.send(frame(b"two"))
    await client.until(b"\r\n\r\n")
    far = await accepting.far()
    client.send(frame(b"three"))
    wanted = frame(b"one") + frame(b"two") + frame(b"three")
    assert await far.exactly(len(wanted)) == wanted
    assert await client.exactly(7) == frame(b"early", mask=None)


async def test_an_exhausted_organization_opens_no_tunnel(
    start: StartGateway, upstream: Upstream, organization: MakeOrganization
) -> None:
    gateway = await start(routes=route())
    poor = await organization("poor", 0)
    assert (await gateway.get("/", poor, ASKED)).status == 429
    assert not upstream.requests


async def test_another_answer_than_101_is_an_ordinary_answer(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    gateway = await start(routes=route())
    upstream.answer = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno"
    answer = await gateway.get("/", acme, ASKED)
    assert (answer.status, answer.body) == (426, b"no")


@pytest.mark.parametrize("protocol", [b"chat", b""])
async def test_a_101_to_another_protocol_is_a_502(
    start: StartGateway, upstream: Upstream, acme: Organization, protocol: bytes
) -> None:
    gateway = await start(routes=route())
    upstream.answer = b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol
    assert (await gateway.get("/", acme, ASKED)).status == 502


async def test_a_101_that_nobody_asked_for_is_a_502(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    gateway = await start(routes=route())
    upstream.answer = SWITCHES
    assert (await gateway.get("/", acme)).status == 502


async def test_a_slow_peer_holds_the_other_and_memory_stays_bounded(
    start: StartGateway, upstream: Upstream, acme: Organization, until: Until
) -> None:
    gateway = await start(routes=route())
    client, far, _ = await opened(gateway, acme, upstream)
    await held_by_slow_ends(gateway, client, far, until)


async def test_a_client_that_leaves_ends_the_upstream_and_the_other_way_round(
    start: StartGateway, upstream: Upstream, acme: Organization, until: Until
) -> None:
    gateway = await start(routes=route())
    client, far, _ = await opened(gateway, acme, upstream)
    client.writer.transport.abort()
    assert await far.gone() == b""
    client, far, _ = await opened(gateway, acme, upstream)
    far.send(frame(b"last", mask=None))
    far.writer.close()
    assert await client.gone() == frame(b"last", mask=None)
    await client.close()
    await until(lambda: not gateway.connections and gateway.pool._open == 0)


async def test_a_silent_tunnel_is_closed_by_its_idle_timeout(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    gateway = await start(routes=route(), timeouts={"tunnel_idle_seconds": 0.1})
    client, far, _ = await opened(gateway, acme, upstream)
    assert closed_with(1001, await client.gone())
    assert (await far.gone())[:1] == b"\x88"


async def test_a_draining_worker_closes_its_tunnels_as_going_away(
    start: StartGateway, upstream: Upstream, acme: Organization
) -> None:
    gateway = await start(routes=route())
    client, far, _ = await opened(gateway, acme, upstream)
    gateway.connections[0].shutdown()  # as at a reload: for as long as it likes
    client.send(frame(b"before"))
    assert await far.exactly(len(frame(b"before"))) == frame(b"before")
    gateway.worker.tunnels_end = gateway.worker.loop.time() + 0.2
    gateway.connections[0].shutdown()
    client.send(frame(b"still"))
    assert await far.exactly(len(frame(b"still"))) == frame(b"still")
    assert closed_with(1001, await client.gone())


async def test_a_tunnel_is_one_line_of_the_access_log_with_its_bytes(
    start: StartGateway, upstream: Upstream, acme: Organization, tmp_path: Path, until: Until
) -> None:
    log = tmp_path / "access.log"
    gateway = await start(routes=route(), access_log={"path": str(log)})
    client, far, head = await opened(gateway, acme, upstream)
    client.send(b"".join(frame(b"12345678") for _ in range(10)))
    await far.exactly(140)
    await client.close()
    await far.gone()
    await until(lambda: bool(log.read_text()))
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (line["status"], line["bytes_in"], line["bytes_out"]) == (101, 140, len(head))


@pytest.mark.parametrize(
    "wrong",
    [
        {"upgrades": ["h2c"]},
        {"upgrades": ["a b"]},
        {"tunnel": MESSAGE},
        {"upgrades": ["chat"], "tunnel": MESSAGE},
        {"upgrades": ["websocket"], "tunnel": MESSAGE, "exempt": True},
        {"upgrades": ["websocket"], "methods": ["POST"]},
    ],
)
def test_upgrades_that_cannot_be_served_are_errors_of_the_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RouteSettings.model_validate({"path": "/", "upstream": "api", **wrong})

"""What a reload and a stop do to what is under way: it has its time, and then its charge is settled by what came."""

import asyncio
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from quota.model import MeterLimit
from tests.gateway.rig import (
    PROCESS_SECONDS,
    Connect,
    MakeOrganization,
    Organization,
    Peer,
    Process,
    StartProcess,
    Until,
    Upstream,
    is_alive,
)

METERS = (MeterLimit("api_calls", 100), MeterLimit("tokens", 100_000))
TOKENS = {"reported": {"json": "usage.total_tokens"}, "estimate": 500, "max": 5000, "unreported": {"per": "event"}}
ROUTES = [
    {"path": "/", "upstream": "api"},
    {"path": "/sse", "upstream": "api", "meters": {"tokens": TOKENS}},
    {"path": "/drained", "upstream": "api", "meters": {"tokens": TOKENS}, "on_abort": {"drain_seconds": 300}},
    {"path": "/ws", "upstream": "api", "upgrades": ["websocket"]},
]
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AA==\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HELLO = b"\x82\x05hello"  # a frame of WebSocket


def event(text: str) -> bytes:
    data = b"data: %b\n\n" % text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def usage(units: int) -> bytes:
    return event(json.dumps({"usage": {"total_tokens": units}}))


def get(path: str, organization: Organization, lines: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (path.encode(), organization.auth, lines)


@pytest.fixture
async def acme(organization: MakeOrganization) -> Organization:
    return await organization("acme", 100, meters=METERS)


class Service:
    """An upstream that streams what the test says, and ends no answer by itself."""

    def __init__(self, upstream: Upstream) -> None:
        self.peers: dict[str, list[Any]] = {}
        upstream.serve = self._serve

    async def _serve(self, peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            path = request.split(b" ")[1].decode()
            self.peers.setdefault(path, []).append(peer)
            if path == "/ws":
                peer.send(SWITCHED)
                await asyncio.sleep(3600)
            elif path == "/":
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            else:
                peer.send(HEAD + event("first") if path != "/slow" else b"")
                await asyncio.sleep(3600)


async def streaming(connect: Connect, gateway: Process, acme: Organization, path: str = "/sse") -> Any:
    client = await connect(gateway.port)
    client.send(get(path, acme))
    await client.until(b"first\n\n\r\n")
    return client


async def tunnel(connect: Connect, gateway: Process, acme: Organization) -> Any:
    client = await connect(gateway.port)
    client.send(get("/ws", acme, UPGRADE))
    await client.until(b"\r\n\r\n")
    return client


async def reload(gateway: Process, until: Until) -> None:
    """Until the new worker alone takes connections."""
    read, retired = gateway.logged("settings read again"), gateway.logged("Shutting down")
    gateway.signal(signal.SIGHUP)
    await until(lambda: gateway.logged("settings read again") > read, PROCESS_SECONDS)
    workers = gateway.settings.get("workers", 1)
    await until(lambda: gateway.logged("Shutting down") >= retired + workers, PROCESS_SECONDS)


async def spent(acme: Organization, units: int) -> None:
    async with asyncio.timeout(60):
        while await acme.used("tokens") != units:  # noqa: ASYNC110 - the ledger calls nobody back
            await asyncio.sleep(0.02)


async def test_reloads_end_neither_streams_nor_tunnels_nor_what_is_read_on_for_clients_that_left(
    run: StartProcess, connect: Connect, acme: Organization, upstream: Upstream, until: Until
) -> None:
    service = Service(upstream)
    gateway = await run(routes=ROUTES, drain={"stop_seconds": 0.1})
    [before] = gateway.workers()
    stream, socket = await streaming(connect, gateway, acme), await tunnel(connect, gateway, acme)
    left = await streaming(connect, gateway, acme, "/drained")
    await left.close()
    await reload(gateway, until)
    second = await streaming(connect, gateway, acme)
    await reload(gateway, until)  # while the first worker goes on
    assert (await (await connect(gateway.port)).ask(get("/", acme))).status == 200, "by the newest worker"
    assert len(gateway.workers()) == 3
    service.peers["/ws"][0].send(HELLO)
    assert await socket.exactly(len(HELLO)) == HELLO
    for number, client in enumerate((stream, second)):
        service.peers["/sse"][number].send(event("more"))
        await client.until(b"more\n\n\r\n")
        service.peers["/sse"][number].send(usage(30 + number) + b"0\r\n\r\n")
        await client.until(b"0\r\n\r\n")
        answer = await client.ask(get("/-/health", acme))
        assert (answer.status, answer["connection"]) == (200, "close"), "its worker takes one further request"
        assert await client.rest() == b""
    service.peers["/drained"][0].send(usage(40) + b"0\r\n\r\n")
    await spent(acme, 30 + 31 + 40)
    assert is_alive(before), "for the tunnel"
    await socket.close()
    await until(lambda: len(gateway.workers()) == 1, PROCESS_SECONDS)
    assert not gateway.logged("did not end in time")


@pytest.mark.parametrize("end", ["reload", "stop", "stop while an old worker goes on"])
async def test_when_its_time_is_over_a_request_is_refused_a_tunnel_closed_a_stream_cut_and_each_is_settled(
    run: StartProcess, connect: Connect, acme: Organization, upstream: Upstream, until: Until, end: str
) -> None:
    service = Service(upstream)
    seconds = 3600 if end.startswith("stop") else 1
    gateway = await run(routes=ROUTES, drain={"stop_seconds": 0.5, "reload_seconds": seconds})
    [old] = gateway.workers()
    informed, uninformed = await streaming(connect, gateway, acme), await streaming(connect, gateway, acme)
    service.peers["/sse"][0].send(usage(33))
    service.peers["/sse"][1].send(event("a") + event("b"))
    await informed.until(b"}}\n\n\r\n")
    await uninformed.until(b"data: b\n\n\r\n")
    socket = await tunnel(connect, gateway, acme)
    waiting = await connect(gateway.port)
    waiting.send(get("/slow", acme))
    await until(lambda: "/slow" in service.peers)
    await acme.comes_to(2)
    await (reload(gateway, until) if end != "stop" else asyncio.sleep(0))
    if end.startswith("stop"):
        assert is_alive(old)
        gateway.signal(signal.SIGTERM)
    answer = await waiting.answer()
    assert (answer.status, answer["retry-after"], answer["connection"]) == (503, "1", "close")
    assert answer.problem["type"] == "urn:quotagate:problem:overloaded"
    close = await socket.gone()
    assert (close[:1], int.from_bytes(close[2:4], "big")) == (b"\x88", 1001)
    for stream in (informed, uninformed):
        assert await stream.gone() == b"", "cut: the last chunk never comes"
    await until(lambda: not is_alive(old), PROCESS_SECONDS)
    await spent(acme, 33 + 3)
    await acme.comes_to(1)  # the tunnel's: the request that was refused has its charge back
    assert not gateway.logged("did not end in time")
    if end.startswith("stop"):
        assert gateway.wait() == 0
    else:
        assert (await (await connect(gateway.port)).ask(get("/", acme))).status == 200


async def test_a_stop_waits_for_no_client_that_takes_nothing(
    run: StartProcess, connect: Connect, acme: Organization, upstream: Upstream, until: Until
) -> None:
    service = Service(upstream)
    gateway = await run(routes=ROUTES, drain={"stop_seconds": 0.1})
    client = await streaming(connect, gateway, acme)
    client.transport.pause_reading()
    peer = service.peers["/sse"][0]
    for _ in range(200):
        peer.send(event("x" * 100_000))
    await until(lambda: peer.writer.transport.get_write_buffer_size() > 0)
    gateway.signal(signal.SIGTERM)
    await until(lambda: gateway.process.poll() is not None, PROCESS_SECONDS)
    assert not gateway.logged("did not end in time")
    assert gateway.process.returncode == 0


async def test_of_too_many_reloads_the_workers_of_the_oldest_are_stopped(
    run: StartProcess, connect: Connect, acme: Organization, upstream: Upstream, until: Until
) -> None:
    service = Service(upstream)
    gateway = await run(workers=2, routes=ROUTES, drain={"stop_seconds": 0.2, "reloads_max": 1})
    first = await streaming(connect, gateway, acme)
    await reload(gateway, until)
    second = await streaming(connect, gateway, acme)
    await reload(gateway, until)
    assert await first.gone() == b""
    # The second reload's other worker has nothing under way, and may end at the same moment.
    await until(lambda: len(gateway.workers()) <= 4, PROCESS_SECONDS)
    service.peers["/sse"][1].send(event("more"))
    await second.until(b"more\n\n\r\n")
    gateway.signal(signal.SIGTERM)
    assert await second.gone() == b""


@pytest.mark.parametrize("settings", ["good", "refused"])
async def test_a_rotated_access_log_is_opened_again_by_old_workers_too(
    run: StartProcess,
    connect: Connect,
    acme: Organization,
    upstream: Upstream,
    until: Until,
    tmp_path: Path,
    settings: str,
) -> None:
    service, file = Service(upstream), tmp_path / "access.log"
    gateway = await run(routes=ROUTES, access_log={"path": str(file)})
    streams = [await streaming(connect, gateway, acme) for _ in range(10)]
    await reload(gateway, until)
    rotated = file.rename(tmp_path / "access.log.1")
    if settings == "good":
        await reload(gateway, until)
    else:
        gateway.write({**gateway.settings, "workers": "many"})
        gateway.signal(signal.SIGHUP)
        await until(lambda: gateway.logged("settings refused") == 1, PROCESS_SECONDS)

    def lines() -> list[int]:
        return [log.read_bytes().count(b"\n") if log.exists() else 0 for log in (rotated, file)]

    for number, stream in enumerate(streams):  # the old worker has its signal soon, and the first may be before it
        service.peers["/sse"][number].send(usage(30) + b"0\r\n\r\n")
        await stream.until(b"0\r\n\r\n")
        await until(partial(lambda ended: sum(lines()) == ended, number + 1))
    assert lines()[1] > 0


async def test_a_reload_may_change_how_long_old_workers_go_on(
    run: StartProcess, connect: Connect, acme: Organization, upstream: Upstream, until: Until
) -> None:
    Service(upstream)
    gateway = await run(routes=ROUTES, drain={"stop_seconds": 0.1, "reload_seconds": 3600})
    stream = await streaming(connect, gateway, acme)
    gateway.write({**gateway.settings, "drain": {"stop_seconds": 0.1, "reload_seconds": 0.2}})
    await reload(gateway, until)
    assert await stream.gone() == b"", "by the settings that were read"

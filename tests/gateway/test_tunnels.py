"""Upgraded connections: a tunnel after admission, and what it costs. Frames are written by hand (RFC 6455, 5.2)."""

import asyncio
import json
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.exchange.tunnel import Side
from gateway.http.websocket import BadFrame, Frames, close_frame
from gateway.settings.root import RouteSettings
from quota.model import MeterLimit
from tests.gateway.rig import (
    PROCESS_SECONDS,
    Client,
    Connect,
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
    get,
    is_alive,
)

ASKED = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n"
SWITCHES = SWITCHED % b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
MESSAGE = {"charge": {"messages": 1}, "per": "message"}
MEBIBYTE = {"charge": {"mebibytes": 1}, "per": "mebibyte"}


def frame(payload: bytes, opcode: int = 1, fin: bool = True, mask: bytes | None = b"abcd") -> bytes:
    """Masked, as a client sends it, or not."""
    size = len(payload)
    masked = 0x80 if mask else 0
    head = bytes((opcode | (0x80 if fin else 0),))
    if size < 126:
        head += bytes((masked | size,))
    elif size < 65_536:
        head += bytes((masked | 126,)) + size.to_bytes(2)
    else:
        head += bytes((masked | 127,)) + size.to_bytes(8)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def closed_with(code: int, data: bytes) -> bool:
    return data[:1] == b"\x88" and int.from_bytes(data[2:4]) == code


def route(**more: Any) -> list[dict[str, Any]]:
    return [{"path": "/", "upstream": "api", "upgrades": ["websocket"], **more}]


class Accepting:
    """Makes the upstream switch, and gives the tunnel's far end."""

    def __init__(self, upstream: Upstream, behind: bytes = b"", switches: bytes = SWITCHES) -> None:
        self.ends: asyncio.Queue[Peer] = asyncio.Queue()
        upstream.script = self._switch
        self._answer = switches + behind

    async def _switch(self, peer: Peer, request: bytes) -> None:
        peer.send(self._answer)
        self.ends.put_nowait(peer)
        await asyncio.Event().wait()  # the test reads and writes from here on

    async def far(self) -> Peer:
        async with asyncio.timeout(30):
            return await self.ends.get()


async def opened(gateway: Gateway, org: Organization, upstream: Upstream) -> tuple[Client, Peer, bytes]:
    accepting = Accepting(upstream)
    client = await gateway.connect()
    client.send(get("/", org, ASKED))
    head = await client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    return client, await accepting.far(), head


def held(side: Side) -> bool:
    return side.writing_paused and not side.peer._transport.is_reading()


async def held_by_slow_ends(gateway: Gateway, client: Client, far: Peer, until: Until) -> None:
    """Of either end that does not read, the other is held, and gets all through when it reads again."""
    tunnel = gateway.connections[0]._tunnel
    assert tunnel is not None
    # More than the buffers of the kernel and the gateway hold together, so a peer that does not read is noticed.
    down, up = (64 * frame(b"x" * (256 << 10), mask=mask) for mask in (None, b"abcd"))
    for sender, data, receiver, side in ((client, up, far, tunnel._up), (far, down, client, tunnel._down)):
        receiver.transport.pause_reading()
        receiver.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sender.send(data)
        await until(partial(held, side))
        assert side._transport.get_write_buffer_size() < 1 << 20
    for receiver in (far, client):
        receiver.transport.resume_reading()
    assert list(await asyncio.gather(far.exactly(len(up)), client.exactly(len(down)))) == [up, down]


@pytest.fixture
async def metered(organization: MakeOrganization) -> Organization:
    """5 messages, 3 mebibytes."""
    meters = (MeterLimit("api_calls", 100), MeterLimit("messages", 5), MeterLimit("mebibytes", 3))
    return await organization("acme", None, meters=meters)


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


@pytest.mark.parametrize("at_once", [True, False])
async def test_of_three_times_the_messages_exactly_the_limit_reaches_the_upstream(
    start: StartGateway, upstream: Upstream, metered: Organization, at_once: bool
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    client, far, _ = await opened(gateway, metered, upstream)
    messages = [frame(b"message %d" % n, fin=False) + frame(b"", 9) + frame(b"more", 0) for n in range(15)]
    if at_once:
        client.send(b"".join(messages) + frame(b"unfinished")[:9])
    else:
        for message in messages:
            client.send(message)
            await asyncio.sleep(0.005)
    reached = await far.gone()
    wanted = b"".join(messages[:5])
    assert reached[: len(wanted)] == wanted
    assert reached[len(wanted)] == 0x88  # a masked close frame, and nothing else
    assert len(reached) == len(wanted) + 6 + (reached[len(wanted) + 1] & 0x7F)
    assert closed_with(1008, await client.gone())
    assert await metered.used("messages") == 5


async def test_an_upstream_that_is_told_to_close_may_say_its_last_words_and_is_not_reset(
    start: StartGateway, upstream: Upstream, metered: Organization, until: Until
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    client, far, _ = await opened(gateway, metered, upstream)
    client.send(6 * frame(b"m"))
    assert closed_with(1008, await client.gone())
    reached = await far.rest()
    assert reached.startswith(5 * frame(b"m") + b"\x88")
    for _ in range(20):
        await far.send_all(frame(b"x" * 10_000, mask=None))
    await far.send_all(close_frame(1008, "", masked=False))
    far.writer.close()
    await until(lambda: gateway.pool._open == 0)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 8, 13, 50, 10_000])
async def test_units_are_exact_whatever_a_read_holds(
    start: StartGateway, upstream: Upstream, metered: Organization, step: int
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    client, far, _ = await opened(gateway, metered, upstream)
    stream = (
        frame(b"before", 9)
        + frame(b"", 1)
        + frame(b"one", 2, fin=False)
        + frame(b"between", 9)
        + frame(b"", 0, fin=False)
        + frame(b"more", 0)
        + frame(b"a pong", 10)
        + frame(b"x" * 300)
        + frame(b"\x03\xe8bye", 8)
    )
    for at in range(0, len(stream), step):
        await client.send_all(stream[at : at + step])
        await asyncio.sleep(0)
    assert await far.exactly(len(stream)) == stream
    assert await metered.used("messages") == 3


async def test_in_shadow_mode_messages_beyond_the_limit_pass(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE, shadow=True))
    client, far, _ = await opened(gateway, metered, upstream)
    messages = b"".join(frame(b"%03d" % n) for n in range(15))
    client.send(messages)
    assert await far.exactly(len(messages)) == messages
    assert await metered.used("messages") == 5
    gateway.worker.link._wire._transport.abort()  # type: ignore[union-attr]  # there is one while it is open
    client.send(messages)
    assert await far.exactly(len(messages)) == messages


async def test_each_begun_mebibyte_of_both_directions_is_charged(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(tunnel=MEBIBYTE))
    client, far, _ = await opened(gateway, metered, upstream)
    first = frame(b"x" * 600_000)
    client.send(first)
    assert await far.exactly(len(first)) == first
    assert await metered.used("mebibytes") == 1
    back = frame(b"y" * 600_000, mask=None)
    far.send(back)
    assert await client.exactly(len(back)) == back
    assert await metered.used("mebibytes") == 2
    far.send(b"".join(frame(b"z" * 50_000, mask=None) for _ in range(80)))
    rest = await client.gone()
    tail = rest[len(rest) // 50_004 * 50_004 :]  # a frame that was cut, or a Close between two
    assert tail.strip(b"z") in (b"", b"\x81\x7e\xc3\x50") or closed_with(1008, tail)
    assert len(first) + len(back) + len(rest) <= (3 << 20) + 200
    assert await metered.used("mebibytes") == 3


async def test_mebibytes_are_charged_in_a_protocol_that_is_no_websocket_and_it_is_cut_when_they_are_used_up(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(upgrades=["chat"], tunnel=MEBIBYTE))
    accepting = Accepting(upstream, switches=SWITCHES.replace(b"websocket", b"chat"))
    client = await gateway.connect()
    client.send(get("/", metered, b"Connection: upgrade\r\nUpgrade: chat\r\n"))
    assert b"\r\nUpgrade: chat\r\n" in await client.until(b"\r\n\r\n")
    far = await accepting.far()
    assert await metered.used("mebibytes") == 0
    there, back = bytes(range(256)) * 4000, b"\x88\x02" * (1 << 19)  # 1,024,000 bytes, and a mebibyte of no frames
    client.send(there)
    assert await far.exactly(len(there)) == there
    assert await metered.used("mebibytes") == 1
    far.send(back)
    assert await client.exactly(len(back)) == back
    assert await metered.used("mebibytes") == 2
    client.send(there)
    assert await far.exactly(len(there)) == there
    assert await metered.used("mebibytes") == 3
    client.send(there)
    rest = await far.gone()
    assert there.startswith(rest)
    assert len(there) + len(back) + len(there) + len(rest) <= 3 << 20
    assert await client.gone() == b""
    assert await metered.used("mebibytes") == 3


async def test_a_reload_keeps_an_open_tunnel_which_goes_on_to_pay(
    run: StartProcess, connect: Connect, upstream: Upstream, metered: Organization, until: Until
) -> None:
    gateway = await run(routes=route(tunnel=MESSAGE))
    accepting = Accepting(upstream)
    client = await connect(gateway.port)
    client.send(get("/", metered, ASKED))
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    far = await accepting.far()
    (before,) = gateway.workers()
    gateway.signal(signal.SIGHUP)
    await until(lambda: gateway.logged("settings read again") == 1, PROCESS_SECONDS)
    await until(lambda: gateway.logged("Shutting down") == 1, PROCESS_SECONDS)
    await asyncio.sleep(1.2)  # two walks over all deadlines: it has none yet
    for _ in range(2):
        client.send(frame(b"still"))
        assert await far.exactly(11) == frame(b"still")
        far.send(frame(b"here", mask=None))
        assert await client.exactly(6) == frame(b"here", mask=None)
    assert await metered.used("messages") == 2
    assert is_alive(before)
    client.send(6 * frame(b"still"))
    assert (await far.gone()).startswith(3 * frame(b"still") + b"\x88")
    assert closed_with(1008, await client.gone())
    await until(lambda: not is_alive(before), PROCESS_SECONDS)


async def test_a_ledger_that_is_away_closes_with_try_again_later_and_passes_nothing(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    client, far, _ = await opened(gateway, metered, upstream)
    gateway.worker.link._wire._transport.abort()  # type: ignore[union-attr]  # there is one while it is open
    client.send(frame(b"lost"))
    assert closed_with(1013, await client.gone())
    assert (await far.gone())[:1] == b"\x88"
    assert await metered.used("messages") == 0


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


async def test_a_metered_tunnel_needs_one_permit_however_often_it_pays(
    start: StartGateway, upstream: Upstream, organization: MakeOrganization
) -> None:
    meters = (MeterLimit("api_calls", 100), MeterLimit("messages", 5))
    one = await organization("one", None, meters=meters, concurrent_max=1)
    gateway = await start(routes=route(tunnel=MESSAGE))
    client, far, _ = await opened(gateway, one, upstream)
    for _ in range(3):
        client.send(frame(b"m"))
        assert await far.exactly(7) == frame(b"m")
    assert (await gateway.get("/", one)).status == 429
    assert len(gateway.worker.permits.held) == 1


def test_messages_are_found_wherever_reads_are_cut() -> None:
    sizes = (0, 125, 126, 65_535, 65_536)
    data = b"".join(
        frame(b"x" * n, fin=False, mask=b"\0\0\0\0") + frame(b"p", 9) + frame(b"", 0) + frame(b"y", 2) for n in sizes
    )
    whole = Frames(masked=True).messages(data)
    assert len(whole) == 2 * len(sizes)
    for step in (1, 2, 3, 7, 1000):
        frames, begin = Frames(masked=True), []
        for at in range(0, len(data), step):
            begin += [at + found for found in frames.messages(data[at : at + step])]
        assert begin == whole
        assert frames.between


@pytest.mark.parametrize("data", [frame(b"a", mask=None), frame(b"a" * 126, 9), frame(b"a", 9, fin=False)])
def test_what_is_no_frame_of_a_client_is_told(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Frames(masked=True).messages(data)


def test_a_masked_close_frame_is_one_of_a_client() -> None:
    frames = Frames(masked=True)
    assert frames.messages(close_frame(1008, "no more", masked=True)) == []
    assert frames.between


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

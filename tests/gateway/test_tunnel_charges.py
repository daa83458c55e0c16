"""What a tunnel costs: each message or each begun mebibyte is charged before it passes, and the limit is exact."""

import asyncio
import signal

import pytest

from gateway.http.websocket import close_frame
from quota.access import Mark, MarkKind
from quota.model import MeterLimit
from tests.gateway.rig import (
    PROCESS_SECONDS,
    Connect,
    MakeOrganization,
    Organization,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
    get,
    is_alive,
)
from tests.gateway.rig.keys import revoke
from tests.gateway.tunnels import ASKED, MEBIBYTE, MESSAGE, SWITCHES, Accepting, closed_with, frame, opened, route

METERS = (MeterLimit("api_calls", 100), MeterLimit("messages", 5), MeterLimit("mebibytes", 3))


@pytest.fixture
async def metered(organization: MakeOrganization) -> Organization:
    """5 messages, 3 mebibytes."""
    return await organization("acme", None, meters=METERS)


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


async def test_one_take_pays_for_all_messages_of_one_read(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    client, far, _ = await opened(gateway, metered, upstream)
    messages = 4 * frame(b"m")
    client.send(messages)
    assert await far.exactly(len(messages)) == messages
    assert await metered.used("messages") == 4
    assert await metered.events() == ["t", "t"], "the opening, and four messages"


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


@pytest.mark.parametrize("published", [False, True], ids=["route", "organization"])
async def test_in_shadow_mode_messages_beyond_the_limit_pass(
    start: StartGateway, upstream: Upstream, metered: Organization, published: bool
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE, shadow=not published))
    await metered.publish(None, meters=METERS, shadow=published)
    client, far, _ = await opened(gateway, metered, upstream)
    messages = b"".join(frame(b"%03d" % n) for n in range(15))
    client.send(messages)
    assert await far.exactly(len(messages)) == messages
    assert await metered.used("messages") == 5
    gateway.worker.link.connection._transport.abort()  # type: ignore[union-attr]  # there is one while it is open
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
    await asyncio.sleep(1.2)  # time itself: the worker sweeps its deadlines twice a second, and the tunnel has none yet
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
    gateway.worker.link.connection._transport.abort()  # type: ignore[union-attr]  # there is one while it is open
    client.send(frame(b"lost"))
    assert closed_with(1013, await client.gone())
    assert (await far.gone())[:1] == b"\x88"
    assert await metered.used("messages") == 0


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


async def test_an_organizations_shadow_mode_keeps_no_tunnel_open_for_who_is_revoked(
    start: StartGateway, upstream: Upstream, metered: Organization
) -> None:
    gateway = await start(routes=route(tunnel=MESSAGE))
    await metered.publish(None, meters=METERS, shadow=True)
    client, far, _ = await opened(gateway, metered, upstream)
    client.send(frame(b"one"))
    assert await far.exactly(len(frame(b"one"))) == frame(b"one")
    await revoke(metered, Mark(MarkKind.ORGANIZATION))
    client.send(frame(b"two"))
    assert closed_with(1008, await client.gone())

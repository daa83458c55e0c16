"""Live tiles: as new as the ledger, for whoever may see them, as long as that is so."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from control import incidents
from control.access.lifetimes import Seen
from control.access.permissions import AdminRole
from control.access.signin.sessions import SignedIn
from control.app import opened
from control.attention.feed import VIEWERS_MAX, Feed
from control.db import StoreUnavailable
from control.http.context import Context
from control.journal import Author
from control.settings.control_plane import Settings
from devstack import postgres
from devstack.ports import free_port
from tests.control.attention.live import ADMIN, PATIENCE_SECONDS, Viewer, serving, signed_in
from tests.control.plane import MovedClock
from tests.control.running import started
from tests.faults.address import Address

SEEN = Seen("203.0.113.1", "Mozilla/5.0")
AUTHOR = Author("test", "test")


@pytest.fixture(autouse=True)
def nothing_of_the_test_before(postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, "TRUNCATE incident, session CASCADE")


@pytest.fixture
async def port(context: Context) -> AsyncIterator[int]:
    async with serving(context) as bound:
        yield bound


async def session(context: Context, role: AdminRole = AdminRole.VIEWER) -> str:
    who = SignedIn("example:vera", "example", None, "Vera", frozenset({role}))
    return await context.signin.sessions.begin(who, SEEN, None, "test")


async def drifted(context: Context, org: str) -> None:
    async with context.db.transaction() as connection:
        await incidents.open(connection, context.clock(), "drift", org, org, {"units": 5})


async def until_there_are(context: Context, viewers: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while context.tiles.viewers != viewers:
        assert time.monotonic() < deadline, context.tiles.viewers
        await asyncio.sleep(0.01)


async def test_every_viewer_is_shown_what_changed_and_one_reader_reads_for_all(context: Context, port: int) -> None:
    secret = await session(context)
    viewers = [await Viewer.open(port, ADMIN) for _ in range(10)]
    viewers += [await Viewer.open(port, signed_in(secret)) for _ in range(10)]
    for viewer in viewers:
        assert viewer.status == 200
        assert (await viewer.until("tiles"))["tiles"]["drift"]["number"] == 0
    await drifted(context, "acme")
    looks = [await viewer.showing("drift", 1) for viewer in viewers]
    assert len({look["position"]["snapshot"] for look in looks}) <= 3
    assert context.tiles.viewers == len(viewers)
    for viewer in viewers:
        viewer.leave()
    await until_there_are(context, 0)


async def test_a_stream_ends_when_its_session_does_and_says_so(context: Context, port: int) -> None:
    secret, other = await session(context), await session(context)
    ended, going = await Viewer.open(port, signed_in(secret)), await Viewer.open(port, signed_in(other))
    await ended.until("tiles")
    found = await context.signin.sessions.find(secret)
    assert found is not None
    await context.signin.sessions.end(found.row.id, AUTHOR)
    assert "Sign in again" in (await ended.until("over"))["detail"]
    assert await ended.next() is None
    await going.until("tiles")
    assert (await Viewer.open(port, signed_in(secret))).status == 401


async def test_a_stream_ends_when_its_service_token_is_revoked(context: Context, port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=ADMIN) as admin:
        made = (await admin.post("/v1/service-tokens", json={"name": "wall", "permissions": ["incidents:read"]})).json()
        viewer = await Viewer.open(port, {"authorization": f"Bearer {made['token']}"})
        await viewer.until("tiles")
        assert (await admin.delete(f"/v1/service-tokens/{made['id']}")).status_code < 300
    await viewer.until("over")
    assert await viewer.next() is None


async def test_an_open_stream_is_no_use_of_its_session_which_ends_by_idleness(
    context: Context, port: int, clock: MovedClock
) -> None:
    secret = await session(context)
    viewer = await Viewer.open(port, signed_in(secret))
    await viewer.until("tiles")
    clock.move(minutes=30)
    for _ in range(10):
        await viewer.until("tiles")
    clock.move(minutes=31)
    await viewer.until("over")


async def test_a_viewer_whose_right_nobody_can_confirm_is_shown_nothing_more(context: Context) -> None:
    reads = 0

    async def read() -> object:
        nonlocal reads
        reads += 1
        return {"secret": reads}

    async def nobody_can_tell() -> bool:
        raise StoreUnavailable("away")

    feed = Feed(read, look_seconds=0.01, check_seconds=0.01, confirmed_seconds=0.05)
    events = feed.follow(b"one", nobody_can_tell)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in events:
            if event.startswith(b"event: away"):
                break
        for _ in range(5):
            assert b"secret" not in await anext(events)
    feed.stop()
    assert [event async for event in events] == []


async def test_while_the_database_is_away_viewers_are_told_and_afterwards_are_shown_numbers_again(
    settings: Settings, clock: MovedClock
) -> None:
    dsn = settings.postgres.dsn.get_secret_value()
    port = int(dsn.rpartition("/")[0].rpartition(":")[2])
    address = Address(port)
    relayed = settings.postgres.model_copy(update={"dsn": SecretStr(dsn.replace(f":{port}/", f":{address.port}/"))})
    try:
        async with (
            opened(settings.model_copy(update={"postgres": relayed}), clock) as context,
            serving(context) as bound,
        ):
            viewer = await Viewer.open(bound, ADMIN)
            await viewer.until("tiles")
            address.lead(free_port())
            assert "database" in (await viewer.until("away"))["detail"]
            address.lead(port)
            await viewer.until("tiles")
    finally:
        address.close()


async def test_beyond_the_most_viewers_another_one_is_told_to_come_back_later(context: Context, port: int) -> None:
    viewers = [await Viewer.open(port, ADMIN) for _ in range(VIEWERS_MAX)]
    await until_there_are(context, VIEWERS_MAX)
    assert (await Viewer.open(port, ADMIN)).status == 503
    for viewer in viewers:
        viewer.leave()


def test_a_control_plane_with_viewers_stops_at_once(settings: Settings, tmp_path: Path) -> None:
    with started(settings, tmp_path / "control.log") as (process, client):
        with client.stream("GET", "/v1/incidents/tiles/stream") as stream:
            lines = stream.iter_lines()
            while not next(lines).startswith("event: tiles"):
                pass
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = list(lines)
            assert process.wait(PATIENCE_SECONDS) == 0
        assert "event: over" not in rest, "nobody lost a right: browsers come back by themselves"
        assert "graceful shutdown exceeded" not in (tmp_path / "control.log").read_text()
        assert time.monotonic() - asked < PATIENCE_SECONDS

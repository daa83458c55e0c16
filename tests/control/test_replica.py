"""The promise: what may be a little old is read at a replica that is near enough, and at the primary otherwise; nobody
who asks notices that a replica is away, behind, promoted or another's."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from httpx import AsyncClient
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

from control.access.lifetimes import Seen
from control.access.permissions import AdminRole
from control.access.signin.sessions import SignedIn
from control.db import Database
from control.http.context import Context
from control.http.rereading import rereading
from control.http.signed_in import SESSION_COOKIE
from control.replica import Positions, Reading, ReplicaFailed
from control.settings.control_plane import Replica, Settings
from devstack import postgres
from tests.control.plane import Entitled, MovedClock
from tests.control.standby import Standby, streaming
from tests.control.writers import until
from tests.quotagate.diagnosis.examining import examined

CONTROL = Path(__file__).parents[2] / "control"
SEEN = Seen("203.0.113.77", "Mozilla/5.0 (Person; Own) Chrome/1.0")
READ_AT_A_REPLICA = (
    "/v1/analytics/mrr",
    "/v1/analytics/movements",
    "/v1/analytics/movements?format=csv",
    "/v1/analytics/retention",
    "/v1/analytics/cohorts",
    "/v1/analytics/trials",
    "/v1/analytics/subscriptions",
    "/v1/analytics/subscriptions?figure=movements&format=parquet",
    "/v1/analytics/quota-check",
    "/v1/organizations",
    "/v1/organizations?q=org-&sort=-created&near_quota=false",
    "/v1/journal",
    "/v1/journal?q=organization&action=organization.created",
)


@pytest.fixture(scope="module")
def standby(tmp_path_factory: pytest.TempPathFactory, postgres_server: str, postgres_dsn: str) -> Iterator[Standby]:
    assert postgres_dsn, "which is there before the copy"
    with streaming(tmp_path_factory.mktemp("standby"), postgres_server) as started:
        yield started


@pytest.fixture
def settings(settings: Settings, standby: Standby) -> Settings:
    # The servers of the tests do not wait for the disk: what they have committed may not be in a position yet.
    own = f"{settings.postgres.dsn.get_secret_value()}?synchronous_commit=on"
    update = {"dsn": SecretStr(own), "replica": Replica(dsn=SecretStr(standby.dsn(own)), lag_seconds_max=5)}
    return settings.model_copy(update={"postgres": settings.postgres.model_copy(update=update)})


@asynccontextmanager
async def replica_of(settings: Settings) -> AsyncIterator[Database]:
    assert settings.postgres.replica is not None
    async with Database.open(settings.postgres.replica.dsn.get_secret_value(), 4) as replica:
        yield replica


@pytest.fixture
async def replica(settings: Settings) -> AsyncIterator[Database]:
    async with replica_of(settings) as opened:
        yield opened


async def near(reading: Reading, replica: Database) -> None:
    """Until it has all that the primary has now."""
    called = time.monotonic()
    async with asyncio.timeout(30):
        while True:
            await reading.look(replica)
            if reading.lag_seconds is not None and reading.lag_seconds <= time.monotonic() - called:
                return
            await asyncio.sleep(0.02)


@contextmanager
def hanging(standby: Standby) -> Iterator[None]:
    """All of its processes are stopped."""
    server = standby.server.child.process.pid
    processes = [server, *map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("path", READ_AT_A_REPLICA)
async def test_what_may_be_old_is_read_at_the_replica_and_says_of_when_it_is(
    path: str, context: Context, admin: AsyncClient, entitled: Entitled, replica: Database
) -> None:
    await entitled("starter")
    await context.directory.round()
    before = await admin.get(path)
    await near(context.reading, replica)
    answer = await admin.get(path)
    assert (before.status_code, answer.status_code) == (200, 200), answer.text
    assert "Quotagate-As-Of" not in before.headers
    assert datetime.fromisoformat(answer.headers["Quotagate-As-Of"]).timestamp() <= context.clock()
    assert context.reading.reads["replica"] > 0
    assert answer.content == before.content or "parquet" in path


async def test_a_replica_that_is_behind_the_bound_is_not_read_until_it_has_caught_up(
    context: Context, settings: Settings, entitled: Entitled, replica: Database, standby: Standby
) -> None:
    seconds = MovedClock()
    reading = Reading(context.db, settings.postgres.replica, 30, context.clock, seconds)
    await near(reading, replica)
    standby.run("SELECT pg_wal_replay_pause()")
    await until(lambda: standby.run("SELECT pg_get_wal_replay_pause_state()") == "paused")
    try:
        await entitled("starter")
        seconds.move(seconds=4)
        await reading.look(replica)
        assert (reading.is_near, reading.lag_seconds) == (True, 4)
        seconds.move(seconds=1.5)
        await reading.look(replica)
        assert (reading.is_near, reading.lag_seconds) == (False, 5.5)
        async with reading.connection() as connection:
            assert await connection.fetchval("SELECT pg_is_in_recovery()") is False
    finally:
        standby.run("SELECT pg_wal_replay_resume()")
    await near(reading, replica)
    async with reading.connection() as connection:
        assert await connection.fetchval("SELECT pg_is_in_recovery()") is True


async def test_a_replica_of_which_nothing_is_heard_is_not_read_beyond_the_bound(
    context: Context, settings: Settings, replica: Database
) -> None:
    seconds = MovedClock()
    reading = Reading(context.db, settings.postgres.replica, 30, context.clock, seconds)
    await near(reading, replica)
    seconds.move(seconds=5.1)
    assert not reading.is_near


async def test_a_replica_of_an_idle_primary_is_near_also_behind_a_new_segment(
    context: Context, replica: Database, postgres_server: str
) -> None:
    for _ in range(2):
        postgres.execute(postgres_server, "SELECT pg_switch_wal()")
        await near(context.reading, replica)


async def test_a_replica_that_fails_in_the_middle_of_a_read_is_left_and_the_read_is_done_by_the_primary(
    context: Context, admin: AsyncClient, entitled: Entitled, settings: Settings
) -> None:
    org = await entitled("starter")
    async with replica_of(settings) as replica:
        await near(context.reading, replica)
        with pytest.raises(ReplicaFailed):
            async with context.reading.connection() as connection:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert not context.reading.is_near
        await near(context.reading, replica)
    assert context.reading.is_near, "nobody has looked since it went away"
    answer = await admin.get("/v1/journal", params={"org": org})
    assert answer.status_code == 200
    assert {entry["org"] for entry in answer.json()["entries"]} == {org}
    assert "Quotagate-As-Of" not in answer.headers
    assert not context.reading.is_near


async def test_a_read_that_the_replica_failed_is_done_by_the_primary_also_where_the_replica_is_back_at_once(
    context: Context, replica: Database
) -> None:
    async def handler(_: Request) -> Response:
        await near(context.reading, replica)
        async with context.reading.connection() as connection:
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return Response()

    answer = await rereading(handler)(Request({"type": "http", "method": "GET"}))
    assert "Quotagate-As-Of" not in answer.headers
    assert context.reading.is_near


async def test_a_primary_that_goes_away_during_a_look_is_no_fault_of_the_replica(
    context: Context, settings: Settings, replica: Database
) -> None:
    async with Database.open(settings.postgres.dsn.get_secret_value(), 4) as primary:
        reading = Reading(primary, settings.postgres.replica, 30, context.clock)
        await near(reading, replica)
        reading._positions = Positions()  # so that it is asked once more whether the replica is ahead of it
        await primary._pool.close()
        assert not await reading._is_ahead(1)
    assert reading.is_near


async def test_a_control_plane_goes_on_while_its_replica_is_away_hangs_and_comes_back(
    context: Context, admin: AsyncClient, standby: Standby
) -> None:
    async with context.background.running():
        await until(lambda: context.reading.is_near)
        with hanging(standby):
            await until(lambda: not context.reading.is_near)
            assert (await admin.get("/v1/organizations")).status_code == 200
        await until(lambda: context.reading.is_near)
        assert (await admin.get("/v1/organizations")).headers["Quotagate-As-Of"]
        lines = (await admin.get("/-/metrics")).text.splitlines()
        assert "quotagate_control_replica_near 1.0" in lines
        assert any(line.startswith("quotagate_control_replica_lag_seconds ") for line in lines)
        assert any(line.startswith('quotagate_control_replica_reads_total{store="replica"} ') for line in lines)


async def test_a_page_says_of_when_it_is(
    context: Context, nobody: AsyncClient, replica: Database, clock: MovedClock
) -> None:
    person = SignedIn("sso:ada", "sso", "ada@example.com", None, frozenset({AdminRole.ADMIN}))
    session = await context.signin.sessions.begin(person, SEEN, None, "test")
    headers = {"cookie": f"{SESSION_COOKIE}={session}", "sec-fetch-site": "same-origin"}
    for path in ("/console/analytics", "/console/organizations", "/console/journal"):
        await near(context.reading, replica)
        clock.move(seconds=40)  # of the page; the replica is as old as it is
        page = await nobody.get(path, headers=headers)
        assert page.status_code == 200, page.text
        said = re.search(r'As of <time datetime="([^"]+)"', page.text)
        assert said is not None
        assert datetime.fromisoformat(said[1]).timestamp() == pytest.approx(clock() - 40, abs=30)
        assert page.headers["Quotagate-As-Of"]


async def test_what_is_no_standby_of_the_primary_is_never_read(
    tmp_path: Path, context: Context, postgres_dsn: str
) -> None:
    with capture_logs() as logs:
        async with Database.open(postgres_dsn, 2) as itself:
            await context.reading.look(itself)
        with postgres.running(tmp_path) as other:
            async with Database.open(other, 2) as another:
                await context.reading.look(another)
    assert not context.reading.is_near
    assert [line["reason"] for line in logs] == [
        "it is no standby, or no longer one",
        "it is a replica of another database",
    ]


async def test_a_replica_that_was_promoted_is_left(
    tmp_path: Path, context: Context, settings: Settings, postgres_server: str
) -> None:
    own = settings.postgres.dsn.get_secret_value()
    with streaming(tmp_path, postgres_server) as promoted:
        async with Database.open(promoted.dsn(own), 2) as replica:
            await near(context.reading, replica)
            assert context.reading.is_near
            promoted.run("SELECT pg_promote()")
            await context.reading.look(replica)
            assert not context.reading.is_near


def test_the_doctor_says_whether_a_replica_follows_the_primary(
    tmp_path: Path, application_dsn: str, standby: Standby
) -> None:
    def found(replica: str) -> tuple[str, str]:
        content = {
            "postgres": {"dsn": application_dsn, "replica": {"dsn": replica}},
            "redis": {"url": "redis://127.0.0.1:1"},
            "admin_token": "of-the-tests-and-long-enough",
        }
        file = tmp_path / "control.yaml"
        file.write_text(json.dumps(content))
        finding = examined("--postgres", application_dsn, "--control-config", str(file))["postgres replica"]
        return finding["level"], finding["told"]

    assert found(standby.dsn(application_dsn)) == ("good", "it follows the primary")
    assert found(application_dsn) == ("wrong", "it is no standby, or no longer one")
    level, told = found("postgresql://127.0.0.1:1/x")
    assert (level, told.startswith("Postgres: ")) == ("wrong", True)


def test_what_is_replayed_up_to_a_position_is_as_old_as_the_last_moment_before_it() -> None:
    positions = Positions()
    for position, second in ((100, 1), (100, 2), (150, 3), (150, 4), (220, 5)):
        positions.add(position, second, second + 1000)
    assert [positions.reached(each) for each in (99, 100, 149, 150, 219, 220, 500)] == [
        None,
        (2, 1002),
        (2, 1002),
        (4, 1004),
        (4, 1004),
        (5, 1005),
        (5, 1005),
    ]


def test_only_what_is_merely_shown_is_read_at_a_replica() -> None:
    """Each of these was looked at: nothing there decides, previews or acts."""
    readers = {
        file.relative_to(CONTROL).as_posix()
        for file in CONTROL.rglob("*.py")
        if re.search(r"\.reading\.(connection|snapshot|planned_anew)|\bctx\.reading[,)]", file.read_text())
    }
    assert readers == {
        "api/analytics.py",
        "api/audit.py",
        "api/organizations.py",
        "api/quota_check.py",
        "console/analytics/asked.py",
    }

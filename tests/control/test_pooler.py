"""The promise: behind a pooler that pools transactions, with fewer connections than it has itself, a control plane does
all that it does, and where it cannot, it says so by name and does not start."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from httpx import AsyncClient
from pydantic import SecretStr
from redis.asyncio import Redis

from control import schema
from control.app import opened
from control.audit.verify import run as verify
from control.db import Database, StoreUnavailable
from control.http.context import Context
from control.journal import Author
from control.moments import moment
from control.settings.control_plane import Settings
from control.usage.archive import archive, restore
from tests.control.epochs import held, hold
from tests.control.pgbouncer import Pooler, needs_pgbouncer, pooling
from tests.control.plane import Entitled, MovedClock
from tests.control.reporting import Post, record, statuses
from tests.control.running import ended
from tests.control.usage import counted, written
from tests.control.writers import SHARDS, Load, running, until, writer_of
from tests.quotagate.diagnosis.examining import examined

CONNECTIONS = 3  # of the pooler, where each control plane has up to 16
SQL = Path(__file__).parents[2] / "control" / "sql"

WRITER = """if True:
    import asyncio, sys
    from redis.asyncio import Redis
    from control.background import Background
    from control.db import Database
    from control.settings.control_plane import WriterSettings
    from control.usage.leases import Leases
    from control.ledger.streams import Streams
    from control.usage.writer import Writer

    async def main(dsn, session_dsn, url):
        async with Database.open(dsn, session_dsn=session_dsn) as db, Redis.from_url(url) as redis:
            settings = WriterSettings(poll_ms=5, batch_entries_max=3200)
            async with Background([Writer(db, Streams(redis, 32), settings, leases=Leases(db, 32))]).running():
                await asyncio.Event().wait()

    asyncio.run(main(*sys.argv[1:]))
"""


def through(settings: Settings, dsn: str, session_dsn: str | None) -> Settings:
    update = {"dsn": SecretStr(dsn), "session_dsn": session_dsn and SecretStr(session_dsn)}
    return settings.model_copy(update={"postgres": settings.postgres.model_copy(update=update)})


@pytest.fixture
def pooler(tmp_path: Path, application_dsn: str) -> Iterator[Pooler]:
    with pooling(tmp_path, application_dsn, size=CONNECTIONS) as started:
        yield started


@pytest.fixture
def settings(settings: Settings, pooler: Pooler, application_dsn: str) -> Settings:
    return through(settings, pooler.dsn, application_dsn)


@pytest.fixture
def direct(settings: Settings) -> Settings:
    """Past the pooler."""
    assert settings.postgres.session_dsn is not None
    return through(settings, settings.postgres.session_dsn.get_secret_value(), None)


@needs_pgbouncer
async def test_a_control_plane_behind_a_small_pool_of_transactions_loses_and_doubles_nothing_under_load(
    context: Context, admin: AsyncClient, entitled: Entitled, post: Post, pooler: Pooler, new_streams: None
) -> None:
    orgs = [await entitled("bulk", meters={"api_calls": 100_000}) for _ in range(8)]
    looked: list[int] = []

    async def customer(org: str) -> int:
        reported = 0
        for _ in range(15):
            reported += sum(status < 300 for status in statuses(await post(org, [record(units=2) for _ in range(10)])))
        return reported

    async def people(number: int) -> None:
        """Changes, lists, exports, and what an organization has."""
        for n in range(10):
            org = orgs[(number + n) % len(orgs)]
            answers = (
                await admin.post(f"/v1/organizations/{org}/keys", json={"name": f"key {number} {n}"}),
                await admin.get(f"/v1/entitlements/{org}"),
                await admin.get("/v1/journal", params={"q": "key", "limit": 50}),
                await admin.get("/v1/journal/chain", params={"limit": 50}),
                await admin.get("/v1/analytics/quota-check", params={"format": "csv"}),
                await admin.get("/v1/organizations", params={"q": "org-", "limit": 20}),
                await admin.get("/v1/incidents/tiles"),
            )
            looked.extend(answer.status_code for answer in answers)

    async with context.background.running():
        reported, *_ = await asyncio.gather(
            asyncio.gather(*(customer(org) for org in orgs)), *(people(number) for number in range(6))
        )
        assert reported == [150] * len(orgs)
        assert set(looked) <= {200, 201}, sorted(set(looked))
        await until(lambda: _are_written(context, orgs, 300))
        states = context.background.summary()
    assert [name for name, state in states.items() if state["restarts"]] == []
    for org in orgs:
        assert len(await written(context, org)) == 150
        assert await counted(context, org) == 300
    looked_at = await context.reconciler.round()
    assert (looked_at.drifted, looked_at.behind) == (0, 0)
    while await context.sealer.seal():
        pass
    verdict = await asyncio.to_thread(verify, pooler.dsn, 1, [], 3600, 3600)
    assert (verdict.broken, verdict.waiting) == (None, 0)


async def _are_written(context: Context, orgs: list[str], units: int) -> bool:
    async with context.db.connection() as connection:
        query = "SELECT coalesce(sum(used), 0)::bigint FROM usage_counter WHERE org = ANY($1::text[])"
        return bool(await connection.fetchval(query, orgs) == units * len(orgs))


@asynccontextmanager
async def writer_process(settings: Settings, redis_url: str) -> AsyncIterator["asyncio.subprocess.Process"]:
    way = settings.postgres
    assert way.session_dsn is not None
    stores = way.dsn.get_secret_value(), way.session_dsn.get_secret_value(), redis_url
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, *stores)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


@needs_pgbouncer
@pytest.mark.usefixtures("new_streams")
async def test_a_writer_that_is_killed_behind_a_pooler_frees_its_leases_and_each_event_is_one_row(
    context: Context, settings: Settings, redis: Redis, redis_url: str
) -> None:
    survivor, load = writer_of(context), Load(context, redis)
    async with running(survivor), load.flowing():
        for _ in range(3):
            async with writer_process(settings, redis_url) as child:
                await until(lambda: survivor.shares() == {"shards": SHARDS // 2, "writers": 2})
                await until(load.is_being_written)
                child.kill()
                await child.wait()
                await until(lambda: survivor.shares() == {"shards": SHARDS, "writers": 1})
    async with running(survivor):
        await load.is_written_once()


@needs_pgbouncer
@pytest.mark.usefixtures("vouched_streams")
async def test_control_planes_that_recover_at_once_do_not_wait_for_one_anothers_connections(
    tmp_path: Path, direct: Settings, redis: Redis
) -> None:
    dsn = direct.postgres.dsn.get_secret_value()
    async with AsyncExitStack() as stack:
        pooler = stack.enter_context(pooling(tmp_path, dsn, size=2))
        behind = through(direct, pooler.dsn, dsn)
        planes = [await stack.enter_async_context(opened(behind)) for _ in range(4)]
        await hold(redis, "another:9:0123")
        async with asyncio.timeout(15):  # a pooler gives up those who wait for a connection after 20
            await asyncio.gather(*(plane.recovery.round() for plane in planes))
        assert not any(each.startswith("another:") for each in await held(redis))


@needs_pgbouncer
@pytest.mark.usefixtures("new_streams")
async def test_who_is_killed_in_a_transaction_behind_a_pooler_leaves_no_lock(
    settings: Settings, context: Context, redis_url: str
) -> None:
    holder = """if True:
        import asyncio, sys
        from control.db import Database

        async def main(dsn, session_dsn):
            async with Database.open(dsn, session_dsn=session_dsn) as db, db.transaction() as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('quotagate.catalogue'))")
                print("held", flush=True)
                await asyncio.sleep(600)

        asyncio.run(main(*sys.argv[1:]))
    """
    way = settings.postgres
    assert way.session_dsn is not None
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        holder,
        way.dsn.get_secret_value(),
        way.session_dsn.get_secret_value(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"held\n"
    child.kill()
    await child.wait()
    async with asyncio.timeout(20), context.db.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('quotagate.catalogue'))")


@needs_pgbouncer
async def test_a_database_is_migrated_through_a_pooler_of_transactions(tmp_path: Path, empty_database: str) -> None:
    with pooling(tmp_path, empty_database, size=1) as pooler:
        assert await asyncio.to_thread(schema.migrate, pooler.dsn) == schema_versions()
        assert await asyncio.to_thread(schema.migrate, pooler.dsn) == []


def schema_versions() -> list[str]:
    return [migration.version for migration in schema.migrations()]


@needs_pgbouncer
async def test_days_are_archived_and_restored_through_a_pooler_of_transactions(
    tmp_path: Path, context: Context, postgres_dsn: str, redis: Redis, new_streams: None
) -> None:
    writer, load = writer_of(context), Load(context, redis)
    await load.add(3)
    await writer.resume()
    while not await writer.write():
        pass
    await writer.release()
    clock, author = MovedClock(), Author("tests", "tests")
    clock.move(days=5)
    with pooling(tmp_path, postgres_dsn, size=1) as pooler:
        async with Database.open(pooler.dsn, 2) as db:
            before = await load.written()
            done = [one async for one in archive(db, moment(int(clock())).date(), tmp_path / "archive", clock, author)]
            assert sum(one.events for one in done) >= load.added
            assert (await load.written())[0] == 0
            for one in done:
                assert await restore(db, one.file, clock, author) is not None
            assert await load.written() == before


@needs_pgbouncer
def test_a_control_plane_behind_a_pooler_of_transactions_without_another_way_does_not_start(
    settings: Settings, pooler: Pooler
) -> None:
    result = ended(through(settings, pooler.dsn, None), {})
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "quotagate control: Postgres: a pooler that pools transactions is in between, and locks of a session need one: "
        "name PostgreSQL itself, or a pool of sessions, in postgres.session_dsn"
    )


@needs_pgbouncer
def test_the_doctor_says_whether_a_pooler_is_in_between_and_whether_leases_have_sessions(
    tmp_path: Path, pooler: Pooler, application_dsn: str
) -> None:
    def found(dsn: str, session_dsn: str | None = None, *, settings: bool = True) -> tuple[str, str]:
        content = {
            "postgres": {"dsn": dsn, "session_dsn": session_dsn},
            "redis": {"url": "redis://127.0.0.1:1"},
            "admin_token": "of-the-tests-and-long-enough",
        }
        file = tmp_path / "control.yaml"
        file.write_text(json.dumps(content))
        named = ("--control-config", str(file)) if settings else ()
        finding = examined("--postgres", dsn, *named)["postgres pooler"]
        return finding["level"], finding["told"]

    assert found(application_dsn) == ("good", "none is in between")
    assert found(pooler.dsn, application_dsn) == ("good", "one is in between, and sessions go by postgres.session_dsn")
    level, told = found(pooler.dsn)
    assert (level, "postgres.session_dsn" in told) == ("wrong", True)
    assert found(pooler.dsn, settings=False)[0] == "note"
    with pooling(tmp_path, application_dsn, mode="session", size=10) as sessions:
        assert found(sessions.dsn) == ("good", "one is in between, and it keeps sessions")


@needs_pgbouncer
async def test_a_pooler_of_transactions_in_place_of_a_session_is_refused(settings: Settings, pooler: Pooler) -> None:
    with pytest.raises(StoreUnavailable, match=r"in postgres\.session_dsn"):
        async with opened(through(settings, pooler.dsn, pooler.dsn)):
            pass


@needs_pgbouncer
async def test_a_pooler_of_sessions_needs_no_other_way(tmp_path: Path, direct: Settings) -> None:
    dsn = direct.postgres.dsn.get_secret_value()
    with pooling(tmp_path, dsn, mode="session", size=20) as pooler:
        async with opened(through(direct, pooler.dsn, None)) as context, context.background.running():
            await until(lambda: context.writer.shares() == {"shards": SHARDS, "writers": 1})


@needs_pgbouncer
async def test_sessions_of_another_database_are_refused(settings: Settings, empty_database: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"postgres\.session_dsn leads to another database than postgres\.dsn"):
        async with opened(through(settings, settings.postgres.dsn.get_secret_value(), empty_database)):
            pass


def test_no_statement_leaves_anything_in_its_session_but_the_leases() -> None:
    """What a session keeps: its locks, settings, prepared statements, temporary tables, channels, open cursors."""
    begins = re.compile(r"\s*(set\s+(?!local\b)|listen\b|prepare\b|load\b|create\s+temp)", re.IGNORECASE)
    holds = re.compile(
        r"pg_(try_)?advisory_lock|set_config\((?:[^()]|\([^()]*\))*,\s*false\s*\)|\bwith\s+hold\b", re.IGNORECASE
    )
    found = set()
    for file in SQL.rglob("*.sql"):
        statements = re.sub(r"--.*", "", file.read_text()).split(";")
        if any(begins.match(statement) or holds.search(statement) for statement in statements):
            found.add(file.relative_to(SQL).as_posix())
    assert found == {"leases.sql"}

"""A backup holds both stores of one moment; it is restored whole, or not at all."""

import asyncio
import gzip
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis
from typer.testing import CliRunner

from control.app import opened
from control.backup.files import CHUNK_BYTES, BackupWriter, Manifest, unpacked
from control.http.context import Context
from control.settings.control_plane import Settings
from devstack import postgres
from quota.model import Admitted
from quotagate.main import app
from tests import charging
from tests.control.chain import verified
from tests.control.plane import Entitled, MovedClock
from tests.control.running import environment
from tests.control.usage import spend, used, write_all

ROWS = "SELECT count(*), count(DISTINCT request_id), sum(units) FROM usage_event WHERE org = '{org}'"


class Commands:
    """`quotagate` as an operator of this installation runs it."""

    def __init__(self, settings: Settings, server: str, login: str) -> None:
        self._settings, self._server, self._login = settings, server, login

    async def run(self, *words: str, database: str | None = None) -> str:
        """What it prints; it succeeds."""
        code, output = await self.end(*words, database=database)
        assert code == 0, output
        return output

    async def end(self, *words: str, database: str | None = None) -> tuple[int, str]:
        dsn = self._settings.postgres.dsn.get_secret_value() if database is None else database
        env = environment(self._settings) | {"QUOTAGATE_POSTGRES_DSN": dsn}
        result = await asyncio.to_thread(CliRunner(env=env).invoke, app, words)
        return result.exit_code, result.output

    async def damaged(self, *words: str, database: str) -> str:
        """It refuses to restore; what it says."""
        code, output = await self.end("restore", *words, database=database)
        assert code == 1, output
        return output

    def settings_of(self, database: str) -> Settings:
        """Those of a control plane on that database, with the rights that it has in production."""
        dsn = f"postgresql://{self._login}@{database.partition('@')[2]}"
        changed = self._settings.model_dump()
        changed["postgres"]["dsn"] = dsn
        return Settings.model_validate(changed)


@pytest.fixture
def commands(settings: Settings, postgres_server: str, application_login: str) -> Commands:
    return Commands(settings, postgres_server, application_login)


@pytest.fixture
async def backed_up(
    commands: Commands, context: Context, clock: MovedClock, entitled: Entitled, tmp_path: Path, new_streams: None
) -> tuple[Path, str]:
    """A backup, and an organization of it: 3 of its 5 requests are written, and 2 are only in Redis."""
    org = await entitled("starter")
    await context.publisher.install(org)
    await spend(context, org, 2)
    assert isinstance(await charging.take(context.ledger, org, "first", {"api_calls": 1}, "pay-once"), Admitted)
    await write_all(context)
    await spend(context, org, 2)
    await context.sealer.seal()
    directory = tmp_path / "backup"
    said = await commands.run("backup", str(directory))
    assert f"head {(await verified(context)).head}" in said
    return directory, org


async def test_a_backup_that_is_restored_into_an_empty_stack_has_each_event_once_and_the_same_journal(
    commands: Commands,
    context: Context,
    clock: MovedClock,
    redis: Redis,
    empty_database: str,
    backed_up: tuple[Path, str],
) -> None:
    directory, org = backed_up
    before = await verified(context)
    await spend(context, org, 3)  # after the point
    await redis.flushall()

    said = await commands.run("restore", str(directory), database=empty_database)
    assert f"--expect {before.head}" in said
    assert postgres.execute(empty_database, ROWS.format(org=org)) == "5|5|5"
    assert "0 are not the sum of their events" in await commands.run("recompute", database=empty_database)
    audit = await commands.run("audit", "verify", "--expect", str(before.head), database=empty_database)
    assert f"head {before.head.seq + 1}:" in audit, "with the entry of the restore"

    async with opened(commands.settings_of(empty_database), clock) as restored:
        await restored.publisher.install(org)
        assert await used(restored, org) == 5
        again = await charging.take(restored.ledger, org, "again", {"api_calls": 1}, "pay-once")
        assert isinstance(again, Admitted)
        assert await used(restored, org) == 5, "what an idempotency key has paid for is not charged again"
        await spend(restored, org, 1)
        await write_all(restored)
    assert postgres.execute(empty_database, ROWS.format(org=org)) == "6|6|6"
    assert "0 are not the sum of their events" in await commands.run("recompute", database=empty_database)


async def test_every_row_of_every_table_comes_back_as_it_was(
    commands: Commands, redis: Redis, postgres_dsn: str, empty_database: str, backed_up: tuple[Path, str]
) -> None:
    directory, _ = backed_up
    manifest = json.loads((directory / "manifest.json").read_text())
    changed = {
        "audit_journal",
        "audit_unsealed",
        "audit_seal",
        "usage_event",
        "usage_counter",
        "usage_watermark",
        "api_key",
    }
    compared = [name for name in manifest["tables"] if name not in changed]
    digest = "SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM \"{name}\" t"
    then = {name: postgres.execute(postgres_dsn, digest.format(name=name)) for name in compared}
    await redis.flushall()
    await commands.run("restore", str(directory), database=empty_database)
    assert {name: postgres.execute(empty_database, digest.format(name=name)) for name in compared} == then
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgenabled <> 'O'"
    assert postgres.execute(empty_database, triggers) == "0"


async def test_a_change_after_a_restore_has_a_version_that_no_gateway_has_seen(
    commands: Commands,
    admin: AsyncClient,
    postgres_dsn: str,
    redis: Redis,
    empty_database: str,
    backed_up: tuple[Path, str],
) -> None:
    directory, org = backed_up
    await admin.post(f"/v1/entitlements/{org}/suspend", json={"reason": "after the backup"})
    seen = int(postgres.execute(postgres_dsn, "SELECT last_value FROM publication_version"))
    await redis.flushall()
    await commands.run("restore", str(directory), database=empty_database)
    assert int(postgres.execute(empty_database, "SELECT nextval('publication_version')")) > seen


async def test_where_only_postgres_was_lost_what_waits_in_redis_is_written_and_counted(
    commands: Commands, context: Context, clock: MovedClock, empty_database: str, backed_up: tuple[Path, str]
) -> None:
    directory, org = backed_up
    await spend(context, org, 3)  # after the point, and written to the database that is lost
    await write_all(context)

    assert "--keep-redis" in await commands.damaged(str(directory), database=empty_database)
    await commands.run("restore", "--keep-redis", str(directory), database=empty_database)
    async with opened(commands.settings_of(empty_database), clock) as restored:
        await restored.publisher.install(org)
        assert await used(restored, org) == 8
        await write_all(restored)
    assert postgres.execute(empty_database, ROWS.format(org=org)) == "8|8|8"
    assert "0 are not the sum of their events" in await commands.run("recompute", database=empty_database)


async def test_a_damaged_backup_is_refused_whole(
    commands: Commands, redis: Redis, empty_database: str, backed_up: tuple[Path, str], tmp_path: Path
) -> None:
    directory, _ = backed_up
    await redis.flushall()

    def copy(name: str) -> Path:
        return Path(shutil.copytree(directory, tmp_path / name))

    turned = copy("turned")
    content = bytearray((turned / "plan.csv.gz").read_bytes())
    content[-9] ^= 1
    (turned / "plan.csv.gz").write_bytes(content)
    short = copy("short")
    (short / "usage_event.csv.gz").write_bytes((short / "usage_event.csv.gz").read_bytes()[:-1])
    lacking = copy("lacking")
    (lacking / "grant.csv.gz").unlink()
    more = copy("more")
    (more / "another.csv.gz").write_bytes(b"")
    without_sums = copy("without_sums")
    (without_sums / "SHA256SUMS").unlink()
    forged = copy("forged")  # with sums that fit
    (forged / "plan_meter.csv.gz").write_bytes(gzip.compress(b"plan_id,meter\nno-uuid,x\n"))
    resum(forged)
    other_format = copy("other_format")
    manifest = json.loads((other_format / "manifest.json").read_text())
    (other_format / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    resum(other_format)
    newer = copy("newer")
    (newer / "manifest.json").write_text(json.dumps(manifest | {"schema": "9999"}))
    resum(newer)

    for broken, reason in [
        (turned, "plan.csv.gz is not what was written"),
        (short, "usage_event.csv.gz is not what was written"),
        (lacking, "grant.csv.gz is missing"),
        (more, "another.csv.gz does not belong to it"),
        (without_sums, "no SHA256SUMS"),
        (forged, "plan_meter holds what PostgreSQL does not accept"),
        (other_format, "a format that this release does not know"),
        (newer, "of a newer release"),
    ]:
        assert reason in await commands.damaged(str(broken), database=empty_database)
        nothing = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert postgres.execute(empty_database, nothing) == "0", broken.name
        assert await redis.keys("qg:{q*") == [], broken.name


async def test_with_json_a_restore_says_what_it_has_restored_and_nothing_else(
    commands: Commands, redis: Redis, empty_database: str, backed_up: tuple[Path, str]
) -> None:
    directory, _ = backed_up
    manifest = json.loads((directory / "manifest.json").read_text())
    await redis.flushall()
    said = json.loads(await commands.run("restore", "--json", str(directory), database=empty_database))
    assert (said["taken_at"], said["head"], said["events"]) == (manifest["taken_at"], manifest["journal_head"], 2)
    assert said["rows"] == {name: table["rows"] for name, table in manifest["tables"].items()}
    known = "SELECT reltuples FROM pg_class WHERE relname = 'organization'"
    assert float(postgres.execute(empty_database, known)) > 0, "the planner knows what the tables hold"


def test_each_byte_that_is_read_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    content = os.urandom(3 * CHUNK_BYTES)
    writer = BackupWriter(tmp_path / "backup")
    with writer.packed("some") as file:
        file.write(content)
    size = writer.size
    writer.finish(Manifest("", "", "", 1, "", {}, {}, {}, 0, 0), told.append)
    assert size < sum(told) < size + 1000, "with the manifest"
    told.clear()
    with unpacked(tmp_path / "backup", "some", told.append) as file:
        assert file.read() == content
    assert sum(told) == size
    assert len(told) >= 3


async def test_a_backup_goes_only_where_nothing_is(
    commands: Commands, redis: Redis, postgres_dsn: str, empty_database: str, backed_up: tuple[Path, str]
) -> None:
    directory, _ = backed_up
    code, said = await commands.end("backup", str(directory))
    assert (code, "exists already" in said) == (1, True)
    await redis.flushall()
    assert "not empty" in await commands.damaged(str(directory), database=postgres_dsn)


async def test_a_redis_that_lost_its_memory_is_not_backed_up(
    commands: Commands, redis: Redis, backed_up: tuple[Path, str], tmp_path: Path
) -> None:
    await redis.flushall()
    code, said = await commands.end("backup", str(tmp_path / "second"))
    assert (code, "not vouched for" in said) == (1, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["backup"]  # noqa: ASYNC240  # some names


async def test_a_backup_under_load_holds_what_was_admitted_before_it_and_nothing_twice(
    commands: Commands,
    context: Context,
    clock: MovedClock,
    redis: Redis,
    entitled: Entitled,
    empty_database: str,
    tmp_path: Path,
    new_streams: None,
) -> None:
    org = await entitled("bulk")
    await context.publisher.install(org)
    before = len(await spend(context, org, 20))
    ended = asyncio.Event()
    spent = before

    async def load() -> None:
        nonlocal spent
        while not ended.is_set():
            spent += len(await spend(context, org, 5))
            await context.writer.write()

    await context.writer.resume()
    loading = asyncio.create_task(load())
    await commands.run("backup", str(tmp_path / "backup"))
    ended.set()
    await loading
    await redis.flushall()
    await commands.run("restore", str(tmp_path / "backup"), database=empty_database)
    rows, requests, units = postgres.execute(empty_database, ROWS.format(org=org)).split("|")
    assert rows == requests == units
    assert before <= int(rows) <= spent
    assert "0 are not the sum of their events" in await commands.run("recompute", database=empty_database)


def resum(directory: Path) -> None:
    names = re.findall(r"^\w+  (.+)$", (directory / "SHA256SUMS").read_text(), re.MULTILINE)
    lines = [f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (directory / "SHA256SUMS").write_text("".join(lines))

"""Old days of usage events go into files and come back, to the row; whatever is wrong with a file changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from httpx import AsyncClient
from pydantic import SecretStr
from redis.asyncio import Redis

from control.commands import reconcile
from control.http.context import Context
from control.journal import Author
from control.moments import moment
from control.settings.control_plane import Retention, Settings
from control.usage import archive as archive_module
from control.usage.archive import Archived, Archiver, ArchiveRefused, archive, days, restore
from quota import keys
from tests.control.plane import Entitled

AUTHOR = Author("tests", "tests")
DAYS_AGO = 5


@pytest.fixture
def settings(settings: Settings, postgres_dsn: str) -> Settings:
    """As the owner of the tables: nobody else moves days."""
    return settings.model_copy(
        update={"postgres": settings.postgres.model_copy(update={"dsn": SecretStr(postgres_dsn)})}
    )


@pytest.fixture
def day(context: Context) -> date:
    return moment(int(context.clock())).date() - timedelta(days=DAYS_AGO)


@pytest.fixture(autouse=True)
async def events(context: Context, redis: Redis, day: date) -> AsyncIterator[list[tuple[object, ...]]]:
    """Three events of an old day, written as the writer writes them."""
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM usage_watermark")
    seconds = int(context.clock()) - DAYS_AGO * 86_400
    for n, charges in enumerate(("api_calls:3", "api_calls:5:1:g1=2", "tokens:7")):
        event = f"t {uuid4().hex} acme 1700000000 {charges}"
        await redis.xadd(keys.events_key(0), {"e": event}, id=f"{seconds * 1000 + n}-0")
    await context.writer.resume()
    while not await context.writer.write():
        pass
    yield await rows(context, day)
    async with context.db.connection() as connection:
        await connection.execute(f"DROP TABLE IF EXISTS usage_event_{day:%Y%m%d}")
        await connection.execute("DELETE FROM usage_archive")
        await connection.execute("DELETE FROM usage_counter WHERE org = 'acme'")


async def rows(context: Context, day: date) -> list[tuple[object, ...]]:
    async with context.db.connection() as connection:
        records = await connection.fetch(
            "SELECT * FROM usage_event WHERE occurred_at >= $1 AND occurred_at < $1 + interval '1 day'"
            " ORDER BY occurred_at, stream_seq, meter",
            start(day),
        )
    return [tuple(row.values()) for row in records]


def start(day: date) -> datetime:
    return moment((day - date(1970, 1, 1)).days * 86_400)


async def archived(context: Context, day: date, directory: Path) -> Archived:
    [done] = [one async for one in archive(context.db, day + timedelta(days=1), directory, context.clock, AUTHOR)]
    return done


async def recomputed(settings: Settings) -> list[dict[str, object]]:
    _, differing = await asyncio.to_thread(reconcile.recompute, settings.postgres.dsn.get_secret_value(), "acme")
    return differing


async def test_a_day_that_was_archived_and_restored_has_exactly_its_rows(
    context: Context, day: date, events: list[tuple[object, ...]], tmp_path: Path
) -> None:
    assert len(events) == 3
    done = await archived(context, day, tmp_path)
    assert (done.day, done.events) == (day, 3)
    assert await rows(context, day) == []
    assert (await restore(context.db, done.file, context.clock, AUTHOR)) == done
    assert await rows(context, day) == events
    assert await restore(context.db, done.file, context.clock, AUTHOR) is None


async def test_counters_can_be_recomputed_while_a_day_is_in_a_file_and_after(
    context: Context, day: date, settings: Settings, tmp_path: Path
) -> None:
    assert await recomputed(settings) == []
    done = await archived(context, day, tmp_path)
    assert await recomputed(settings) == []
    await restore(context.db, done.file, context.clock, AUTHOR)
    assert await recomputed(settings) == []


async def test_usage_by_day_and_month_counts_archived_days_too(
    context: Context, day: date, admin: AsyncClient, tmp_path: Path
) -> None:
    await admin.put("/v1/organizations/acme", json={"name": "Acme"})

    async def used(bucket: str) -> dict[str, tuple[int, int, int, int | None]]:
        times = {"from": start(day).isoformat(), "to": start(day + timedelta(days=1)).isoformat()}
        response = await admin.get("/v1/usage", params={"org": "acme", "bucket": bucket, **times})
        assert response.status_code == 200, response.text
        return {m["meter"]: (m["units"], m["overage"], m["burnt"], m["events"]) for m in response.json()["meters"]}

    before = {bucket: await used(bucket) for bucket in ("day", "month")}
    assert before["day"] == before["month"] == {"api_calls": (8, 1, 2, 2), "tokens": (7, 0, 0, 1)}
    done = await archived(context, day, tmp_path)
    for bucket in ("day", "month"):
        assert await used(bucket) == {"api_calls": (8, 1, 2, None), "tokens": (7, 0, 0, None)}
    await restore(context.db, done.file, context.clock, AUTHOR)
    assert {bucket: await used(bucket) for bucket in ("day", "month")} == before


async def test_a_crash_at_any_point_before_the_commit_leaves_the_day_where_it_is(
    context: Context, day: date, events: list[tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    def crash(*_: object) -> None:
        raise Crash

    for step in ("_finish", "_checked"):
        with monkeypatch.context() as broken:
            broken.setattr(archive_module, step, crash)
            with pytest.raises(Crash):
                await archived(context, day, tmp_path)
        assert await rows(context, day) == events
    assert (await archived(context, day, tmp_path)).events == 3


async def test_a_damaged_or_foreign_file_is_refused_and_nothing_is_changed(
    context: Context, day: date, tmp_path: Path
) -> None:
    done = await archived(context, day, tmp_path)
    whole, manifest_file = done.file.read_bytes(), done.file.with_name(f"usage_event_{day:%Y%m%d}.json")
    manifest = json.loads(manifest_file.read_text())

    async def refused(reason: str) -> None:
        with pytest.raises(ArchiveRefused, match=reason):
            await restore(context.db, done.file, context.clock, AUTHOR)
        assert await rows(context, day) == []

    done.file.write_bytes(whole[: len(whole) // 2])
    await refused("damaged")
    done.file.write_bytes(whole)
    for changed, reason in (
        ({"sha256": "0" * 64}, "damaged"),
        ({"events": 4}, "manifest says 4"),
        ({"day": "2020-01-01"}, "of another day"),
        ({"format": 2}, "another version"),
    ):
        manifest_file.write_text(json.dumps(manifest | changed))
        await refused(reason)
    manifest_file.write_text("no json")
    await refused("no manifest")
    manifest_file.write_text(json.dumps(manifest))
    assert await restore(context.db, done.file, context.clock, AUTHOR) == done


async def test_today_and_yesterday_are_never_archived(context: Context, day: date, tmp_path: Path) -> None:
    far = moment(int(context.clock())).date() + timedelta(days=30)
    done = [one.day async for one in archive(context.db, far, tmp_path, context.clock, AUTHOR)]
    today = moment(int(context.clock())).date()
    assert day in done
    assert max(done) < today - timedelta(days=1)


async def test_days_ahead_have_partitions_and_retention_archives_what_is_older(
    context: Context, day: date, tmp_path: Path
) -> None:
    await Archiver(context.db, Retention(days=DAYS_AGO - 1, directory=tmp_path), context.clock).round()
    here = {row.day: row.file for row in await days(context.db)}
    today = moment(int(context.clock())).date()
    assert all(here[today + timedelta(days=n)] is None for n in range(4))
    file = f"usage_event_{day:%Y%m%d}.csv.gz"
    assert here[day] == file
    assert (tmp_path / file).exists()


async def test_days_that_retention_could_not_move_are_overdue_until_it_can(
    context: Context, admin: AsyncClient, day: date, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "archive"
    in_the_way.write_text("a file where the directory would be")
    context.archiver._retention = Retention(days=DAYS_AGO - 1, directory=in_the_way)

    async def told() -> tuple[float, float, float]:
        await context.archiver.round()
        lines = dict(line.rsplit(" ", 1) for line in (await admin.get("/-/metrics")).text.splitlines())
        names = ("usage_days", "usage_days_overdue", "usage_bytes")
        days_, overdue, size = (float(lines[f"quotagate_control_{name}"]) for name in names)
        return days_, overdue, size

    days_before, overdue, size = await told()
    assert overdue >= 1
    assert size > 0
    in_the_way.unlink()
    days_after, overdue, _ = await told()
    assert (overdue, days_after < days_before) == (0, True)
    assert (in_the_way / f"usage_event_{day:%Y%m%d}.csv.gz").exists()


async def test_a_day_that_is_in_a_file_is_not_overdue_for_what_came_later_for_it(
    context: Context, day: date, tmp_path: Path
) -> None:
    archiver = Archiver(context.db, Retention(days=DAYS_AGO - 1, directory=tmp_path), context.clock)
    await archiver.round()
    async with context.db.connection() as connection:
        await connection.execute("SELECT create_usage_event_day($1)", day)
    await archiver.round()
    assert [row.file is None for row in await days(context.db) if row.day == day].count(True) == 1
    assert archiver.held is not None
    assert archiver.held.overdue == 0


async def test_an_event_that_comes_while_its_day_is_archived_is_in_no_danger(
    context: Context, day: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = (
        "INSERT INTO usage_event SELECT org, occurred_at + interval '1 second', stream_seq, meter, shard, stream_ms,"
        " kind, request_id || 'x', period_start, units, overage, burnt FROM usage_event WHERE meter = 'tokens'"
    )
    original, loop = archive_module._checked, asyncio.get_running_loop()

    def come_late(file: Path) -> object:
        async def insert() -> None:
            async with context.db.connection() as connection:
                await connection.execute(late)

        asyncio.run_coroutine_threadsafe(insert(), loop).result(10)
        return original(file)

    with monkeypatch.context() as slow:
        slow.setattr(archive_module, "_checked", come_late)
        with pytest.raises(ArchiveRefused, match="written meanwhile"):
            await archived(context, day, tmp_path)
    assert len(await rows(context, day)) == 4
    done = await archived(context, day, tmp_path)
    assert done.events == 4


async def test_a_day_comes_back_to_what_was_written_for_it_since_and_retention_leaves_it_alone(
    context: Context, day: date, tmp_path: Path
) -> None:
    done = await archived(context, day, tmp_path)
    async with context.db.connection() as connection:
        await connection.execute("SELECT create_usage_event_day($1)", day)
    assert await restore(context.db, done.file, context.clock, AUTHOR) == done
    assert len(await rows(context, day)) == 3
    await Archiver(context.db, Retention(days=2, directory=tmp_path), context.clock).round()
    assert len(await rows(context, day)) == 3


async def test_every_damage_of_one_byte_is_refused(context: Context, day: date, tmp_path: Path) -> None:
    done = await archived(context, day, tmp_path)
    whole = done.file.read_bytes()
    for at in range(10, len(whole)):  # before it is gzip's own header, which holds no content
        done.file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(ArchiveRefused):
            await restore(context.db, done.file, context.clock, AUTHOR)


async def test_a_question_for_recent_days_reads_no_old_partition(
    context: Context, entitled: Entitled, day: date
) -> None:
    assert day in {row.day for row in await days(context.db)}
    async with context.db.connection() as connection:
        plan = await connection.fetch(
            "EXPLAIN SELECT sum(units) FROM usage_event WHERE org = 'acme' AND occurred_at >= $1",
            start(moment(int(context.clock())).date()),
        )
    assert f"usage_event_{day:%Y%m%d}" not in str(plan)

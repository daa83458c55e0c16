"""Old days of usage events: out of the database into files, and back.

One day is one file, `usage_event_<day>.csv.gz`, with a manifest beside it (`.json`) that holds columns, rows, and the
SHA-256 of the content. The file is complete, on the disk and read back before its day leaves the database, in one
transaction. A crash before that leaves the day where it was. The sums of the day stay in the database, so that counters
can be recomputed.
"""

import asyncio
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import structlog

from common.clock import Clock, system_clock
from common.durable_files import sync
from control import journal, sql
from control.db import Connection, Database
from control.journal import Author, Change
from control.ledger.event_batch import EARLIER_COLUMNS, EVENT_COLUMNS
from control.moments import moment, with_texts
from control.settings.control_plane import Retention
from control.sql.archive import Day

log = structlog.get_logger()

FORMAT = 1
CHUNK_BYTES = 1 << 20
DAYS_AHEAD = 3
ROUND_SECONDS = 3600.0
KEY_USAGE_SECONDS = 2 * 366 * 86_400  # a window or a period has at most one year
OWNER_CONNECTIONS = 2
OWNER_SECONDS = 3600.0
RESTORED_DAYS = 30  # so long retention leaves a day alone that somebody has brought back
_NAME = re.compile(r"usage_event_(\d{8})\.csv\.gz\Z")


class ArchiveRefused(Exception):
    """The file or the day cannot be archived or restored; the message says why. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Archived:
    day: date
    file: Path
    events: int
    """Rows."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the database has of usage events."""

    days: int
    overdue: int
    """Days that retention should have moved."""
    bytes: int


class Archiver:
    """Creates the partitions of the next days, and archives days that are older than retention keeps."""

    name = "partitions"

    def __init__(self, db: Database, retention: Retention | None, clock: Clock = system_clock) -> None:
        self._db = db
        self._retention = retention
        self._clock = clock
        self.held: Held | None = None
        """As of the last round; None: there was none."""

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        today, retention = moment(int(self._clock())).date(), self._retention
        for ahead in range(DAYS_AHEAD + 1):
            async with self._db.connection() as connection:
                await sql.usage.create_day(connection, day=today + timedelta(days=ahead))
        async with self._db.connection() as connection:
            await sql.usage.drop_key_usage(connection, before=moment(int(self._clock()) - KEY_USAGE_SECONDS))
        if retention is not None:
            await self._archive(retention, today)
        all_days = await days(self._db)
        held = [row for row in all_days if row.file is None]
        overdue = [] if retention is None else self._due(all_days, retention, today)
        self.held = Held(len(held), len(overdue), sum(row.bytes or 0 for row in held))

    def _due(self, all_days: Sequence[Day], retention: Retention, today: date) -> list[Day]:
        return due(all_days, today - timedelta(days=retention.days), moment(int(self._clock())), RESTORED_DAYS)

    async def _archive(self, retention: Retention, today: date) -> None:
        before, author = today - timedelta(days=retention.days), _author("retention")
        try:
            async with self._owner(retention) as db:
                async for done in archive(db, before, retention.directory, self._clock, author, RESTORED_DAYS):
                    log.info("usage events archived", day=done.day.isoformat(), file=str(done.file), events=done.events)
        except (ArchiveRefused, OSError) as e:
            log.error("usage events not archived", reason=str(e))

    @asynccontextmanager
    async def _owner(self, retention: Retention) -> AsyncIterator[Database]:
        """Connected for as long as it takes: the rest of the control plane has fewer rights."""
        if retention.dsn is None:
            yield self._db
            return
        async with Database.open(retention.dsn.get_secret_value(), OWNER_CONNECTIONS, OWNER_SECONDS) as db:
            yield db


async def days(db: Database) -> list[Day]:
    """Every day with its partition or its file: day, file (None: it is here), events (an estimate where it is here),
    bytes (None where it is in a file), restored_at."""
    async with db.connection() as connection:
        return await sql.archive.days(connection)


async def archive(
    db: Database, before: date, directory: Path, clock: Clock, author: Author, restored_days: int = 0
) -> AsyncIterator[Archived]:
    """Moves every day before `before` into a file. Today and yesterday stay: events of theirs may still come.
    Days that were restored within `restored_days` stay, too.

    Raises StoreUnavailable, ArchiveRefused, OSError."""
    await _check_rights(db)
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    for row in due(await days(db), before, moment(int(clock())), restored_days):
        done = await _archive_day(db, row.day, directory, clock(), author)
        if done is not None:
            yield done


def due(all_days: Sequence[Day], before: date, now: datetime, restored_days: int = 0) -> list[Day]:
    """Those of `days` that `archive` moves. Pure."""
    before = min(before, now.date() - timedelta(days=1))
    in_files = {row.day for row in all_days if row.file is not None}  # what came later for them stays here
    lately = now - timedelta(days=restored_days)
    return [
        row
        for row in all_days
        if row.day < before
        and row.day not in in_files
        and not (row.restored_at is not None and row.restored_at > lately)
    ]


async def restore(db: Database, file: Path, clock: Clock, author: Author) -> Archived | None:
    """Brings the day of one file back; None where it is there already.

    Raises StoreUnavailable, ArchiveRefused, OSError."""
    await _check_rights(db)
    manifest = await asyncio.to_thread(_checked, file)
    day = date.fromisoformat(manifest["day"])
    async with db.transaction() as connection:
        await sql.archive.lock_archive(connection)
        await sql.archive.limit_lock_wait(connection)
        if not await _has_partition(connection, day):
            await sql.usage.create_day(connection, day=day)
        elif await sql.archive.archived(connection, day=day) is None:
            return None
        if not await _has_partition(connection, day):
            raise ArchiveRefused(f"usage_event_other holds events of {day}: no partition can be made for it")
        with gzip.open(file) as content:
            status = await connection.copy_to_table(
                _partition(day),
                source=cast("BinaryIO", content),
                columns=manifest["columns"],
                format="csv",
                header=True,
            )
        if _rows(status) != manifest["events"]:
            raise ArchiveRefused(f"{file.name} has {_rows(status)} events, its manifest says {manifest['events']}")
        await sql.archive.set_restored(connection, day=day, at=moment(int(clock())))
        await sql.archive.drop_sums(connection, day=day)
        change = Change("usage.restored", None, None, {"day": day.isoformat(), "events": manifest["events"]})
        await journal.record(connection, author, clock(), [change])
    return Archived(day, file, manifest["events"])


async def _archive_day(db: Database, day: date, directory: Path, now: float, author: Author) -> Archived | None:
    file = directory / f"{_partition(day)}.csv.gz"
    unfinished = file.with_suffix(".unfinished")
    starts = datetime(day.year, day.month, day.day, tzinfo=UTC)
    async with db.transaction() as connection:
        await sql.archive.lock_archive(connection)
        await sql.archive.limit_lock_wait(connection)
        if not await _has_partition(connection, day):
            return None  # somebody else was faster
        digest = hashlib.sha256()
        columns = ", ".join(EVENT_COLUMNS)
        with unfinished.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:

            async def take_in(data: bytes) -> None:
                digest.update(data)
                await asyncio.to_thread(packed.write, data)

            status = await connection.copy_from_query(
                f"SELECT {columns} FROM {_partition(day)} ORDER BY org, occurred_at, stream_seq, meter",  # noqa: S608 - ours
                output=take_in,
                format="csv",
                header=True,
            )
        events, sha256 = _rows(status), digest.hexdigest()
        manifest = {
            "format": FORMAT,
            "day": day.isoformat(),
            "columns": list(EVENT_COLUMNS),
            "events": events,
            "sha256": sha256,
        }
        await asyncio.to_thread(_finish, unfinished, file, manifest)
        await asyncio.to_thread(_checked, file)
        await sql.archive.insert_archive(
            connection, day=day, file=file.name, events=events, sha256=sha256, at=moment(int(now))
        )
        await sql.archive.insert_sums(connection, day=day, starts=starts, ends=starts + timedelta(days=1))
        change = Change("usage.archived", None, None, {"day": day.isoformat(), "file": file.name, "events": events})
        await journal.record(connection, author, now, [change])
        # No lock kept the writer out until now, and from here on it waits for a moment.
        await connection.execute(f"ALTER TABLE usage_event DETACH PARTITION {_partition(day)}")
        if await connection.fetchval(f"SELECT count(*) FROM {_partition(day)}") != events:  # noqa: S608 - ours
            raise ArchiveRefused(f"events of {day} were written meanwhile; try again")
        await connection.execute(f"DROP TABLE {_partition(day)}")
    return Archived(day, file, events)


async def _check_rights(db: Database) -> None:
    async with db.connection() as connection:
        if not await sql.archive.may_move_days(connection):
            raise ArchiveRefused("only the owner of usage_event moves its days: name it by --dsn, or in retention.dsn")


async def _has_partition(connection: Connection, day: date) -> bool:
    return await connection.fetchval("SELECT to_regclass($1)", _partition(day)) is not None


def _finish(unfinished: Path, file: Path, manifest: dict[str, Any]) -> None:
    """The file and its manifest under their names, on the disk."""
    manifest_file = file.with_name(file.name.removesuffix(".csv.gz") + ".json")
    written = manifest_file.with_suffix(".unfinished-manifest")
    written.write_text(json.dumps(manifest, indent=2) + "\n")
    for path in (unfinished, written):
        sync(path)
    unfinished.replace(file)
    written.replace(manifest_file)
    sync(file.parent)


def _checked(file: Path) -> dict[str, Any]:
    """The manifest of a file that is whole. Raises ArchiveRefused, OSError."""
    named = _NAME.search(file.name)
    if named is None:
        raise ArchiveRefused(f"{file.name} is no archive: its name must be usage_event_<day>.csv.gz")
    manifest_file = file.with_name(file.name.removesuffix(".csv.gz") + ".json")
    try:
        manifest: dict[str, Any] = json.loads(manifest_file.read_text())
        day, columns = date.fromisoformat(manifest["day"]), manifest["columns"]
        expected, events = manifest["sha256"], int(manifest["events"])
    except (ValueError, KeyError, TypeError) as e:
        raise ArchiveRefused(f"{manifest_file.name} is no manifest of an archive: {e}") from e
    if manifest.get("format") != FORMAT or columns not in (list(EVENT_COLUMNS), list(EARLIER_COLUMNS)):
        raise ArchiveRefused(f"{manifest_file.name} is of another version: format {manifest.get('format')}")
    if named[1] != f"{day:%Y%m%d}" or events < 0:
        raise ArchiveRefused(f"{manifest_file.name} is of another day than {file.name}")
    digest = hashlib.sha256()
    try:
        with gzip.open(file) as content:
            while chunk := content.read(CHUNK_BYTES):
                digest.update(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise ArchiveRefused(f"{file.name} is damaged: {e}") from e
    if digest.hexdigest() != expected:
        raise ArchiveRefused(f"{file.name} is damaged: its content is not the one that its manifest tells")
    return manifest


def _partition(day: date) -> str:
    return f"usage_event_{day:%Y%m%d}"


def _rows(status: str) -> int:
    """Of `COPY 42`."""
    return int(status.split(" ")[1])


def _author(actor: str) -> Author:
    return Author(actor, actor)


def run(dsn: str, step: str, arguments: Sequence[Any]) -> list[dict[str, Any]]:
    """`archive before directory`, `due before`, `restore file…` or `list` for the command line, with an event loop of
    its own.

    Raises StoreUnavailable, ArchiveRefused, OSError."""

    async def do() -> list[dict[str, Any]]:
        async with Database.open(dsn, timeout_seconds=3600) as db:
            if step == "due":
                now = moment(int(system_clock()))
                return [with_texts(asdict(day)) for day in due(await days(db), arguments[0], now)]
            if step == "list":
                return [with_texts(asdict(day)) for day in await days(db)]
            author, done = _author(f"usage {step}"), []
            if step == "archive":
                before, directory = arguments
                done = [one async for one in archive(db, before, directory, system_clock, author)]
            else:
                done = [one for file in arguments if (one := await restore(db, file, system_clock, author))]
            rows = ({"day": one.day, "file": str(one.file), "events": one.events, "bytes": None} for one in done)
            return list(map(with_texts, rows))

    return asyncio.run(do())

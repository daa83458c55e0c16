"""A backup is made while everything goes on.

PostgreSQL's part is one snapshot. It says how far each shard's stream is written. What follows there up to the point,
which is a moment after the snapshot began, is Redis' part: together they have each event once, and none is missing.
"""

import asyncio
from datetime import date
from importlib.metadata import version
from pathlib import Path

from control import sql
from control.audit.chain import BEGINNING
from control.audit.verify import Head
from control.backup import redis_part
from control.backup.files import EVENTS, MARKS, BackupRefused, BackupWriter, Manifest, Rows
from control.db import Connection, Database
from control.ledger.clocks import LedgerClock
from control.ledger.streams import StreamId, Streams
from control.moments import rfc3339
from control.progress import Watch
from control.reconcile.epochs import Epochs, Front
from control.sql.backup import Table
from quota.ledger import Ledger


async def take(db: Database, ledger: Ledger, streams: Streams, directory: Path, watch: Watch) -> Manifest:
    """Raises BackupRefused, StoreUnavailable, LedgerUnavailable, OSError."""
    writer = BackupWriter(directory)
    try:
        epochs = Epochs(db, ledger, LedgerClock())
        fronts = await _believed(epochs)
        async with db.snapshot() as connection:
            # The first statement: from here on it is one moment.
            rows = await sql.usage.watermarks(connection, region=db.region.number)
            point = await redis_part.point_of(ledger, streams)
            written = {row.shard: StreamId(row.stream_ms, row.stream_seq) for row in rows}
            with writer.packed(f"{EVENTS}.jsonl") as file:
                events = await redis_part.write_events(streams, written, point, file)
            watch.say(f"{EVENTS}: {events:,} events that were not written yet")
            with writer.packed(f"{MARKS}.jsonl") as file:
                marks = await redis_part.write_marks(ledger, point, file)
            watch.say(f"{MARKS}: {marks:,}")
            if await epochs.fronts() != fronts:
                raise BackupRefused("Redis was put back together meanwhile; try again")
            head = await sql.audit.head(connection)
            manifest = Manifest(
                release=version("quotagate"),
                schema=await sql.health.schema_version(connection) or "",
                taken_at=rfc3339(point.at_ms / 1000),
                shards=ledger.shards,
                journal_head=str(Head(head.seq, head.hash) if head else Head(0, BEGINNING)),
                tables=await _write_tables(connection, writer, watch),
                partitions=_by_parent(await sql.backup.partitions(connection)),
                sequences={each.name: each.last_value or 0 for each in await sql.backup.sequences(connection)},
                events=events,
                marks=marks,
            )
        with watch.part("Sums of the files", writer.size) as tick:
            await asyncio.to_thread(writer.finish, manifest, tick)
    except BaseException:
        writer.abandon()
        raise
    return manifest


async def _believed(epochs: Epochs) -> list[Front]:
    """The Redis that is in front, where it is the one to believe. Raises BackupRefused, StoreUnavailable,
    LedgerUnavailable."""
    fronts, newest = await epochs.fronts(), await epochs.read_newest()
    unused = not any(epoch.number for epoch in newest) and not any(front.restarted for front in fronts)
    if not (unused or all(front.is_in(newest) for front in fronts)):
        raise BackupRefused(
            "this Redis is not vouched for: let a control plane put back what it lost, and make the backup then"
        )
    return fronts


async def _write_tables(connection: Connection, writer: BackupWriter, watch: Watch) -> dict[str, Rows]:
    tables = await sql.backup.tables(connection)
    return {table.name: await _write_table(connection, writer, table, watch) for table in tables}


async def _write_table(connection: Connection, writer: BackupWriter, table: Table, watch: Watch) -> Rows:
    with writer.packed(f"{table.name}.csv") as file, watch.part(table.name, table.rows_about) as tick:

        async def keep(data: bytes) -> None:
            file.write(data)
            tick(data.count(b"\n"))  # a row each, and some more where a text has several lines

        columns = ", ".join(f'"{column}"' for column in table.columns)
        status = await connection.copy_from_query(
            f'SELECT {columns} FROM "{table.name}"',  # noqa: S608  # names from the catalog
            output=keep,
            format="csv",
            header=True,
        )
    rows = int(status.split(" ")[1])  # of `COPY 42`
    if rows:
        watch.say(f"{table.name}: {rows:,} rows")
    return Rows(table.columns, rows)


def _by_parent(partitions: list[sql.backup.Partition]) -> dict[str, list[str]]:
    days: dict[str, list[str]] = {}
    for each in partitions:
        days.setdefault(each.parent, []).append(date.isoformat(each.day))
    return days

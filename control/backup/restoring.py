"""A backup is restored into an empty database, in one transaction: all of it is there, or nothing."""

import asyncio
from collections.abc import Mapping
from datetime import date
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import asyncpg

from common.clock import Clock
from control import journal, roles, schema, sql
from control.audit.sealer import ENTRIES_MAX
from control.backup import redis_part
from control.backup.files import EVENTS, MARKS, BackupRefused, Manifest, checked, size_of, unpacked
from control.db import Connection, Database, schema_versions
from control.ids import uuid7
from control.journal import Author, Change
from control.ledger.event_batch import EventBatch
from control.moments import moment
from control.progress import Tick, Watch
from control.region import Region
from control.usage import late_days, writer
from quota.ledger import Ledger

DAY_SECONDS = 86_400
PUBLICATIONS = "publication_version"
VERSIONS_AHEAD: Final = 1_000_000
"""Gateways may remember what was published after the backup, under versions that its sequence would give once more."""
CREATE_DAY: Final = {"usage_event": sql.usage.create_day, "refusal": sql.decisions.create_day}


async def restore(
    db: Database,
    ledger: Ledger,
    directory: Path,
    application_role: str,
    *,
    keep_redis: bool,
    clock: Clock,
    watch: Watch,
) -> Manifest:
    """`db`: an empty one, as the owner of what will be there. `keep_redis`: Redis is the one that was in use.

    Raises BackupRefused, StoreUnavailable, RightsMissing, LedgerError, OSError."""
    with watch.part("Looking at each byte", await asyncio.to_thread(size_of, directory)) as tick:
        manifest = await asyncio.to_thread(checked, directory, tick)
    watch.say(f"the backup is whole, and of {manifest.taken_at}")
    if manifest.shards != ledger.shards:
        raise BackupRefused(f"the backup has {manifest.shards} shards, and redis.shards is {ledger.shards}")
    if manifest.schema not in schema_versions():
        raise BackupRefused(f"the backup is of a newer release, {manifest.release}: restore it with that one")
    await ledger.check_layout()
    if not keep_redis and await redis_part.is_in_use(ledger):
        raise BackupRefused(
            "this Redis holds organizations: empty it, or say --keep-redis if it is the one of this installation, and"
            " only PostgreSQL was lost"
        )
    async with db.transaction() as connection:
        if await sql.backup.has_tables(connection):
            raise BackupRefused("the database is not empty: a backup is restored into one that was just created")
        await _fill(connection, directory, manifest, watch)
        added = await schema.upgrade(connection)
        if added:
            watch.say(f"migrated to {added[-1]}")
        await roles.grant(connection, application_role)
        with watch.part(EVENTS, manifest.events) as tick:
            await _add_events(connection, db.region, directory, clock, tick)
        await _conclude(connection, manifest, clock)
        watch.say("looking at what the tables hold, for the planner")
        await connection.execute("ANALYZE")
        if keep_redis:
            await redis_part.forget_counted(ledger)
        else:
            with unpacked(directory, f"{MARKS}.jsonl") as file:
                await redis_part.restore_marks(ledger, file)
    return manifest


async def _fill(connection: Connection, directory: Path, manifest: Manifest, watch: Watch) -> None:
    """The tables as they were, in the schema that they had."""
    await schema.upgrade(connection, manifest.schema)
    tables = {table.name: table.columns for table in await sql.backup.tables(connection)}
    if {name: rows.columns for name, rows in manifest.tables.items()} != tables:
        raise BackupRefused(f"the backup has other tables or columns than the schema {manifest.schema}")
    for name, days in manifest.partitions.items():
        for day in days:
            await CREATE_DAY[name](connection, day=date.fromisoformat(day))
    order = await _parents_first(connection, tables)
    for name in order:  # what is written as it was must set nothing off
        await connection.execute(f'ALTER TABLE "{name}" DISABLE TRIGGER USER')
    for name in reversed(order):
        await connection.execute(f'DELETE FROM "{name}"')  # noqa: S608  # what migrations have put there
    for name in order:
        rows = manifest.tables[name].rows
        try:
            packed = (directory / f"{name}.csv.gz").stat().st_size
            with watch.part(name, packed) as tick, unpacked(directory, f"{name}.csv", tick) as file:
                status = await connection.copy_to_table(
                    name, source=file, columns=tables[name], format="csv", header=True
                )
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as e:
            raise BackupRefused(f"the backup is damaged: {name} holds what PostgreSQL does not accept: {e}") from e
        if status != f"COPY {rows}":
            raise BackupRefused(f"the backup is damaged: {name} should have {rows} rows: {status}")
        if rows:
            watch.say(f"{name}: {rows:,} rows")
    for name in order:
        await connection.execute(f'ALTER TABLE "{name}" ENABLE TRIGGER USER')
    for name, last_value in manifest.sequences.items():
        if last_value:
            await sql.backup.set_sequence(connection, name=name, last_value=last_value)


async def _parents_first(connection: Connection, tables: Mapping[str, object]) -> list[str]:
    parents: dict[str, set[str]] = {name: set() for name in tables}
    for each in await sql.backup.references_between(connection):
        parents[each.child].add(each.parent)
    return list(TopologicalSorter(parents).static_order())


async def _add_events(connection: Connection, region: Region, directory: Path, clock: Clock, tick: Tick) -> None:
    """Those that only Redis had, as the writer would have written them."""
    with unpacked(directory, f"{EVENTS}.jsonl") as file:
        while entries := redis_part.events_in(file):
            batch = EventBatch(region)
            shards = {shard for shard, _ in entries}
            for shard in sorted(shards):
                batch.add(shard, [entry for of, entry in entries if of == shard])
            await sql.usage.create_watermarks(connection, shards=region.all_stored(sorted(shards)))
            for day in sorted(batch.days):
                if abs(day - int(clock()) // DAY_SECONDS) <= writer.PARTITION_DAYS:
                    await sql.usage.create_day(connection, day=moment(day * DAY_SECONDS).date())
            await writer.insert(connection, batch)
            await late_days.forget(connection, batch.days, clock())
            tick(len(entries))


async def _conclude(connection: Connection, manifest: Manifest, clock: Clock) -> None:
    drawn = manifest.sequences.get(PUBLICATIONS, 0)
    await sql.backup.set_sequence(connection, name=PUBLICATIONS, last_value=drawn + VERSIONS_AHEAD)
    about = {
        "taken_at": manifest.taken_at,
        "release": manifest.release,
        "journal_head": manifest.journal_head,
        "events": manifest.events,
    }
    author = Author("restore", str(uuid7()))
    await journal.record(connection, author, clock(), [Change("backup.restored", None, None, about)])
    # The journal is verified before a control plane runs again, when what nobody has sealed is too old to be believed.
    while await sql.audit.seal(connection, entries_max=ENTRIES_MAX) == ENTRIES_MAX:
        pass

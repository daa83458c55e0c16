"""What usage events take: bytes of each in its table, its index and its archive, and how long what reads them takes.

    python -m bench.events [--days 1000000 2000000 3000000 4000000] [--organizations 10000] [--of 100000000]

A table of events has one partition a day. So days of several sizes are filled, in the order of time as the writer
does, of organizations of which few use most; a day that has `--of` / 10 events is then like one of ten such days. For
each day: its bytes, and how long it takes to be filled, archived and dropped. Over all: how long usage of the largest
and of a middling organization takes to be summed, and to prove that counters are the sum of their events.

What is extrapolated to `--of` events is what each event takes, times their number; it holds as far as the bytes and
seconds of an event are the same for a small day and a large one, which the report shows.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg

from bench import report
from bench.report import Bars, number, table
from control import schema, sql
from control.analytics.periods import midnight
from control.commands.reconcile import recompute
from control.db import Database
from control.journal import Author
from control.usage.archive import archive
from devstack import postgres

GB = 10**9
TITLE = "Usage events"
LOOKS = 5
TIMEOUT_SECONDS = 3600
BEFORE_DAYS = 40  # the first day; all of them are old enough to be archived

FILL = """
INSERT INTO usage_event (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id, period_start, units,
    overage, key_id, user_id)
SELECT 'org-' || lpad(who::text, 6, '0'), at, n % 1000000, 'api_calls', who % 32,
    (extract(epoch FROM at) * 1000)::bigint, 'take', md5(n::text), $4, 1 + n % 90, 0,
    CASE WHEN n % 3 = 0 THEN substr(md5('key' || who), 1, 12) END,
    CASE WHEN n % 3 <> 0 THEN 'user_' || substr(md5(who::text), 1, 12) END
FROM (
    SELECT n, $1::timestamptz + interval '1 day' * n / $2::bigint AS at,
        1 + floor($3 * power((hashint8extended(n, 2) & 1048575) / 1048576.0, 3))::int AS who
    FROM generate_series(0::bigint, $2::bigint - 1) AS n
) AS d
"""
COUNT = """
INSERT INTO usage_counter (org, period_start, meter, used, burnt, overage)
SELECT org, period_start, meter, sum(units), 0, 0 FROM usage_event GROUP BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class Day:
    events: int
    table_bytes: int
    index_bytes: int
    filled_seconds: float
    archive_bytes: int = 0
    archived_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reads:
    largest_seconds: float
    """Usage of the organization that has the most events, by day, over all days."""
    largest_events: int
    middling_seconds: float
    middling_events: int
    recompute_seconds: float


async def filled(dsn: str, day: date, events: int, organizations: int, period: datetime) -> Day:
    connection = await asyncpg.connect(dsn, command_timeout=TIMEOUT_SECONDS)
    try:
        await sql.usage.create_day(connection, day=day)
        began = time.monotonic()
        await connection.execute(FILL, midnight(day), events, organizations, period)
        seconds, partition = time.monotonic() - began, f"usage_event_{day:%Y%m%d}"
        await connection.execute(f"VACUUM ANALYZE {partition}")
        rows = await connection.fetchval(f"SELECT count(*) FROM {partition}")  # noqa: S608 - ours
        tabled = await connection.fetchval("SELECT pg_table_size($1::regclass)", partition)
        indexed = await connection.fetchval("SELECT pg_indexes_size($1::regclass)", partition)
    finally:
        await connection.close()
    print(f"  {rows:,} events of {day}: {seconds:.0f} s", flush=True)
    return Day(rows, tabled, indexed, seconds)


async def read(dsn: str, first: date, days: int) -> Reads:
    since, until = midnight(first), midnight(first + timedelta(days=days))
    async with Database.open(dsn, timeout_seconds=TIMEOUT_SECONDS) as db, db.connection() as connection:
        await connection.execute(COUNT)
        orgs = await connection.fetch("SELECT org, count(*) AS events FROM usage_event GROUP BY 1 ORDER BY 2 DESC")
        taken = []
        for row in (orgs[0], orgs[len(orgs) // 2]):
            times = []
            for _ in range(LOOKS):
                began = time.monotonic()
                await sql.usage.buckets(connection, org=row["org"], bucket="day", since=since, until=until, meter=None)
                times.append(time.monotonic() - began)
            taken.append((statistics.median(times), row["events"]))
    began = time.monotonic()
    counters, differing = await asyncio.to_thread(recompute, dsn, None)
    if not counters or differing:
        raise SystemExit(f"{len(differing)} of {counters} counters are not the sum of their events")
    (largest, of_largest), (middling, of_middling) = taken
    return Reads(largest, of_largest, middling, of_middling, time.monotonic() - began)


async def archived(dsn: str, directory: Path, first: date, days: Sequence[Day]) -> list[Day]:
    done, began = [], time.monotonic()
    async with Database.open(dsn, timeout_seconds=TIMEOUT_SECONDS) as db:
        until, author = first + timedelta(days=len(days)), Author("bench", "bench")
        async for each in archive(db, until, directory, time.time, author):
            seconds, began = time.monotonic() - began, time.monotonic()
            of_day = days[(each.day - first).days]
            if each.events != of_day.events:
                raise SystemExit(f"{each.events} of {of_day.events} events of {each.day} are in its archive")
            size = each.file.stat().st_size
            done.append(replace(of_day, archive_bytes=size, archived_seconds=seconds))
            print(f"  archived {each.events:,} of {each.day}: {seconds:.0f} s", flush=True)
    return done


def measured(directory: Path, sizes: Sequence[int], organizations: int) -> tuple[list[Day], Reads]:
    first = datetime.now(UTC).date() - timedelta(days=BEFORE_DAYS)
    period = midnight(first)
    with postgres.temporary(directory) as server:
        dsn = postgres.create_database(server, "events")
        schema.migrate(dsn)
        days = [
            asyncio.run(filled(dsn, first + timedelta(days=number), size, organizations, period))
            for number, size in enumerate(sizes)
        ]
        reads = asyncio.run(read(dsn, first, len(days)))
        return asyncio.run(archived(dsn, directory / "archive", first, days)), reads


def tables(days: Sequence[Day], reads: Reads, of: int) -> list[str]:
    head = ["events of the day", "table", "index", "archive", "filled", "archived and dropped"]
    rows = [
        [
            f"{each.events:,}",
            f"{each.table_bytes / each.events:.0f} B each",
            f"{each.index_bytes / each.events:.0f} B each",
            f"{each.archive_bytes / each.events:.1f} B each",
            f"{each.filled_seconds / each.events * 1e6:.1f} s a million",
            f"{each.archived_seconds / each.events * 1e6:.1f} s a million",
        ]
        for each in days
    ]
    all_events, largest = sum(each.events for each in days), max(days, key=lambda each: each.events)
    share = of / largest.events
    whole = [
        ["table and index", f"{(largest.table_bytes + largest.index_bytes) * share / GB:.1f} GB"],
        ["archive", f"{largest.archive_bytes * share / GB:.1f} GB"],
        ["to archive and drop all of it", f"{largest.archived_seconds * share / 60:.0f} min"],
        ["`quotagate recompute`", f"{reads.recompute_seconds * of / all_events / 60:.1f} min"],
    ]
    largest_ms, middling_ms = reads.largest_seconds * 1000, reads.middling_seconds * 1000
    looked = [
        ["usage by day, the largest organization", f"{reads.largest_events:,}", f"{largest_ms:.0f} ms"],
        ["usage by day, a middling one", f"{reads.middling_events:,}", f"{middling_ms:.1f} ms"],
        ["`quotagate recompute`, all", f"{all_events:,}", f"{reads.recompute_seconds:.1f} s"],
    ]
    return [
        table(head, rows),
        table(["read", "events of it", "takes"], looked),
        f"Extrapolated to {number(of)} events, by what an event of the largest day takes (recompute: of all days):",
        table(["", f"{of:,} events"], whole),
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.events", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [1_000_000, 2_000_000, 3_000_000, 4_000_000]
    parser.add_argument("--days", type=int, nargs="+", default=sizes, help="events of each day")
    parser.add_argument("--organizations", type=int, default=10_000)
    parser.add_argument("--of", type=int, default=100_000_000, help="events that are extrapolated to")
    return parser.parse_args()


def main() -> int:
    given = parsed()
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as name:
        Path(name).chmod(0o711)  # under root, PostgreSQL runs as another user
        days, reads = measured(Path(name), given.days, given.organizations)
    shown = tables(days, reads, given.of)
    print("\n" + "\n\n".join(shown))
    raw = {"options": vars(given), "days": [asdict(each) for each in days], "reads": asdict(reads)}
    of_each = {f"{each.events:,} a day": (each.table_bytes + each.index_bytes) / each.events for each in days}
    bars = [Bars("bytes an event", of_each)]
    folder = report.write("events", TITLE, shown, bars, [], raw, report.machine())
    print(f"Written to {folder.relative_to(report.ROOT)}/events.json, .md and .svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())

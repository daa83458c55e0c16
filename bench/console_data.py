"""What the pages of the console are measured with: made in PostgreSQL by `console_data.sql`, events a day at a time."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from control import schema
from control.entitlements import catalogue
from devstack import demo
from devstack.demo_history import PLANS

SQL = Path(__file__).with_suffix(".sql")

EVENTS_OF_A_DAY = """
INSERT INTO usage_event (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id, period_start, units,
    overage, key_id, user_id)
SELECT l.org, e.at, e.n % 1000000, 'api_calls', 0, (extract(epoch FROM e.at) * 1000)::bigint, 'take', 'r' || e.n,
    l.anchor + (e.months || ' months')::interval, 1 + e.n % 90, 0,
    CASE WHEN e.n % 3 = 0 THEN substr(md5('key' || l.n), 1, 12) END, CASE WHEN e.n % 3 <> 0 THEN 'u' || l.n || '_1' END
FROM (
    SELECT n, $1::timestamptz + interval '1 day' * (hashint8extended(n, 1) & 1048575) / 1048576.0 AS at,
        1 + floor($4 * power((hashint8extended(n, 2) & 1048575) / 1048576.0, 3))::int AS who
    FROM generate_series($2::bigint, $3::bigint) AS n
) AS d
JOIN bench_life l ON l.n = d.who
CROSS JOIN LATERAL (
    SELECT d.n, d.at,
        (extract(year FROM age(d.at, l.anchor)) * 12 + extract(month FROM age(d.at, l.anchor)))::int AS months
) AS e
WHERE d.at >= l.anchor
ORDER BY l.org, e.at
ON CONFLICT DO NOTHING
"""
COUNTERS = """
INSERT INTO usage_counter (org, period_start, meter, used, burnt, overage, notice_at)
SELECT org, period_start, meter, sum(units), 0, sum(overage), 9223372036854775807 FROM usage_event GROUP BY 1, 2, 3
"""


def steps(values: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Each with what it makes."""
    for part in SQL.read_text().split("-- step: ")[1:]:
        about, _, sql = part.partition("\n")
        for name, value in values.items():
            sql = sql.replace(f":{name}", str(value))
        yield about, sql


def make(dsn: str, organizations: int, events: int, days: int) -> None:
    """Fills an empty database: some minutes."""
    schema.migrate(dsn)
    catalogue.apply(dsn, None, demo.PLANS, PLANS)
    asyncio.run(_fill(dsn, organizations, events, days))


async def _fill(dsn: str, organizations: int, events: int, days: int) -> None:
    connection: Any = await asyncpg.connect(dsn, command_timeout=3600, server_settings={"timezone": "UTC"})
    try:
        await connection.execute(
            "SET synchronous_commit = off; SET work_mem = '256MB'; SET maintenance_work_mem = '256MB'"
        )
        for about, sql in steps({"organizations": organizations}):
            await _told(about, connection.execute(sql))
        await connection.execute(
            "CREATE TABLE bench_life AS SELECT n, org, date_trunc('second', starts) AS anchor FROM life;"
            "CREATE UNIQUE INDEX ON bench_life (n); ANALYZE bench_life"
        )
        first = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
        per_day, began = events // days, time.monotonic()
        for number in range(days):
            day = first + timedelta(days=number)
            await connection.execute("SELECT create_usage_event_day($1)", day.date())
            # Some are older than their organization, and are none.
            drawn = (1 + number * per_day * 2, number * per_day * 2 + per_day * 105 // 100)
            await connection.execute(EVENTS_OF_A_DAY, day, *drawn, organizations)
        print(f"  events: {time.monotonic() - began:.0f} s", flush=True)
        await _told("counters", connection.execute(COUNTERS))
        await connection.execute("DROP TABLE bench_life")
        await _told("statistics", connection.execute("VACUUM ANALYZE"))
    finally:
        await connection.close()


async def _told(about: str, done: Any) -> None:
    began = time.monotonic()
    await done
    print(f"  {about}: {time.monotonic() - began:.0f} s", flush=True)

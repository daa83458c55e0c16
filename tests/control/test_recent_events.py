"""What a recovery asks PostgreSQL: the events of the last minutes, of whichever organization."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from control import schema
from control.sql.reconcile import sql

NOW = datetime.now(UTC).replace(microsecond=0)
VALUES: dict[str, object] = {
    "region": 0,
    "shard": 3,
    "shards": list(range(32)),
    "stream_ms": 0,
    "since": NOW,
    "org": "",
    "request_id": "",
    "limit_rows": 1000,
}
A_DAY = """
    INSERT INTO usage_event
        (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id, period_start, units, overage)
    SELECT 'org-' || i % 20000, $1 - i * interval '1 second', 0, 'api_calls', i % 32, 0, 'take', i::text, $1, 1, 0
    FROM generate_series(1, 80000) i ORDER BY i DESC
"""


@pytest.mark.parametrize("name", ["written_after", "written_since", "settled_since"])
async def test_what_a_server_lacks_is_found_without_reading_all_rows_of_a_day(empty_database: str, name: str) -> None:
    await asyncio.to_thread(schema.migrate, empty_database)
    statement = sql.declared[name]
    given = VALUES | {"since": NOW - timedelta(minutes=2)}
    connection = await asyncpg.connect(empty_database)
    try:
        await connection.execute("SET max_parallel_workers_per_gather = 0")
        await connection.execute(A_DAY.replace("$1", f"'{NOW.isoformat()}'::timestamptz"))
        await connection.execute("ANALYZE usage_event")
        prepared = await connection.prepare(statement.sql)
        plan = json.dumps(await prepared.explain(*(given[each] for each in statement.parameters)))
    finally:
        await connection.close()
    assert "_occurred_at_idx" in plan, plan
    assert '"Seq Scan"' not in plan, plan

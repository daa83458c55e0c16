"""What came of it all, when nothing is under way any more: three counts of the same units, and the clients' own."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg

from bench.report import Goal
from bench.soak.processes import Installation
from bench.soak.traffic import Books
from common import redis_connections
from quota import keys

WRITTEN_SECONDS = 180.0  # for the last event to be a row
QUIET_SECONDS = 3.0  # without a new row, while none is missing


@dataclass(frozen=True, slots=True)
class Counts:
    """Units, by organization."""

    events: Mapping[str, int]
    counters: Mapping[str, int]
    redis: Mapping[str, int]
    duplicated: int
    """Takes that have more than one row."""


@dataclass(frozen=True, slots=True)
class Findings:
    lost: int
    """Units that were admitted and have no row."""
    duplicated: int
    over: int
    """Units beyond an allowance, by the clients' books or by the rows."""
    drift: int
    """Organizations of which rows, counters and Redis do not say the same."""
    unaccounted: int
    """Units with a row that no call can explain, not even one that was cut."""

    @property
    def clean(self) -> bool:
        return not any((self.lost, self.duplicated, self.over, self.drift, self.unaccounted))

    def goals(self) -> list[Goal]:
        return [Goal(name.replace("over", "over-admitted"), count, 0) for name, count in asdict(self).items()]

    def __str__(self) -> str:
        return (
            f"lost {self.lost}, duplicated {self.duplicated}, over-admitted {self.over}, drift {self.drift},"
            f" unaccounted {self.unaccounted}"
        )


def findings(books: Books, counts: Counts) -> Findings:
    orgs = counts.events.keys() | books.admitted.keys()
    events = {org: counts.events.get(org, 0) for org in orgs}
    beyond = sum(max(0, events[org] - allowance) for org, allowance in books.allowance.items() if org in events)
    return Findings(
        lost=sum(max(0, books.admitted[org] - events[org]) for org in orgs),
        duplicated=counts.duplicated,
        over=max(books.over, beyond),
        drift=sum(not events[org] == counts.counters.get(org, 0) == counts.redis.get(org, 0) for org in orgs),
        unaccounted=sum(max(0, events[org] - books.admitted[org] - books.unknown[org]) for org in orgs),
    )


async def counted(at: Installation, books: Books) -> Counts:
    """When the writers have written all."""
    connection = await asyncpg.connect(at.dsn)
    try:
        await _written(connection, books.admitted.total())
        events = await connection.fetch("SELECT org, sum(units)::bigint FROM usage_event GROUP BY org")
        counters = await connection.fetch("SELECT org, sum(used)::bigint FROM usage_counter GROUP BY org")
        duplicated = await connection.fetchval(
            "SELECT count(*) - count(DISTINCT request_id) FROM usage_event WHERE kind = 'take'"
        )
    finally:
        await connection.close()
    in_redis: dict[str, int] = {}
    async with redis_connections.client(at.redis_url) as client:
        for org, _ in events:
            fields: Any = await client.hgetall(keys.org_key(org, keys.SHARDS_DEFAULT))
            in_redis[org] = sum(int(value) for field, value in fields.items() if field.startswith(b"used:"))
    return Counts(_by_org(events), _by_org(counters), in_redis, duplicated)


async def miscounted(connection: asyncpg.Connection, books: Books, answered_before: float) -> dict[str, str]:
    """By request, how: calls that were admitted and answered before that moment, and whose rows are not one unit; and
    all others whose rows are not one unit or none. Each call takes one."""
    rows = await connection.fetch(
        "SELECT request_id, sum(units)::bigint AS units, max(org) AS org,"
        " string_agg(kind || ' ' || units || ' at ' || stream_ms, ', ' ORDER BY stream_ms, stream_seq) AS rows"
        " FROM usage_event GROUP BY request_id"
    )
    admitted = {each: at for each, at in (books.answered or {}).items() if at < answered_before}
    wrong = {request_id: f"admitted at {at:.3f}, and has no row" for request_id, at in admitted.items()}
    for request_id, units, org, of_request in rows:
        wrong.pop(request_id, None)
        if units != 1 and (units != 0 or request_id in admitted):
            answered = f"admitted at {admitted[request_id]:.3f}" if request_id in admitted else "not admitted"
            wrong[request_id] = f"{org}: {answered}, and has {of_request}"
    return wrong


def _by_org(rows: Sequence[asyncpg.Record]) -> dict[str, int]:
    return {row[0]: row[1] for row in rows}


async def _written(connection: asyncpg.Connection, admitted: int) -> None:
    deadline, before, since = time.monotonic() + WRITTEN_SECONDS, -1, time.monotonic()
    while time.monotonic() < deadline:
        rows = await connection.fetchval("SELECT count(*) FROM usage_event WHERE kind = 'take'")
        if rows != before:
            before, since = rows, time.monotonic()
        elif rows >= admitted and time.monotonic() - since > QUIET_SECONDS:
            return
        await asyncio.sleep(0.5)

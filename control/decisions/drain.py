"""Refused requests, from the stream in which gateways tell of them to the database.

A batch is read, written in one transaction, and then taken out of the stream. What dies in between is written once:
each worker numbers its batches, and the row of a worker, which is locked meanwhile, says which one is written. It also
says how many requests the worker has refused in all, so what was lost on the way is known.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from common.clock import Clock
from control import sql
from control.db import Connection, Database
from control.decisions import gateway_routes
from control.moments import moment
from control.sql.decisions import Refusal
from quota import keys
from quota.kept_refusals import FIELD, Batch, BatchMalformed, decode
from quota.ledger import LedgerUnavailable

log = structlog.get_logger()

ROUND_SECONDS = 1.0
BATCHES_AT_ONCE = 50
DAYS_EVERY_SECONDS = 3600.0
PARTITION_DAYS = 2
"""A refusal that is older, or so far ahead, is of a gateway whose clock is wrong."""
DAY_SECONDS = 86_400


class RefusalDrain:
    name = "refusals"

    def __init__(self, db: Database, redis: Redis | RedisCluster, days: int, clock: Clock) -> None:
        """`days`: for how many refusals are kept."""
        self._db = db
        self._redis: Any = redis
        self._days = days
        self._clock = clock
        self._ready: set[int] = set()  # days that have a partition; counted from the epoch

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        days_at = loop.time()
        while True:
            if loop.time() >= days_at:
                await self.tidy()
                days_at = loop.time() + DAYS_EVERY_SECONDS
            if not await self.round():
                await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> int:
        """Writes what is there, up to a bound; how many batches."""
        try:
            entries = await self._redis.xrange(keys.REFUSALS, count=BATCHES_AT_ONCE)
        except RedisError as e:
            raise LedgerUnavailable(f"reading refusals: {e}") from e
        if not entries:
            return 0
        await self._write([batch for _, fields in entries if (batch := _read(fields)) is not None])
        try:
            await self._redis.xdel(keys.REFUSALS, *(entry for entry, _ in entries))
        except RedisError as e:
            raise LedgerUnavailable(f"taking out refusals: {e}") from e
        return len(entries)

    async def tidy(self) -> None:
        """Partitions for the days to come, none for those that are over, and no routes of gateways that are gone."""
        now = self._clock()
        today = int(now) // DAY_SECONDS
        await self._make_days((today, today + 1))
        before = moment(now - self._days * DAY_SECONDS)
        async with self._db.connection() as connection:
            if dropped := await sql.decisions.drop_days(connection, before=before.date()):
                log.info("refusals dropped", days=dropped, before=before.date().isoformat())
            await sql.decisions.drop_old(connection, before=before)
        await gateway_routes.forget_old(self._redis, now)

    async def _make_days(self, days: Iterable[int]) -> None:
        for day in sorted(set(days) - self._ready):
            async with self._db.connection() as connection:
                await sql.decisions.create_day(connection, day=moment(day * DAY_SECONDS).date())
            self._ready.add(day)

    async def _write(self, batches: list[Batch]) -> None:
        today = int(self._clock()) // DAY_SECONDS
        days = {refused.at_us // (DAY_SECONDS * 1_000_000) for batch in batches for refused in batch.refusals}
        await self._make_days(day for day in days if abs(day - today) <= PARTITION_DAYS)
        at = moment(self._clock())
        async with self._db.transaction() as connection:
            # In one order, so that two control planes never wait for each other.
            for batch in sorted(batches, key=lambda each: (each.source, each.sequence)):
                source = await sql.decisions.lock_source(connection, source=batch.source, gateway=batch.gateway, at=at)
                if batch.sequence > source.sequence:
                    await _insert(connection, batch)
                    await _count(connection, batch, batch.refused - source.refused, at.replace(second=0, microsecond=0))


async def _insert(connection: Connection, batch: Batch) -> None:
    rows = [
        Refusal(
            at=moment(each.at_us // 1_000_000) + timedelta(microseconds=each.at_us % 1_000_000),
            request_id=each.request_id,
            correlation=each.correlation,
            org=each.org,
            key_id=each.key_id,
            user_id=each.user,
            route=each.route,
            method=each.method,
            status=each.status,
            verdict=each.verdict,
            shadow=each.shadow,
            detail=each.detail,
            charges=[[meter, units] for meter, units in each.charges.items()],
            version=each.version,
            limits=each.limits,
            said=dict(each.said),
            gateway=batch.gateway,
        )
        for each in batch.refusals
    ]
    await sql.decisions.insert_refusals(connection, rows)
    await sql.decisions.move_source(connection, source=batch.source, sequence=batch.sequence, refused=batch.refused)


async def _count(connection: Connection, batch: Batch, refused: int, minute: Any) -> None:
    """`refused`: since the worker's batch before. What no organization accounts for was not told apart, or was lost."""
    kept = Counter(each.org or "" for each in batch.refusals)
    counts = Counter(batch.of_organizations)
    counts[""] += max(0, refused - counts.total())
    orgs = sorted(org for org in counts.keys() | kept.keys() if counts[org] or kept[org])
    await sql.decisions.count_refusals(
        connection,
        minute=minute,
        orgs=orgs,
        refused=[counts[org] for org in orgs],
        kept=[kept[org] for org in orgs],
    )


def _read(fields: Any) -> Batch | None:
    try:
        return decode(cast("bytes", fields[FIELD]))
    except (BatchMalformed, KeyError) as e:
        log.error("an entry of the stream of refusals is no batch", reason=str(e))
        return None

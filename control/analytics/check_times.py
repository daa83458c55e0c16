"""How long a quota check takes: what gateways tell is kept by minute, and read as percentiles.

A check is a take's way to Redis and back, as the gateway's worker sees it. Times are counted by powers of two of
microseconds, so a percentile is known to be at most a power of two; that is what is told.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from common.clock import Clock
from control import sql
from control.db import Connection, Database, Reads
from control.moments import moment
from control.sql.check_times import Checks
from quota import keys
from quota.check_times import FIELD, CheckTimes, CheckTimesMalformed, decode
from quota.ledger import LedgerUnavailable

log = structlog.get_logger()

ROUND_SECONDS: Final = 15.0
ENTRIES_AT_ONCE: Final = 1000
KEPT_SECONDS: Final = 400 * 86_400
TIDY_SECONDS: Final = 3600.0


class CheckTimesDrain:
    """From the stream to the database. A batch is written with its position in one transaction, and then taken out."""

    name = "check times"

    def __init__(self, db: Database, redis: Redis | RedisCluster, clock: Clock) -> None:
        self._db = db
        self._redis: Any = redis
        self._clock = clock

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        tidy_at = loop.time()
        while True:
            if loop.time() >= tidy_at:
                async with self._db.connection() as connection:
                    await sql.check_times.drop_checks(connection, before=moment(self._clock() - KEPT_SECONDS))
                tidy_at = loop.time() + TIDY_SECONDS
            if await self.round() < ENTRIES_AT_ONCE:
                await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> int:
        """Writes what is there, up to a bound; how many entries."""
        try:
            entries = await self._redis.xrange(keys.CHECK_TIMES, count=ENTRIES_AT_ONCE)
        except RedisError as e:
            raise LedgerUnavailable(f"reading check times: {e}") from e
        if not entries:
            return 0
        await self.write([(position_of(entry), fields) for entry, fields in entries])
        try:
            await self._redis.xdel(keys.CHECK_TIMES, *(entry for entry, _ in entries))
        except RedisError as e:
            raise LedgerUnavailable(f"taking out check times: {e}") from e
        return len(entries)

    async def write(self, entries: list[tuple[tuple[int, int], Any]]) -> None:
        """Those that are behind the position, in one transaction with it."""
        async with self._db.transaction() as connection:
            position = await self._lock_position(connection)
            new = [each for each in entries if each[0] > (position.stream_ms, position.stream_seq)]
            if not new:
                return
            told = [times for _, fields in new if (times := _read(fields)) is not None]
            rows = [(moment(each.minute * 60), bucket, count) for each in told for bucket, count in each.counts.items()]
            await sql.check_times.add_checks(
                connection,
                minutes=[minute for minute, _, _ in rows],
                buckets=[bucket for _, bucket, _ in rows],
                checks=[count for _, _, count in rows],
            )
            ms, seq = new[-1][0]
            if region := self._db.region.number:
                await sql.check_times.move_region_position(connection, region=region, stream_ms=ms, stream_seq=seq)
            else:
                await sql.check_times.move_position(connection, stream_ms=ms, stream_seq=seq)

    async def _lock_position(self, connection: Connection) -> sql.check_times.Position:
        if region := self._db.region.number:
            return await sql.check_times.lock_region_position(connection, region=region)
        return await sql.check_times.lock_position(connection)


def position_of(entry: bytes) -> tuple[int, int]:
    ms, _, seq = entry.partition(b"-")
    return int(ms), int(seq)


def _read(fields: Any) -> CheckTimes | None:
    try:
        times = decode(cast("bytes", fields[FIELD]).decode("ascii"))
    except (CheckTimesMalformed, KeyError, UnicodeDecodeError) as e:
        log.error("a gateway told what is no check time", reason=str(e))
        return None
    return times


@dataclass(frozen=True, slots=True)
class CheckTime:
    """Of a period: how many checks, and what so many percent of them took at most."""

    start: datetime
    checks: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


def percentiles(rows: Iterable[Checks]) -> list[CheckTime]:
    """By period. Pure."""
    periods: dict[datetime, dict[int, int]] = {}
    for row in rows:
        periods.setdefault(row.start, {})[row.bucket] = row.checks
    return [
        CheckTime(start, sum(counts.values()), *(at_most_ms(counts, share) for share in (50, 95, 99)))
        for start, counts in sorted(periods.items())
    ]


def at_most_ms(counts: dict[int, int], percent: int) -> float:
    """The end of the bucket in which the percentile is, in milliseconds."""
    wanted, seen = sum(counts.values()) * percent, 0
    for bucket in sorted(counts):
        seen += counts[bucket] * 100
        if seen >= wanted:
            return float((1 << bucket) / 1000)
    return 0.0


async def check_times(db: Reads, size: str, since: datetime, until: datetime) -> list[CheckTime]:
    """Raises StoreUnavailable."""
    async with db.connection() as connection:
        rows = await sql.check_times.checks(connection, bucket_size=size, since=since, until=until)
    return percentiles(rows)

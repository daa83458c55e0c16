"""Usage over time: sums of the rows in Postgres, and beside them what Redis has counted and is no row yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from control import sql
from control.db import Database, StoreUnavailable
from control.moments import moment
from control.sql.usage import Bucket, PrincipalBucket
from quota import keys
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import MeterUsage

Size = Literal["hour", "day", "month"]

AT_ONCE = 2  # a long time of a large organization is a long scan, and the writer needs connections, too
WAIT_SECONDS = 5.0
GROUPS_MAX = 1_000  # keys or users of one answer

DAY_SECONDS = 86_400
SECONDS_MAX: dict[Size, int] = {"hour": 31 * DAY_SECONDS, "day": 366 * DAY_SECONDS, "month": 3660 * DAY_SECONDS}
"""The longest time that is answered at once: some 750 hours, 366 days or 120 months."""
SECONDS_DEFAULT: dict[Size, int] = {"hour": DAY_SECONDS, "day": 30 * DAY_SECONDS, "month": 365 * DAY_SECONDS}


@dataclass(frozen=True, slots=True)
class Used:
    buckets: list[Bucket]
    """By meter and time; those without an event are left out."""
    unwritten: list[MeterUsage] | None
    """What the counters in Redis are ahead of the rows, by period; None: Redis does not say."""


class Buckets:
    def __init__(self, db: Database, ledger: Ledger, wait_seconds: float = WAIT_SECONDS) -> None:
        """`wait_seconds`: for one's turn; then it is 503."""
        self._wait_seconds = wait_seconds
        self._db = db
        self._ledger = ledger
        self._free = asyncio.Semaphore(AT_ONCE)

    async def used(self, org: str, size: Size, since: datetime, until: datetime, meter: str | None) -> Used:
        """Raises StoreUnavailable."""
        async with self._turn():
            return await self._used(org, size, since, until, meter)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError as e:
            raise StoreUnavailable("too many ask for usage at once") from e
        try:
            yield
        finally:
            self._free.release()

    async def used_by(
        self, org: str, by_key: bool, size: Size, since: datetime, until: datetime, meter: str | None
    ) -> list[PrincipalBucket]:
        """By API key or by user: those who used the most, the rows of each together. Raises StoreUnavailable."""
        async with self._turn(), self._db.connection() as connection:
            return await sql.usage.buckets_by(
                connection,
                org=org,
                by_key=by_key,
                bucket=size,
                since=since,
                until=until,
                meter=meter,
                limit_groups=GROUPS_MAX,
            )

    async def _used(self, org: str, size: Size, since: datetime, until: datetime, meter: str | None) -> Used:
        shard, region = keys.shard_of(org, self._ledger.shards), self._db.region
        # Rows and counters of one moment, and Redis after it: what is written in between counts as unwritten.
        async with self._db.snapshot() as connection:
            buckets = await sql.usage.buckets(connection, org=org, bucket=size, since=since, until=until, meter=meter)
            counted = await sql.usage.counters(
                connection, region=region.number, orgs=[org], shard=region.stored(shard), since=moment(0)
            )
        written = {(u.period_start, u.meter): u for u in (MeterUsage(*counter) for _, *counter in counted.usage)}
        try:
            snapshot = await self._ledger.peek(org)
        except LedgerUnavailable:
            snapshot = None
        if snapshot is None or snapshot.version == 0:
            return Used(buckets, None)
        unwritten = []
        for ahead in snapshot.usage:
            behind = written.get((ahead.period_start, ahead.meter), MeterUsage(ahead.period_start, ahead.meter, 0))
            difference = MeterUsage(
                ahead.period_start,
                ahead.meter,
                ahead.used - behind.used,
                ahead.burnt - behind.burnt,
                ahead.overage - behind.overage,
            )
            if ahead != behind and meter in (None, ahead.meter):
                unwritten.append(difference)
        return Used(buckets, unwritten)

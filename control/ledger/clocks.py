"""One clock for everything about periods: that of Redis, by which `take` knows the period.

A control plane whose own clock is ahead would end periods too early; one whose clock is behind would renew them too
late; and two of them would not agree. So none of them uses its own clock for periods. Signatures and tokens, which
outsiders check, are dated by the host's clock.
"""

import asyncio
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import structlog
from redis.exceptions import RedisError

from common.clock import Clock, system_clock
from control import incidents, sql
from control.db import Database
from control.moments import moment
from quota.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()

LOOK_SECONDS = 10.0
SKEWED = "clock_skew"
GONE_SECONDS = 600.0
"""An incident that is not renewed for so long is closed: the host that it names is gone."""


class LedgerClock:
    """Redis TIME as it was read last, plus the seconds since. It is never ahead of Redis, since a reply takes time.
    While Redis is away it goes on."""

    def __init__(self) -> None:
        self._read: float | None = None
        self._read_at = 0.0

    def update(self, time: tuple[int, int]) -> None:
        """A reply of TIME, just now."""
        seconds, microseconds = time
        self._read, self._read_at = seconds + microseconds / 1e6, monotonic()

    def __call__(self) -> float:
        if self._read is None:
            raise RuntimeError("nobody has read Redis' time yet")
        return self._read + monotonic() - self._read_at


class Clocks:
    """Compares the clocks of this host and of Postgres with that of Redis; an incident is open while one is off.

    Each look at a clock that is off renews its incident. The next look, by any host, closes incidents that are not
    renewed: a host that is gone cannot close its own."""

    name = "clocks"

    def __init__(self, db: Database, ledger: Ledger, skew_seconds_max: float, host: Clock = system_clock) -> None:
        self._db = db
        self._region = db.region
        self._redis: Any = ledger.redis
        self._skew_seconds_max = skew_seconds_max
        self._host = host
        self._keys: dict[str, Callable[[tuple[float, float]], float]] = {
            f"control plane on {socket.gethostname()}": lambda clocks: clocks[0],
            "postgres": lambda clocks: clocks[1],
        }
        self._reported: dict[str, bool] = {}  # by key: whether its incident is open
        self._looked_at = 0.0
        self.skews: dict[str, float] = {}
        """Seconds ahead of Redis, by the last look."""

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        redis = await self._redis_time()
        host = self._host()
        async with self._db.connection() as connection:
            postgres = float(await sql.health.time(connection))
            host_after = self._host()
        # Postgres answered at some moment between the two.
        ahead = (host - redis, postgres - redis - (host_after - host) / 2)
        if redis - self._looked_at > GONE_SECONDS:
            self._reported.clear()  # others have closed what was open
        await self._close_unseen(redis)
        for key, of in self._keys.items():
            self.skews[key] = of(ahead)
            incident_key = self._region.incident_key(key)
            skewed = abs(self.skews[key]) > self._skew_seconds_max
            if skewed == self._reported.get(key):
                if skewed:
                    async with self._db.connection() as connection:
                        await sql.incidents.mark_seen(connection, kind=SKEWED, key=incident_key, at=moment(redis))
                continue
            async with self._db.transaction() as connection:
                if skewed:
                    content = {"clock": key, "seconds_ahead_of_redis": round(self.skews[key], 3)}
                    log.error("a clock is off", **content)
                    await incidents.open(connection, redis, SKEWED, incident_key, None, content)
                else:
                    await incidents.close(connection, redis, SKEWED, incident_key)
            self._reported[key] = skewed
        self._looked_at = redis

    async def _close_unseen(self, now: float) -> None:
        async with self._db.connection() as connection:
            closed = await sql.incidents.close_unseen(
                connection,
                kind=SKEWED,
                prefix=self._region.incident_prefix,
                before=moment(now - GONE_SECONDS),
                at=moment(now),
            )
        for key in closed:
            log.info("a clock that was off is looked at no more", clock=key)

    async def _redis_time(self) -> float:
        """The middle of the round trip."""
        try:
            began = monotonic()
            seconds, microseconds = await self._redis.time()
        except RedisError as e:
            raise LedgerUnavailable(f"time: {e}") from e
        return float(seconds + microseconds / 1e6 + (monotonic() - began) / 2)


def ask(dsn: str) -> float:
    """How far this machine's clock is ahead of Postgres', for the command line. Raises StoreUnavailable."""

    async def do() -> float:
        async with Database.open(dsn, connections_max=1) as db, db.connection() as connection:
            await sql.health.time(connection)  # so that the next is answered at once
            before = system_clock()
            postgres = float(await sql.health.time(connection))
            return (before + system_clock()) / 2 - postgres

    return asyncio.run(do())

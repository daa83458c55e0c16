"""One clock for everything about periods: that of Redis, by which `take` knows the period.

A control plane whose own clock is ahead would end periods too early; one whose clock is behind would renew them too
late; and two of them would not agree. So none of them uses its own clock for periods. Signatures and tokens, which
outsiders check, are dated by the host's clock.
"""

import asyncio
import socket
from collections.abc import Mapping
from statistics import median_low
from time import monotonic
from typing import Any, Final

import structlog
from redis.exceptions import RedisError

from common.clock import Clock, system_clock
from common.redis_cluster.client import ClusterClient
from control import incidents, sql
from control.db import Database
from control.moments import moment
from quota.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()

LOOK_SECONDS = 10.0
SKEWED = "clock_skew"
POSTGRES: Final = "postgres"
REDIS: Final = "redis"
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
    """Compares the clocks of this host, of Postgres and of each Redis server; an incident is open while one is off.

    Each look at a clock that is off renews its incident. The next look, by any host, closes incidents that are not
    renewed: a host that is gone cannot close its own."""

    name = "clocks"

    def __init__(self, db: Database, ledger: Ledger, skew_seconds_max: float, host: Clock = system_clock) -> None:
        self._db = db
        self._region = db.region
        self._redis: Any = ledger.redis
        self._skew_seconds_max = skew_seconds_max
        self._host = host
        self._host_key = f"control plane on {socket.gethostname()}"
        self._reported: dict[str, bool] = {}  # by key: whether its incident is open
        self._looked_at = 0.0
        self.skews: dict[str, float] = {}
        """Seconds ahead of Redis, by the last look; of a Cluster's servers, ahead of most of them."""

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        redis = await self._redis_ahead()
        others = {self._host_key: 0.0, POSTGRES: await self._postgres_ahead()}
        # By the clock that those share who keep incidents: that of Redis may be the one that is off.
        now = self._host() + others[POSTGRES]
        self.skews = skews_of(others, redis)
        if now - self._looked_at > GONE_SECONDS:
            self._reported.clear()  # others have closed what was open
        await self._close_unseen(now)
        off = clocks_off(others, redis, self._skew_seconds_max)
        for key in (*others, *redis):
            await self._tell(key, off.get(key), now)
        self._looked_at = now

    async def _tell(self, key: str, content: Mapping[str, Any] | None, now: float) -> None:
        """`content`: that the clock is off; None: it is right."""
        incident_key, skewed = self._region.incident_key(key), content is not None
        if skewed == self._reported.get(key):
            if skewed:
                async with self._db.connection() as connection:
                    await sql.incidents.mark_seen(connection, kind=SKEWED, key=incident_key, at=moment(now))
            return
        async with self._db.transaction() as connection:
            if content is not None:
                log.error("a clock is off", **content)
                await incidents.open(connection, now, SKEWED, incident_key, None, content)
            else:
                await incidents.close(connection, now, SKEWED, incident_key)
        self._reported[key] = skewed

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

    async def _postgres_ahead(self) -> float:
        async with self._db.connection() as connection:
            began = self._host()
            postgres = float(await sql.health.time(connection))
        return postgres - (began + self._host()) / 2  # it answered at some moment between the two

    async def _redis_ahead(self) -> dict[str, float]:
        """Seconds that each server's clock is ahead of this host's. Raises LedgerUnavailable where none answers."""
        servers = await self._servers()
        found = await asyncio.gather(*(self._ahead(each) for each in servers.values()), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, RedisError):
                raise each
        ahead = {key: each for key, each in zip(servers, found, strict=True) if isinstance(each, float)}
        if not ahead:
            raise LedgerUnavailable(f"time: {found[0] if found else 'no server'}")
        return ahead

    async def _servers(self) -> Mapping[str, Any]:
        if not isinstance(self._redis, ClusterClient):
            return {REDIS: self._redis}
        try:
            topology = await self._redis.ask_topology()
        except RedisError as e:
            raise LedgerUnavailable(f"time: {e}") from e
        return {f"{REDIS} {address}": self._redis.at(address) for address in topology.primaries}

    async def _ahead(self, redis: Any) -> float:
        """By the middle of the round trip."""
        began = self._host()
        seconds, microseconds = await redis.time()
        return float(seconds + microseconds / 1e6 - (began + self._host()) / 2)


def skews_of(others: Mapping[str, float], redis: Mapping[str, float]) -> dict[str, float]:
    """Seconds ahead of Redis, by all clocks' seconds ahead of one of them. `redis`: of its servers."""
    most = median_low(redis.values())
    servers = {key: ahead - most for key, ahead in redis.items()} if len(redis) > 1 else {}
    return {key: ahead - most for key, ahead in others.items()} | servers


def clocks_off(
    others: Mapping[str, float], redis: Mapping[str, float], seconds_max: float
) -> dict[str, Mapping[str, Any]]:
    """Which clocks are off, and by how much. The one that stands in the middle of all is right: of three, those two are
    that agree. Where no clock is far from that one, those are off that are far from Redis."""
    right, skews = median_low([*others.values(), *redis.values()]), skews_of(others, redis)
    off = {key: ahead - right for key, ahead in (*others.items(), *redis.items()) if abs(ahead - right) > seconds_max}
    if not off:
        off = {key: skews[key] for key in others if abs(skews[key]) > seconds_max}
    return {
        key: {"clock": key, "seconds_ahead_of_redis": round(skews[key], 3)}
        if key in others
        else {"clock": key, "seconds_ahead_of_the_others": round(ahead, 3)}
        for key, ahead in off.items()
    }


def ask(dsn: str) -> float:
    """How far this machine's clock is ahead of Postgres', for the command line. Raises StoreUnavailable."""

    async def do() -> float:
        async with Database.open(dsn, connections_max=1) as db, db.connection() as connection:
            await sql.health.time(connection)  # so that the next is answered at once
            before = system_clock()
            postgres = float(await sql.health.time(connection))
            return (before + system_clock()) / 2 - postgres

    return asyncio.run(do())

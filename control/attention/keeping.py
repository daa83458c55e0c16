"""A Redis whose settings may lose what is charged, and were changed while we run: an incident for as long as it is so.
A start refuses them."""

import asyncio
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from common import redis_keeping
from common.clock import Clock
from common.redis_keeping import Losses, Persistence
from control import incidents, sql
from control.db import Database

log = structlog.get_logger()

LOSES: Final = "redis_loses"
LOOK_SECONDS: Final = 30.0


class KeepingWatch:
    name = "redis_keeping"

    def __init__(self, db: Database, redis: Redis | RedisCluster, persistence: Persistence, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._persistence: Persistence = persistence
        self._clock = clock

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        prefix = self._db.region.incident_prefix
        wanted = _by_key(prefix, await redis_keeping.ask(self._redis, self._persistence))
        async with self._db.connection() as connection:
            shown = {row.key for row in await sql.incidents.open_of_kinds(connection, kinds=[LOSES], prefix=prefix)}
        if shown == wanted.keys():
            return
        async with self._db.transaction() as connection:
            await sql.incidents.take_turns(connection, kind=LOSES)
            shown = {row.key for row in await sql.incidents.open_of_kinds(connection, kinds=[LOSES], prefix=prefix)}
            for key in sorted(wanted.keys() - shown):
                log.error("redis may lose what is charged", why=wanted[key])
                await incidents.open(connection, self._clock(), LOSES, key, None, {"why": wanted[key]})
            for key in sorted(shown - wanted.keys()):
                log.info("redis keeps what is charged again", about=key)
                await incidents.close(connection, self._clock(), LOSES, key)


def _by_key(prefix: str, losses: Losses) -> dict[str, str]:
    named = {"eviction": losses.eviction, "persistence": losses.persistence}
    return {prefix + key: why for key, why in named.items() if why is not None}

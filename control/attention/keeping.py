"""A Redis whose settings may lose what is charged, and were changed while we run: an incident for as long as it is so.
A start refuses them. A replica's count as well, since it may take the primary's place."""

import asyncio
from collections.abc import Mapping
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from common import redis_keeping
from common.clock import Clock
from common.redis_keeping import Losses, Persistence
from control.attention.standing import Standing
from control.db import Database
from control.ledger import replicas

LOSES: Final = "redis_loses"
LOOK_SECONDS: Final = 30.0


class KeepingWatch:
    name = "redis_keeping"

    def __init__(
        self, db: Database, redis: Redis | RedisCluster, url: str, persistence: Persistence, clock: Clock
    ) -> None:
        self._redis = redis
        self._url = url
        self._persistence: Persistence = persistence
        self._incidents = Standing(LOSES, db, clock)

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        wanted, silent = dict[str, str](), set[str]()
        for primary, losses in (await redis_keeping.ask(self._redis, self._persistence)).items():
            if losses is None:
                silent |= {f"{each} of {primary}" for each in _KEYS}
            elif primary:
                wanted |= {f"{key} of {primary}": f"{primary}: {why}" for key, why in _by_key(losses).items()}
            else:
                wanted |= _by_key(losses)
        for address, losses in (await replicas.losses(self._redis, self._url, self._persistence)).items():
            if losses is None:
                silent |= {f"{each} of {address}" for each in _KEYS}
            else:
                wanted |= {
                    f"{key} of {address}": f"{address} could be promoted, and {why}"
                    for key, why in _by_key(losses).items()
                }
        await self._incidents.follow(wanted, silent)


_KEYS: Final = ("eviction", "persistence")


def _by_key(losses: Losses) -> dict[str, str]:
    named: Mapping[str, str | None] = {key: getattr(losses, key) for key in _KEYS}
    return {key: why for key, why in named.items() if why is not None}

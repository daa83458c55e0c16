"""Servers that differ on who holds the ledger, be they Sentinels or the nodes of a Cluster: an incident for as long as
it is so. For a moment they differ at each failover, so that only what is seen twice counts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from redis.exceptions import RedisError

from common import redis_sentinel
from common.clock import Clock
from common.redis_cluster import topology
from common.redis_cluster.client import ClusterClient
from common.redis_sentinel import Sentinels
from common.redis_sentinel_url import is_sentinel
from control.attention.keeping import KeepingWatch
from control.attention.standing import Standing
from control.background import Service
from control.db import Database
from control.settings.control_plane import Redis as RedisSettings
from quota.ledger import LedgerUnavailable, UnsupportedServer

SENTINELS: Final = "redis_sentinels_disagree"
CLUSTER: Final = "redis_cluster_disagrees"
LOOK_SECONDS: Final = 15.0

Ask = Callable[[], Awaitable[str | None]]
"""In what they differ, as a sentence; None: they agree. Raises LedgerUnavailable."""


class ViewsWatch:
    name = "redis_views"

    def __init__(self, incidents: Standing, about: str, ask: Ask) -> None:
        """`about`: whose views they are, the incident's key."""
        self._incidents = incidents
        self._about = about
        self._ask = ask
        self._differed = False

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        why = await self._ask()
        before, self._differed = self._differed, why is not None
        if why is None:
            await self._incidents.follow({})
        elif before:
            await self._incidents.follow({self._about: why})


def watches(db: Database, redis: Any, settings: RedisSettings, clock: Clock) -> Iterator[Service]:
    """What is watched of the servers that hold the ledger."""
    url = settings.url.get_secret_value()
    yield KeepingWatch(db, redis, url, settings.persistence, clock)
    if isinstance(redis, ClusterClient):
        yield ViewsWatch(Standing(CLUSTER, db, clock), "cluster", of_cluster(redis))
    elif is_sentinel(url):
        sentinels = Sentinels(url)
        yield ViewsWatch(Standing(SENTINELS, db, clock), sentinels.name, of_sentinels(sentinels))


def of_sentinels(sentinels: Sentinels) -> Ask:
    async def ask() -> str | None:
        try:
            return redis_sentinel.disagreement(sentinels.name, await sentinels.answers())
        finally:
            await sentinels.aclose()  # each look has connections of its own: it comes seldom

    return ask


def of_cluster(cluster: ClusterClient) -> Ask:
    async def ask() -> str | None:
        try:
            return topology.disagreement(await cluster.views())
        except UnsupportedServer as e:
            return str(e)
        except RedisError as e:
            raise LedgerUnavailable(f"cluster slots: {e}") from e

    return ask

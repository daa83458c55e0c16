"""What is wrong with what servers say of the ledger: Sentinels or nodes of a Cluster differ, slots are not served, the
number of shards is another one. Each is an incident for as long as it is so. For a moment servers differ at each
failover, so that only what is seen twice counts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from common import redis_sentinel
from common.clock import Clock
from common.redis_cluster import topology
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, View
from common.redis_sentinel import Sentinels
from common.redis_sentinel_url import is_sentinel
from control.attention.keeping import KeepingWatch
from control.attention.standing import Standing
from control.background import Service
from control.db import Database
from control.ledger import primaries
from control.settings.control_plane import Redis as RedisSettings
from quota.ledger import Ledger, LedgerUnavailable, ShardMismatch, UnsupportedServer

SENTINELS: Final = "redis_sentinels_disagree"
CLUSTER: Final = "redis_cluster_disagrees"
UNSERVED: Final = "redis_slots_unserved"
SHARDS: Final = "redis_shards_differ"
PRIMARIES: Final = "redis_two_primaries"
LOOK_SECONDS: Final = 15.0

Ask = Callable[[], Awaitable[str | None]]
"""What is wrong, as a sentence; None: nothing is. Raises LedgerUnavailable."""


class ViewsWatch:
    def __init__(self, incidents: Standing, about: str, ask: Ask, name: str = "redis_views") -> None:
        """`about`: what it is about, the incident's key. `name`: of the service."""
        self.name = name
        self._incidents = incidents
        self._about = about
        self._ask = ask
        self._was_wrong = False

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        why = await self._ask()
        before, self._was_wrong = self._was_wrong, why is not None
        if why is None:
            await self._incidents.follow({})
        elif before:
            await self._incidents.follow({self._about: why})


def watches(db: Database, redis: Any, settings: RedisSettings, clock: Clock) -> Iterator[Service]:
    """What is watched of the servers that hold the ledger."""
    url = settings.url.get_secret_value()
    yield KeepingWatch(db, redis, url, settings.persistence, clock)
    yield ViewsWatch(Standing(SHARDS, db, clock), "redis", of_layout(Ledger(redis, settings.shards)), "redis_layout")
    if isinstance(redis, ClusterClient):
        yield ViewsWatch(Standing(CLUSTER, db, clock), "cluster", of_cluster(redis, topology.disagreement))
        yield ViewsWatch(Standing(UNSERVED, db, clock), "cluster", of_cluster(redis, topology.unserved), "redis_slots")
    elif is_sentinel(url):
        sentinels = Sentinels(url)
        yield ViewsWatch(Standing(SENTINELS, db, clock), sentinels.name, of_sentinels(sentinels))
    else:
        yield ViewsWatch(Standing(PRIMARIES, db, clock), "redis", partial(primaries.several, url), "redis_primaries")


def of_sentinels(sentinels: Sentinels) -> Ask:
    async def ask() -> str | None:
        try:
            answers = await sentinels.answers()
        finally:
            await sentinels.aclose()  # each look has connections of its own: it comes seldom
        return redis_sentinel.disagreement(sentinels.name, answers) or redis_sentinel.two_primaries(answers)

    return ask


def of_cluster(cluster: ClusterClient, judge: Callable[[Mapping[Address, View]], str | None]) -> Ask:
    async def ask() -> str | None:
        try:
            views = await cluster.views()
        except UnsupportedServer as e:
            return str(e)
        if not views:
            raise LedgerUnavailable("cluster slots: no server answers")
        return judge(views)

    return ask


def of_layout(ledger: Ledger) -> Ask:
    """Whether Redis was installed with as many shards as our settings say. A start refuses it; after a flush another
    process may have installed it anew."""

    async def ask() -> str | None:
        try:
            await ledger.check_layout()
        except ShardMismatch as e:
            return str(e)
        except UnsupportedServer as e:
            raise LedgerUnavailable(str(e)) from e
        return None

    return ask

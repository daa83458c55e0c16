"""Who holds which slots of a Cluster, asked again whenever a server says that it does not, or is away, and now and
then; and whether the Cluster was installed with as many shards as the settings say."""

import asyncio
from typing import Any, Final, Protocol, cast

import structlog
from redis.exceptions import RedisError

from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Topology
from quota import keys
from quota.ledger import ShardMismatch

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.3
"""The topology is asked so often while all is well. A server that hangs is noticed by nothing else where Redis may take
its time; and a recovery waits no longer than a second until it is left (control/reconcile/rejoining.py)."""
LAYOUT_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.1
"""And so often while a server is away, or a shard waits."""


class Links(Protocol):
    @property
    def are_settled(self) -> bool:
        """All servers are connected to, and no shard waits."""

    def apply(self, topology: Topology) -> None:
        """Another one than before."""

    def refuse(self, reason: str) -> None:
        """Nothing may be taken from this Cluster, for as long as `refused` says so."""

    async def close_retired(self) -> None: ...


class TopologyWatch:
    __slots__ = ("_links", "_look", "_redis", "_shards", "_topology", "_unknown", "refused")

    def __init__(self, redis: ClusterClient, shards: int, links: Links) -> None:
        self._redis = redis
        self._shards = shards
        self._links = links
        self._look = asyncio.Event()
        self._topology: Topology | None = None
        self._unknown: str | None = None  # why nobody told it last
        self.refused: str | None = None
        """Why nothing may be taken from this Cluster."""

    @property
    def fault(self) -> str | None:
        """Why not all shards are where they can be found; None while they are."""
        uncovered = None if self._topology is None else self._topology.uncovered
        return self.refused or self._unknown or uncovered

    def look_now(self) -> None:
        self._look.set()

    async def run(self) -> None:
        while True:
            self._look.clear()
            await self._ask()
            await self._links.close_retired()
            if self.refused is not None or not self._links.are_settled:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            try:
                await asyncio.wait_for(self._look.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    async def _ask(self) -> None:
        try:
            topology = await self._redis.ask_topology()
        except (RedisError, OSError) as e:  # what is known goes on
            reason = str(e) or type(e).__name__
            if reason != self._unknown:
                log.warning("redis does not tell who holds which slots", reason=reason)
            self._unknown = reason
            return
        self._unknown = None
        if self.refused is not None or topology == self._topology:
            return
        log.info("redis is a cluster", primaries=[str(address) for address in topology.primaries])
        if topology.uncovered is not None:
            log.error("takes of shards that no server has are refused", reason=topology.uncovered)
        self._links.apply(topology)
        self._topology = topology

    async def watch_layout(self) -> None:
        """A start compares the number of shards, and may have found nobody who knew it. While the server that knows it
        is away, the others go on."""
        while True:
            try:
                installed = int(await cast("Any", self._redis.get(keys.LAYOUT)) or self._shards)
            except (RedisError, OSError) as e:
                log.debug("the number of shards is not compared", reason=str(e))
            else:
                self._judge(installed)
            await asyncio.sleep(LAYOUT_SECONDS)

    def _judge(self, installed: int) -> None:
        before, self.refused = self.refused, None
        if installed != self._shards:
            self.refused = str(ShardMismatch(self._shards, installed))
            if before is None:
                log.error("takes are refused", reason=self.refused)
            self._links.refuse(self.refused)

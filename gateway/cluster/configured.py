"""The way to Redis as the settings have it: one link, or those to the servers of a Cluster."""

import asyncio

from common.redis_cluster.address import is_cluster, taken_apart
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address
from gateway.cluster.kept import SharedKeeper
from gateway.cluster.links import Links
from gateway.cluster.node_place import NodePlace
from gateway.cluster.node_way import NodeWay
from gateway.ledger.configured import durability_of, link_of
from gateway.ledger.link import Link
from gateway.ledger.receipts import Receipts
from gateway.redis.connection import ReplyTimes
from gateway.redis.vouching import SeenEpochs
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from gateway.settings.redis import Redis


def way_of(
    loop: asyncio.AbstractEventLoop,
    settings: Redis,
    redis: object,
    seen: SeenEpochs | None = None,
    intervals: Intervals = DEFAULT_INTERVALS,
) -> Link | Links:
    """`redis`: a client of the same Redis, which tells who holds what. `seen` is shared by the workers of a gateway."""
    url = settings.url.get_secret_value()
    if not is_cluster(url):
        return link_of(loop, settings, seen, intervals)
    assert isinstance(redis, ClusterClient)  # noqa: S101 - the same URL makes both
    apart, shared = taken_apart(url), SeenEpochs(None) if seen is None else seen
    times = ReplyTimes(settings.timeout_ms / 1000, settings.budget_ms / 1000)
    receipts = Receipts(settings.receipts_max, intervals)

    def make(address: Address, way: NodeWay, links: Links) -> Link:
        return Link(
            loop,
            apart.of(address),
            settings.shards,
            links.times,
            seen=shared,
            receipts=receipts,
            durability=durability_of(loop, settings, intervals),
            intervals=intervals,
            way=way,
            keeper=SharedKeeper(links.receipts_keeper),
            place=NodePlace(links),
        )

    return Links(loop, redis, make, settings.shards, times, receipts, settings.unwritten_seconds_max, intervals)

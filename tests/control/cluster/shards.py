"""What the servers of a Cluster hold, shard by shard."""

from collections.abc import Mapping

from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from control.http.context import Context
from quota import generation, keys
from quota.keys import SHARDS_DEFAULT
from tests.control.plane import Entitled


async def epochs(cluster: ClusterClient) -> Mapping[int, int]:
    async with cluster.pipeline(transaction=False) as pipeline:
        for shard in range(SHARDS_DEFAULT):
            pipeline.get(keys.generation_key(shard))
        held = await pipeline.execute()
    return {shard: generation.epoch_of(text) for shard, text in enumerate(held) if text is not None}


async def shards_of(cluster: ClusterClient, address: Address) -> set[int]:
    topology = await cluster.ask_topology()
    return {s for s in range(SHARDS_DEFAULT) if topology.owner(slot_of(keys.generation_key(s))) == address}


async def one_of_each(context: Context, cluster: ClusterClient, entitled: Entitled) -> dict[Address, str]:
    """An organization with allowance in the shards of each primary, published."""
    topology, orgs = await cluster.ask_topology(), dict[Address, str]()
    while len(orgs) < len(topology.primaries):
        org = await entitled("bulk")
        owner = topology.owner(slot_of(keys.org_key(org, SHARDS_DEFAULT)))
        assert owner is not None
        orgs[owner] = org
    for org in orgs.values():
        await context.publisher.install(org)
    return orgs


async def recoveries(context: Context) -> int:
    async with context.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM audit_journal WHERE action = 'usage.recovered'"))

"""Which servers a stack has for the ledger, by their ports."""

from collections.abc import Mapping
from typing import Final

from common.redis_topology import Topology
from devstack import regions

CLUSTER_SERVERS: Final = 6
"""The first half are primaries, each with a replica among the others."""
PORTS: Final[Mapping[Topology, tuple[str, ...]]] = {
    Topology.SINGLE: ("valkey",),
    Topology.SENTINEL: ("valkey", "valkey-2", "valkey-3", "sentinel-1", "sentinel-2", "sentinel-3"),
    Topology.CLUSTER: tuple(f"{kind}-{n + 1}" for kind in ("node", "bus") for n in range(CLUSTER_SERVERS)),
    Topology.REGIONS: tuple(map(regions.server_of, regions.PARTS)),
}
"""By the names under which a data directory remembers them."""

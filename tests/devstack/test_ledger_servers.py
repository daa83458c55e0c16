"""The servers of a stack's ledger, in the directory of a stack of before."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis.cluster import RedisCluster

from common.redis_topology import Topology
from devstack.child import Child, StackError, stopping
from devstack.ledger_servers import servers
from devstack.ports import LOOPBACK, free_port
from devstack.topology import PORTS


def free_ports(topology: Topology) -> dict[str, int]:
    return {name: free_port() for name in PORTS[topology]}


@contextmanager
def started(directory: Path, ports: Mapping[str, int]) -> Iterator[None]:
    with ExitStack() as living:

        def keep(child: Child) -> Child:
            return living.enter_context(stopping(child))

        cluster = servers(Topology.CLUSTER, directory, ports, directory, ())
        cluster.start(keep, keep)
        cluster.wait_ready(time.sleep)
        yield


@pytest.mark.parametrize(
    ("topology", "kept"),
    [(Topology.CLUSTER, "valkey"), (Topology.SINGLE, "cluster"), (Topology.SENTINEL, "cluster")],
)
def test_a_ledger_of_another_topology_is_not_left_behind(topology: Topology, kept: str, tmp_path: Path) -> None:
    (tmp_path / kept).mkdir()
    with pytest.raises(StackError, match="has the ledger of another --topology"):
        servers(topology, tmp_path, free_ports(topology), tmp_path, ())


def test_a_cluster_whose_ports_have_all_changed_finds_itself_again_with_its_data(tmp_path: Path) -> None:
    before = free_ports(Topology.CLUSTER)
    with started(tmp_path, before):
        _client(before).set("units", 7)
    now = free_ports(Topology.CLUSTER)
    with started(tmp_path, now):
        assert _client(now).get("units") == b"7"


def _client(ports: Mapping[str, int]) -> RedisCluster:
    return RedisCluster(host=LOOPBACK, port=ports["node-1"])

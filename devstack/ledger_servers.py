"""The servers that keep the ledger: one Valkey, or several that stand in for each other."""

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import redis

from common.redis_topology import Topology
from devstack import regions, valkey, valkey_cluster
from devstack.child import Child, Pause, StackError
from devstack.ports import LOOPBACK
from devstack.sentinels import NAME, SAFE, Group, fields, last_primary
from devstack.topology import CLUSTER_SERVERS
from devstack.valkey_cluster import ClusterNode

_ADDRESS: Final = re.compile(r"(?<= )[0-9.]+:[0-9]+@[0-9]+")
KNOWN_SECONDS: Final = 60.0  # Sentinels hear of each other within two seconds
Keep = Callable[[Child], Child]


class Servers(Protocol):
    """Those of one run."""

    @property
    def url(self) -> str:
        """For `redis.url` of both planes; of several regions it is that of the first."""

    def facts(self) -> dict[str, Any]:
        """More about them, for ready.json."""

    def start(self, keep: Keep, keep_watcher: Keep) -> None:
        """`keep`: as a store. `keep_watcher`: as what watches the stores, and ends before them."""

    def wait_ready(self, pause: Pause) -> None:
        """Raises StackError."""


def servers(
    topology: Topology, directory: Path, ports: Mapping[str, int], logs: Path, inherited_fds: Sequence[int]
) -> Servers:
    """Raises StackError where the directory has the ledger of another topology: what PostgreSQL lacks of it would be
    left behind."""
    cluster, kept = directory / "cluster", directory / ("valkey" if topology is Topology.CLUSTER else "cluster")
    if kept.exists():
        raise StackError(f"{directory} has the ledger of another --topology, in {kept}: choose another --data-dir")
    if topology is Topology.CLUSTER:
        return _Cluster(cluster, ports, logs, inherited_fds)
    if topology is Topology.REGIONS:
        return Regions(directory, ports, logs, inherited_fds)
    if (others := directory / regions.server_of(regions.OTHERS[0])).exists():
        raise StackError(f"{directory} has the ledgers of --topology regions, in {others}: choose another --data-dir")
    if topology is Topology.SINGLE:
        if primary := last_primary(directory):
            raise StackError(
                f"valkey-{primary + 1} in {directory} had the ledger last: go on with --topology sentinel, or choose "
                "another --data-dir"
            )
        return _Single(directory / "valkey", ports["valkey"], logs / "valkey.log", inherited_fds)
    data = [port for name, port in ports.items() if name.startswith("valkey")]
    sentinels = [port for name, port in ports.items() if name.startswith("sentinel")]
    return _BySentinels(Group(directory, data, sentinels, logs, inherited_fds, settings=SAFE))


class _Single:
    def __init__(self, directory: Path, port: int, log: Path, inherited_fds: Sequence[int]) -> None:
        self._directory, self._port, self._log, self._inherited_fds = directory, port, log, inherited_fds
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return valkey.url(self._port)

    def facts(self) -> dict[str, Any]:
        return {}

    def start(self, keep: Keep, keep_watcher: Keep) -> None:
        child = valkey.start(self._directory, self._port, log=self._log, inherited_fds=self._inherited_fds)
        self._child = keep(child)

    def wait_ready(self, pause: Pause) -> None:
        assert self._child is not None  # noqa: S101 - it was started before
        valkey.wait_ready(self._child, self._port, pause)


class Regions:
    """A Valkey for each."""

    def __init__(self, directory: Path, ports: Mapping[str, int], logs: Path, inherited_fds: Sequence[int]) -> None:
        names = {region: regions.server_of(region) for region in regions.PARTS}
        self.urls = {region: valkey.url(ports[name]) for region, name in names.items()}
        self._servers = [
            _Single(directory / name, ports[name], logs / f"{name}.log", inherited_fds) for name in names.values()
        ]

    @property
    def url(self) -> str:
        return self.urls[regions.FIRST]

    def facts(self) -> dict[str, Any]:
        return {"redis_servers": [url.rpartition("://")[2].partition("/")[0] for url in self.urls.values()]}

    def start(self, keep: Keep, keep_watcher: Keep) -> None:
        for server in self._servers:
            server.start(keep, keep_watcher)

    def wait_ready(self, pause: Pause) -> None:
        for server in self._servers:
            server.wait_ready(pause)


class _BySentinels:
    def __init__(self, group: Group) -> None:
        self._group = group
        self._children: list[tuple[Child, int]] = []

    @property
    def url(self) -> str:
        return self._group.url

    def facts(self) -> dict[str, Any]:
        return {
            "redis_servers": [f"{LOOPBACK}:{port}" for port in self._group.servers],
            "sentinels": [f"{LOOPBACK}:{port}" for port in self._group.sentinels],
        }

    def start(self, keep: Keep, keep_watcher: Keep) -> None:
        group = self._group
        group.prepare()
        self._children = [(keep(group.start_server(n)), port) for n, port in enumerate(group.servers)]
        self._children += [(keep_watcher(group.start_sentinel(n)), port) for n, port in enumerate(group.sentinels)]

    def wait_ready(self, pause: Pause = time.sleep) -> None:
        for child, port in self._children:
            valkey.wait_ready(child, port, pause)
        for child, port in self._children[len(self._group.servers) :]:
            child.wait_until(partial(self._knows_all, port), KNOWN_SECONDS, pause)

    def _knows_all(self, port: int) -> bool:
        """Whether this Sentinel knows all replicas and all other Sentinels: before, it could not fail over."""
        with (
            suppress(redis.RedisError),
            redis.Redis(LOOPBACK, port, socket_timeout=1, decode_responses=True) as sentinel,
        ):
            about = fields(sentinel.execute_command("SENTINEL", "MASTER", NAME))
            others, replicas = int(about["num-other-sentinels"]), int(about["num-slaves"])
            return others == len(self._group.sentinels) - 1 and replicas == len(self._group.servers) - 1
        return False


NODE_TIMEOUT_MS: Final = 2000  # a primary that does not answer for so long is replaced


class _Cluster:
    """Three primaries, and a replica of each. `formed` in its directory says under which addresses they know each
    other; without it they were never used."""

    def __init__(self, directory: Path, ports: Mapping[str, int], logs: Path, inherited_fds: Sequence[int]) -> None:
        self._directory, self._formed = directory, directory / "formed"
        names = [f"node-{n + 1}" for n in range(CLUSTER_SERVERS)]
        self._nodes = [
            ClusterNode(
                directory / name,
                ports[name],
                ports[name.replace("node", "bus")],
                log=logs / f"valkey-{name}.log",
                inherited_fds=inherited_fds,
            )
            for name in names
        ]

    @property
    def url(self) -> str:
        return valkey_cluster.url(self._nodes)

    def facts(self) -> dict[str, Any]:
        return {"redis_servers": [node.address for node in self._nodes]}

    def start(self, keep: Keep, keep_watcher: Keep) -> None:
        if not self._formed.exists():
            shutil.rmtree(self._directory, ignore_errors=True)
        else:
            self._rename(json.loads(self._formed.read_text()))
        for node in self._nodes:
            node.start({"cluster-node-timeout": str(NODE_TIMEOUT_MS)})
            assert node.child is not None  # noqa: S101 - it was started
            keep(node.child)

    def wait_ready(self, pause: Pause = time.sleep) -> None:
        for node in self._nodes:
            node.wait_ready(pause)
        half = CLUSTER_SERVERS // 2
        try:
            if self._formed.exists():
                valkey_cluster.wait_formed(self._nodes, half, pause)
            else:
                valkey_cluster.form(self._nodes[:half], self._nodes[half:], pause)
        except TimeoutError as e:
            raise StackError(f"{e}; their logs are beside that of the control plane") from e
        self._formed.write_text(json.dumps([node.known_as for node in self._nodes]))

    def _rename(self, known: Sequence[str]) -> None:
        """A port that was taken by somebody else is another one now, and all servers have changed theirs together."""
        names = {before: node.known_as for before, node in zip(known, self._nodes, strict=True)}
        for node in self._nodes:
            text = node.nodes_file.read_text()
            node.nodes_file.write_text(_ADDRESS.sub(lambda found: names.get(found[0], found[0]), text))

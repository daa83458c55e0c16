"""A Cluster of Valkeys of the wheel on loopback: primaries, and a replica of each."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis import Redis

from devstack import valkey
from devstack.child import Child, Pause, stopping
from devstack.ports import LOOPBACK, free_port

SLOTS: Final = 16384
FORMED_TIMEOUT_SECONDS: Final = 60.0
NODES_FILE: Final = "nodes.conf"


@dataclass(slots=True)
class ClusterNode:
    """One server. Its bus listens at a port of its own."""

    directory: Path
    port: int
    bus_port: int
    child: Child | None = None
    log: Path | None = None
    """None: beside the directory."""
    inherited_fds: Sequence[int] = ()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def known_as(self) -> str:
        """In the file in which each server writes down whom it knows."""
        return f"{self.address}@{self.bus_port}"

    @property
    def nodes_file(self) -> Path:
        return self.directory / NODES_FILE

    @property
    def redis(self) -> Any:
        """A client, which the caller closes."""
        return Redis(host=LOOPBACK, port=self.port, socket_timeout=10, decode_responses=True)

    def start(self, settings: Mapping[str, str] | None = None, *, durable: bool = True) -> None:
        own = {
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-config-file": NODES_FILE,
            "cluster-require-full-coverage": "no",  # one primary without a replica stops its own slots alone
        }
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        self.child = valkey.start(
            self.directory,
            self.port,
            log=self.log or self.directory.with_suffix(".log"),
            durable=durable,
            inherited_fds=self.inherited_fds,
            settings=own | dict(settings or {}),
        )

    def wait_ready(self, pause: Pause = time.sleep) -> None:
        assert self.child is not None  # noqa: S101 - it was started
        valkey.wait_ready(self.child, self.port, pause)


def url(nodes: Sequence[ClusterNode]) -> str:
    """The address of the Cluster."""
    return "redis+cluster://" + ",".join(node.address for node in nodes)


def form(primaries: Sequence[ClusterNode], replicas: Sequence[ClusterNode], pause: Pause = time.sleep) -> None:
    """Makes a Cluster of servers that are ready and know nobody. Each primary has a share of the slots; the replicas go
    round them. Raises TimeoutError."""
    deadline = time.monotonic() + FORMED_TIMEOUT_SECONDS
    nodes = [*primaries, *replicas]
    for number, node in enumerate(nodes):
        with node.redis as redis:
            redis.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if node in primaries:
                first, end = SLOTS * number // len(primaries), SLOTS * (number + 1) // len(primaries)
                redis.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            redis.execute_command("CLUSTER MEET", LOOPBACK, nodes[0].port, nodes[0].bus_port)
    _wait(deadline, pause, lambda: all(_knows(node) == len(nodes) for node in nodes))
    for number, replica in enumerate(replicas):
        with primaries[number % len(primaries)].redis as primary, replica.redis as redis:
            redis.execute_command("CLUSTER REPLICATE", primary.execute_command("CLUSTER MYID"))
    _wait(deadline, pause, lambda: all(map(_follows, replicas)))
    wait_formed(nodes, len(replicas), pause)


def wait_formed(nodes: Sequence[ClusterNode], replicas: int, pause: Pause = time.sleep) -> None:
    """All slots are served, and all servers reach each other and know of so many replicas: before, none could take
    over. Raises TimeoutError."""
    deadline = time.monotonic() + FORMED_TIMEOUT_SECONDS
    _wait(deadline, pause, lambda: is_formed(nodes, replicas))


def is_formed(nodes: Sequence[ClusterNode], replicas: int) -> bool:
    """Raises redis-py's errors where one of them is away."""
    return all(_is_ok(node) and _reached_replicas(node) == replicas for node in nodes)


@contextmanager
def running(
    directory: Path,
    primaries: int = 3,
    replicas: int = 3,
    settings: Mapping[str, str] | None = None,
    *,
    durable: bool = True,
) -> Iterator[list[ClusterNode]]:
    """A Cluster for tests: the primaries first, then the replicas. A test may stop each and start it again. Not
    `durable`: `settings` say what is written to disk."""
    names = [f"node-{number}" for number in range(primaries + replicas)]
    nodes = [ClusterNode(directory / name, free_port(), free_port()) for name in names]
    with ExitStack() as stack:
        for node in nodes:
            node.start(settings, durable=durable)
            stack.callback(end, node)
        for node in nodes:
            node.wait_ready()
        form(nodes[:primaries], nodes[primaries:])
        yield nodes


def end(node: ClusterNode) -> None:
    if node.child is not None:
        with stopping(node.child):
            node.child = None


def _wait(deadline: float, pause: Pause, done: Callable[[], bool]) -> None:
    while not done():
        if time.monotonic() >= deadline:
            raise TimeoutError("the Valkeys do not become a Cluster")
        pause(0.02)


def _knows(node: ClusterNode) -> int:
    with node.redis as redis:
        nodes: Mapping[str, Any] = redis.execute_command("CLUSTER NODES")
        return sum("handshake" not in str(each["flags"]) for each in nodes.values())


def _reached_replicas(node: ClusterNode) -> int | None:
    """None where it has no connection to one of the others."""
    with node.redis as redis:
        nodes: Mapping[str, Any] = redis.execute_command("CLUSTER NODES")
        if not all(each["connected"] for each in nodes.values()):
            return None
        return sum("slave" in str(each["flags"]) for each in nodes.values())


def _is_ok(node: ClusterNode) -> bool:
    with node.redis as redis:
        state: Mapping[str, str] = redis.execute_command("CLUSTER INFO")
        # It is "ok" as well without those slots that it has not heard of yet.
        return state["cluster_state"] == "ok" and int(state["cluster_slots_ok"]) == SLOTS


def _follows(node: ClusterNode) -> bool:
    with node.redis as redis:
        info: Mapping[str, str] = redis.info("replication")
        return info["role"] == "slave" and info["master_link_status"] == "up"

"""A Redis Cluster of three primaries and three replicas, to which something can be done; and an installation on it."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bench.faults.servers import LEVELS
from bench.soak.processes import Installation, Part
from common.redis_cluster.topology import slot_of
from devstack import valkey_cluster
from devstack.child import Child
from devstack.ports import LOOPBACK, free_port
from devstack.valkey_cluster import ClusterNode
from quota import keys
from quota.keys import SHARDS_DEFAULT

PRIMARIES, REPLICAS = 3, 3
NODE_TIMEOUT_MS: Final = 2000
VIEW_SECONDS: Final = 0.1
MIGRATED_SECONDS: Final = 30.0


class ClusterServers:
    """By their numbers. `org` lives on the one that is struck, which the others say."""

    def __init__(self, nodes: list[ClusterNode], settings: Mapping[str, str], org: str) -> None:
        self._nodes = nodes
        self._settings = settings
        self._primary = 0  # as it was seen last
        self._slot = slot_of(keys.org_key(org, SHARDS_DEFAULT))
        self.parts = [Part(f"node-{n}", node.port, self._starts(node), lambda _: None) for n, node in enumerate(nodes)]

    def form(self) -> None:
        for part, node in zip(self.parts, self._nodes, strict=True):
            part.start()
            node.wait_ready()
        valkey_cluster.form(self._nodes[:PRIMARIES], self._nodes[PRIMARIES:])

    @property
    def url(self) -> str:
        return valkey_cluster.url(self._nodes)

    def primary(self) -> int:
        """Of those that answer, by the newest configuration that one of them knows."""
        owner = self._owner_of(self._slot)
        if owner is not None:
            self._primary = owner
        return self._primary

    def watched(self) -> bool:
        with suppress(redis.RedisError, OSError, TimeoutError):
            return valkey_cluster.is_formed(self._nodes, REPLICAS)
        return False

    def look_often(self, *, often: bool) -> None:
        """They always do."""

    def heal(self, number: int) -> None:
        """It has heard of the next primary by itself."""

    def hand_over(self, number: int) -> None:
        """As an operator has a replica take over, who waits for what it lacks."""
        with self._nodes[number].redis as primary:
            own = primary.execute_command("CLUSTER MYID")
        for node in self._nodes:
            with node.redis as client:
                about = client.execute_command("CLUSTER NODES")
                mine = next(each for each in about.values() if "myself" in each["flags"])
                if mine["master_id"] == own:
                    client.execute_command("CLUSTER FAILOVER")
                    return

    def migrate(self, number: int) -> None:
        """The slot goes to another primary. Raises TimeoutError."""
        with self._nodes[number].redis as source:
            about = source.execute_command("CLUSTER NODES")
        others = (at for at, each in about.items() if "myself" not in each["flags"] and _is_primary(each))
        self.move(number, self._number(next(others)), self._slot, self._slot)

    def move(self, source: int, target: int, first: int, last: int) -> None:
        """These slots go from one primary to another, by Valkey's own migration. Raises TimeoutError."""
        with self._nodes[source].redis as server, self._nodes[target].redis as other:
            node = other.execute_command("CLUSTER MYID")
            server.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", node)
        deadline = time.monotonic() + MIGRATED_SECONDS
        while self._owner_of(first) != target:
            if time.monotonic() > deadline:
                raise TimeoutError("the slots do not move")
            time.sleep(0.02)

    def _owner_of(self, slot: int) -> int | None:
        """As `primary`."""
        with ThreadPoolExecutor(len(self._nodes)) as asking:  # one that hangs holds up no other
            views = asking.map(lambda number: self._owner(number, slot), range(len(self._nodes)))
            return max((view for view in views if view is not None), default=(0, None))[1]

    def _owner(self, number: int, slot: int) -> tuple[int, int] | None:
        """By one of them: the epoch of the configuration of the slot's owner, and its number."""
        with suppress(redis.RedisError, OSError, StopIteration):
            port, once = self._nodes[number].port, Retry(NoBackoff(), 0)
            with redis.Redis(LOOPBACK, port, socket_timeout=VIEW_SECONDS, retry=once) as client:
                about: Mapping[str, Any] = client.execute_command("CLUSTER NODES")
            address, owner = next(each for each in about.items() if _is_primary(each[1]) and _has(each[1], slot))
            return int(owner["epoch"]), self._number(address)
        return None

    def _number(self, address: str) -> int:
        return [node.port for node in self._nodes].index(int(address.rpartition(":")[2]))

    def _starts(self, node: ClusterNode) -> Callable[[], Child]:
        def start() -> Child:
            node.start(self._settings)
            assert node.child is not None  # noqa: S101 - it was started
            return node.child

        return start


class ClusterInstallation(Installation):
    """Two gateways and two control planes, whose Redis is a Cluster."""

    def __init__(self, level: str, org: str, node_timeout_ms: int = NODE_TIMEOUT_MS) -> None:
        super().__init__()
        self._times, of_servers = LEVELS[level]
        self.needs_all: Final = level == "replica"
        """Whether nothing is admitted while a server is away: a primary has one replica, which must confirm."""
        self._org = org
        self._of_servers = {"cluster-node-timeout": str(node_timeout_ms), "repl-diskless-sync-delay": "0", **of_servers}

    def _ledger(self) -> str:
        places = [self.directory / f"node-{number}" for number in range(PRIMARIES + REPLICAS)]
        nodes = [ClusterNode(place, free_port(), free_port()) for place in places]
        self.servers = ClusterServers(nodes, self._of_servers, self._org)
        for part in self.servers.parts:
            self._stack.callback(part.end)
        self.servers.form()
        return self.servers.url


def _has(about: Mapping[str, Any], slot: int) -> bool:
    return any(int(each[0]) <= slot <= int(each[-1]) for each in about["slots"])


def _is_primary(about: Mapping[str, Any]) -> bool:
    flags = str(about["flags"]).split(",")
    return "master" in flags and "fail" not in flags

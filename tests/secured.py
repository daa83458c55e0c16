"""Redis servers that speak TLS alone, ask who connects for a certificate, and let in one user by a password.

They are Debian's: the wheel's Valkey is built without TLS.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from redis import Redis
from redis.exceptions import RedisError

from devstack import valkey_cluster
from devstack.child import Child, Pause, spawn, stopping
from devstack.ports import LOOPBACK, free_port
from devstack.sentinels import NAME, fields
from devstack.valkey_cluster import ClusterNode

BINARY: Final = shutil.which("redis-server")
NEEDED: Final = pytest.mark.skipif(BINARY is None, reason="needs Debian's redis-server, which has TLS")
READY_SECONDS: Final = 60.0
NODE_TIMEOUT_MS: Final = 1000
DOWN_AFTER_MS: Final = 500


@dataclass(frozen=True)
class Door:
    """Who is let in by servers, and whom they believe."""

    user: str
    password: str
    shown: Path
    """The certificate of the servers, with its key."""
    believed: Path
    """The authorities of certificates that they are shown."""

    @property
    def settings(self) -> list[str]:
        return [
            f"bind {LOOPBACK}",
            "port 0",
            *(f"{name} {value}" for name, value in certificate(self.shown).items()),
            f"tls-ca-cert-file {self.believed}",
            "tls-replication yes",
            "user default off",
            f"user {self.user} on >{self.password} ~* &* +@all",
        ]

    def client(self, port: int) -> Any:
        """The caller closes it."""
        return Redis(
            LOOPBACK,
            port,
            username=self.user,
            password=self.password,
            ssl=True,
            ssl_certfile=str(self.shown),
            ssl_keyfile=str(self.shown),
            ssl_ca_certs=str(self.believed),
            socket_timeout=10,
            decode_responses=True,
        )

    def answers(self, port: int) -> bool:
        with suppress(RedisError, OSError), self.client(port) as client:
            return bool(client.ping())
        return False


def certificate(shown: Path) -> Mapping[str, str]:
    """The settings of a server that shows it."""
    return {"tls-cert-file": str(shown), "tls-key-file": str(shown)}


@contextmanager
def showing(client: Any, shown: Path, before: Path) -> Iterator[None]:
    """Meanwhile whoever connects to a server is shown another certificate. `client` has a connection already."""

    def show(file: Path) -> None:
        client.execute_command("CONFIG SET", *chain.from_iterable(certificate(file).items()))

    show(shown)
    try:
        yield
    finally:
        show(before)


def options(prefix: str = "", /, **given: object) -> str:
    return urlencode({f"{prefix}{name}": str(value) for name, value in given.items()})


def start(directory: Path, lines: Sequence[str], *words: str) -> Child:
    assert BINARY is not None
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "redis.conf"
    if not file.exists():  # else it has written there what it is by now
        file.write_text("\n".join([*lines, f"dir {directory}", ""]))
    return spawn(directory.name, [BINARY, str(file), *words], log=directory.with_suffix(".log"))


def kill(child: Child) -> None:
    child.process.kill()
    child.process.wait()


@contextmanager
def single(directory: Path, door: Door) -> Iterator[tuple[Child, int]]:
    """One server, and its port."""
    port = free_port()
    with stopping(start(directory, _of_server(door, port, None))) as child:
        child.wait_until(partial(door.answers, port), READY_SECONDS)
        yield child, port


# A Cluster


@dataclass(slots=True)
class SecuredNode(ClusterNode):
    door: Door | None = None

    @property
    def opened(self) -> Door:
        assert self.door is not None
        return self.door

    @property
    def redis(self) -> Any:
        return self.opened.client(self.port)

    def start(self, settings: Mapping[str, str] | None = None, *, durable: bool = True) -> None:
        door = self.opened
        lines = [
            *door.settings,
            f"tls-port {self.port}",
            "tls-cluster yes",
            "cluster-enabled yes",
            f"cluster-port {self.bus_port}",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-require-full-coverage no",
            f"masteruser {door.user}",
            f"masterauth {door.password}",
            f"appendonly {'yes' if durable else 'no'}",
            "repl-diskless-sync-delay 0",
            *(f"{name} {value}" for name, value in (settings or {}).items()),
        ]
        self.child = start(self.directory, lines)

    def wait_ready(self, pause: Pause = time.sleep) -> None:
        assert self.child is not None
        self.child.wait_until(partial(self.opened.answers, self.port), READY_SECONDS, pause)


@contextmanager
def cluster(directory: Path, door: Door, primaries: int, replicas: int = 1) -> Iterator[list[SecuredNode]]:
    """The primaries first. The replica is that of the first one."""
    names = [f"node-{number}" for number in range(primaries + replicas)]
    nodes = [SecuredNode(directory / name, free_port(), free_port(), door=door) for name in names]
    with ExitStack() as stack:
        for node in nodes:
            node.start()
            stack.callback(valkey_cluster.end, node)
        for node in nodes:
            node.wait_ready()
        valkey_cluster.form(nodes[:primaries], nodes[primaries:])
        yield nodes


def cluster_url(nodes: Sequence[SecuredNode], credentials: str, given: str) -> str:
    return f"rediss+cluster://{credentials}@{','.join(node.address for node in nodes)}?{given}"


# Sentinels


@dataclass(frozen=True)
class Watched:
    """The first server is the primary at first. All of them are told by their ports."""

    servers: Mapping[int, Child]
    sentinels: Mapping[int, Child]
    door: Door
    door_of_sentinels: Door

    def primary(self) -> int:
        """By the newest configuration that a Sentinel knows."""
        return max(self._views())[1]

    def is_whole(self) -> bool:
        """Each Sentinel knows the others, and all replicas, which hear the primary: a failover would succeed."""
        return all(map(self._knows_all, self.sentinels))

    def url(self, credentials: str, given: str) -> str:
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.sentinels)
        return f"rediss+sentinel://{credentials}@{hosts}/{NAME}/0?{given}"

    def _views(self) -> Iterator[tuple[int, int]]:
        for port in self.sentinels:
            with self.door_of_sentinels.client(port) as client:
                about = fields(client.execute_command("SENTINEL", "MASTER", NAME))
                yield int(about["config-epoch"]), int(about["port"])

    def _knows_all(self, port: int) -> bool:
        with self.door_of_sentinels.client(port) as client:
            about = fields(client.execute_command("SENTINEL", "MASTER", NAME))
            replicas = [fields(each) for each in client.execute_command("SENTINEL", "REPLICAS", NAME)]
        hearing = [each for each in replicas if each["flags"] == "slave" and each["master-link-status"] == "ok"]
        others = about["num-other-sentinels"] == str(len(self.sentinels) - 1)
        return others and len(hearing) == len(self.servers) - 1 and about["flags"] == "master"


@contextmanager
def watched(
    directory: Path, door: Door, door_of_sentinels: Door, servers: int = 2, sentinels: int = 3
) -> Iterator[Watched]:
    """The Sentinels are let in by the servers with their own certificate, and the user and password of the servers."""
    of_servers, of_sentinels = ([free_port() for _ in range(count)] for count in (servers, sentinels))
    with ExitStack() as stack:
        started = dict[int, Child]()
        for number, port in enumerate(of_servers):
            lines = _of_server(door, port, None if number == 0 else of_servers[0])
            started[port] = stack.enter_context(stopping(start(directory / f"server-{number}", lines)))
        for number, port in enumerate(of_sentinels):
            lines = _of_sentinel(door_of_sentinels, port, door, of_servers[0], sentinels)
            child = start(directory / f"sentinel-{number}", lines, "--sentinel")
            started[port] = stack.enter_context(stopping(child))
        for port, child in started.items():
            opened = door if port in of_servers else door_of_sentinels
            child.wait_until(partial(opened.answers, port), READY_SECONDS)
        yield Watched(
            {port: started[port] for port in of_servers},
            {port: started[port] for port in of_sentinels},
            door,
            door_of_sentinels,
        )


def _of_server(door: Door, port: int, follows: int | None) -> list[str]:
    return [
        *door.settings,
        f"tls-port {port}",
        f"masteruser {door.user}",
        f"masterauth {door.password}",
        "appendonly yes",
        "repl-diskless-sync-delay 0",
        *([] if follows is None else [f"replicaof {LOOPBACK} {follows}"]),
    ]


def _of_sentinel(door: Door, port: int, of_servers: Door, primary: int, sentinels: int) -> list[str]:
    return [
        *door.settings,
        f"tls-port {port}",
        f"sentinel monitor {NAME} {LOOPBACK} {primary} {sentinels // 2 + 1}",
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {NAME} 5000",
        f"sentinel auth-user {NAME} {of_servers.user}",
        f"sentinel auth-pass {NAME} {of_servers.password}",
        f"sentinel sentinel-user {door.user}",
        f"sentinel sentinel-pass {door.password}",
    ]

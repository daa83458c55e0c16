"""A primary, two replicas and three Sentinels, to each of which something can be done; and an installation on them."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import redis

from bench.soak.processes import Installation, Part
from devstack import valkey
from devstack.child import Child
from devstack.ports import LOOPBACK, free_port
from devstack.sentinels import NAME, REPLICA_USER, SAFE, SENTINEL_USER, Group, fields

SERVERS, SENTINELS = 3, 3
DOWN_AFTER_MS: Final = 500
LEVELS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "memory": ("", {}),
    "aof": (", durability: aof", {"appendfsync": "always"}),
    "replica": (", durability: replica", {}),
}
"""Durability level -> settings of the gateway's `redis`, and of each server."""


class WatchedServers:
    """By their numbers; which of them is the primary, the Sentinels say."""

    def __init__(self, group: Group, kept: Callable[[Part], Part]) -> None:
        """`kept`: starts a part, and ends it in the end."""
        self._group = group
        group.prepare()
        self.parts = [kept(self._part(n, port, group.start_server)) for n, port in enumerate(group.servers)]
        self.sentinels = [kept(self._part(n, port, group.start_sentinel)) for n, port in enumerate(group.sentinels)]

    @property
    def url(self) -> str:
        return self._group.url

    def primary(self) -> int:
        """By the newest configuration that a Sentinel knows."""
        views = [view for port in self._group.sentinels if (view := self._view(port)) is not None]
        return self._group.servers.index(max(views)[1])

    def watched(self) -> bool:
        """Whether each Sentinel knows all servers and all Sentinels, and each replica hears the primary."""
        if not all(self._knows_all(port) for port in self._group.sentinels):
            return False
        port = self._group.servers[self.primary()]
        with suppress(redis.RedisError, OSError), self.client(port) as client:
            about = client.info("replication")
            states = [about[f"slave{n}"]["state"] for n in range(about["connected_slaves"])]
            return states == ["online"] * (SERVERS - 1)
        return False

    def cut_off(self, number: int) -> None:
        """No other server and no Sentinel reaches it any more. Clients do, and it is a primary as it was."""
        # A Sentinel that is not let in goes on as the default user, whose PING then says that the server is down.
        self._ping(number, "-ping")
        self._let_in(number, "off", REPLICA_USER, SENTINEL_USER)

    def deafen(self, number: int) -> None:
        """Its replicas hear no more of it."""
        self._let_in(number, "off", REPLICA_USER)

    def heal(self, number: int) -> None:
        """It is reached again, and follows the primary, as a Sentinel has it do after some time."""
        self._let_in(number, "on", REPLICA_USER, SENTINEL_USER)
        self._ping(number, "+ping")
        primary = self.primary()
        if primary != number:
            with self.client(self._group.servers[number]) as client:
                client.replicaof(LOOPBACK, str(self._group.servers[primary]))

    def fail_over(self, *how: str) -> None:
        """`COORDINATED`: the primary has its replica take over, and refuses no write that it has taken."""
        with self.client(self._group.sentinels[0]) as client:
            client.execute_command("SENTINEL", "FAILOVER", NAME, *how)

    def look_often(self, *, often: bool) -> None:
        """Sentinels that look at replicas every second, not every ten, know sooner that these are whole again. During a
        failover they look every second anyway."""
        for port in self._group.sentinels:
            with self.client(port) as client:
                client.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 1000 if often else 10_000)

    def client(self, port: int) -> "redis.Redis":
        return redis.Redis(LOOPBACK, port, socket_timeout=2, decode_responses=True)

    def _let_in(self, number: int, state: str, *users: str) -> None:
        with self.client(self._group.servers[number]) as client:
            for user in users:
                client.execute_command("ACL", "SETUSER", user, state)
                if state == "off":
                    client.execute_command("CLIENT", "KILL", "USER", user)

    def _ping(self, number: int, rule: str) -> None:
        with self.client(self._group.servers[number]) as client:
            client.execute_command("ACL", "SETUSER", "default", rule)

    def _view(self, port: int) -> tuple[int, int] | None:
        with suppress(redis.RedisError, OSError):
            about = self._about(port)
            with self.client(port) as client:
                _, primary = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
            return int(about["config-epoch"]), int(primary)
        return None

    def _knows_all(self, port: int) -> bool:
        with suppress(redis.RedisError, OSError):
            about = self._about(port)
            with self.client(port) as client:
                others = [fields(each) for each in client.execute_command("SENTINEL", "REPLICAS", NAME)]
            good = [each for each in others if each["flags"] == "slave" and each["master-link-status"] == "ok"]
            knows_others = about["num-other-sentinels"] == str(SENTINELS - 1)
            return about["flags"] == "master" and len(good) == SERVERS - 1 and knows_others
        return False

    def _about(self, port: int) -> dict[str, str]:
        with self.client(port) as client:
            return fields(client.execute_command("SENTINEL", "MASTER", NAME))

    def _part(self, number: int, port: int, start: Callable[[int], Child]) -> Part:
        return Part(start.__name__, port, lambda: start(number), lambda child: valkey.wait_ready(child, port))


class WatchedInstallation(Installation):
    """Two gateways and two control planes, whose Redis is what Sentinels name."""

    needs_all: Final = False
    """One of two replicas may be away."""

    def __init__(self, level: str, down_after_ms: int = DOWN_AFTER_MS) -> None:
        super().__init__()
        self._times, self._of_servers = LEVELS[level]
        self._down_after_ms = down_after_ms

    def _ledger(self) -> str:
        group = Group(
            self.directory / "servers",
            [free_port() for _ in range(SERVERS)],
            [free_port() for _ in range(SENTINELS)],
            self.directory,
            down_after_ms=self._down_after_ms,
            settings={**SAFE, **self._of_servers},
            secret=secrets.token_hex(16),
        )
        self.servers = WatchedServers(group, self._kept)
        return group.url

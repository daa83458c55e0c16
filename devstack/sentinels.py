"""A primary, replicas that follow it, and the Sentinels that put one of them in its place: all of the wheel's Valkey.

Each server has a settings file, into which it writes whom it follows when a Sentinel has told it: a server that is
killed and started again comes back as what it was last.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devstack import valkey
from devstack.child import Child
from devstack.ports import LOOPBACK

NAME = "quotagate"
"""Of the primary at the Sentinels."""
DOWN_AFTER_MS = 1000  # a primary that does not answer for so long is down in one Sentinel's opinion
FAILOVER_TIMEOUT_MS = 5_000  # a failover that came to nothing is tried again after twice as long
SAFE: Final = {"min-replicas-to-write": "1", "min-replicas-max-lag": "3"}
"""A primary that its replicas do not hear refuses writes: it was cut off, and another one may take its place."""
SENTINEL_USER, REPLICA_USER = "sentinel", "replica"
_MONITORS = re.compile(rf'^sentinel monitor "?{NAME}"? \S+ ([0-9]+)', re.MULTILINE)
_PORT = re.compile(r"^port ([0-9]+)", re.MULTILINE)
_EPOCH = re.compile(rf'^sentinel config-epoch "?{NAME}"? ([0-9]+)', re.MULTILINE)


@dataclass(frozen=True)
class Group:
    """`servers` and `sentinels` are ports. `secret`: replicas and Sentinels are let in as users of their own."""

    directory: Path
    servers: Sequence[int]
    sentinels: Sequence[int]
    logs: Path
    inherited_fds: Sequence[int] = ()
    down_after_ms: int = DOWN_AFTER_MS
    settings: Mapping[str, str] = field(default_factory=dict)
    """More of each server."""
    secret: str | None = None

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}/0"

    @property
    def quorum(self) -> int:
        return len(self.sentinels) // 2 + 1

    def prepare(self) -> int:
        """Writes the settings of all of them, before they are started: the primary is the one that was it last. The
        number of its server."""
        primary = last_primary(self.directory)
        for number, port in enumerate(self.servers):
            self._write(self._server_file(number), self._of_server(port, None if number == primary else primary))
        for number, port in enumerate(self.sentinels):
            self._write(self._sentinel_file(number), self._of_sentinel(number, port, self.servers[primary]))
        return primary

    def start_server(self, number: int) -> Child:
        return valkey.spawn_with(self._server_file(number), f"valkey-{number + 1}", self.logs, self.inherited_fds)

    def start_sentinel(self, number: int) -> Child:
        file, name = self._sentinel_file(number), f"sentinel-{number + 1}"
        return valkey.spawn_with(file, name, self.logs, self.inherited_fds, "--sentinel")

    def _of_server(self, port: int, follows: int | None) -> list[str]:
        lines = [f"port {port}", "appendonly yes", "appendfsync everysec", 'save ""', "repl-diskless-sync-delay 0"]
        if follows is not None:
            lines.append(f"replicaof {LOOPBACK} {self.servers[follows]}")
        if self.secret is not None:
            lines += [
                f"user {SENTINEL_USER} on >{self.secret} ~* &* +@all",
                f"user {REPLICA_USER} on >{self.secret} +psync +replconf +ping",
                f"masteruser {REPLICA_USER}",
                f"masterauth {self.secret}",
            ]
        return [*lines, *(f"{name} {value}" for name, value in self.settings.items())]

    def _of_sentinel(self, number: int, port: int, primary: int) -> list[str]:
        lines = [
            f"port {port}",
            f"sentinel monitor {NAME} {LOOPBACK} {primary} {self.quorum}",
            f"sentinel down-after-milliseconds {NAME} {self.down_after_ms}",
            f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}",
            f"sentinel parallel-syncs {NAME} {len(self.servers)}",
        ]
        if self.secret is not None:
            lines += [f"sentinel auth-user {NAME} {SENTINEL_USER}", f"sentinel auth-pass {NAME} {self.secret}"]
        return lines

    def _write(self, file: Path, lines: Sequence[str]) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text("\n".join([f"bind {LOOPBACK}", f"dir {file.parent}", *lines, ""]))

    def _server_file(self, number: int) -> Path:
        return _server_file(self.directory, number)

    def _sentinel_file(self, number: int) -> Path:
        return self.directory / f"sentinel-{number + 1}" / "sentinel.conf"


def last_primary(directory: Path) -> int:
    """The number of the server that was it when the group of this directory ran last, by the newest configuration that
    a Sentinel has written down; the first one where none has."""
    texts = [file.read_text() for file in directory.glob("sentinel-*/sentinel.conf")]
    known = [(int(epoch[1]) if (epoch := _EPOCH.search(text)) else 0, text) for text in texts]
    monitors = _MONITORS.search(max(known)[1]) if known else None
    if monitors is None:
        return 0
    # By the ports of that run: they may be others now.
    number = 0
    while (file := _server_file(directory, number)).exists():
        if (port := _PORT.search(file.read_text())) and port[1] == monitors[1]:
            return number
        number += 1
    return 0


def fields(reply: Any) -> dict[str, str]:
    """What a Sentinel says of one server: redis-py has it as a list or as a dictionary."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def _server_file(directory: Path, number: int) -> Path:
    # The first one has the data of a stack that was of one server before.
    return directory / ("valkey" if number == 0 else f"valkey-{number + 1}") / "valkey.conf"

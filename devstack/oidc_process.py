"""The OpenID provider as a child process. Its app is `devstack.oidc`; this side stays light for the supervisor."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devstack import sample_process
from devstack.child import Child, Pause, spawn, stopping
from devstack.ports import LOOPBACK

START_TIMEOUT_SECONDS = 60.0


def url(port: int) -> str:
    """Its issuer, too."""
    return f"http://{LOOPBACK}:{port}"


def start(port: int, file: Path, *, log: Path, inherited_fds: Sequence[int] = ()) -> Child:
    """`file`: clients and people (devstack/oidc/directory.py)."""
    argv = [sys.executable, "-m", "devstack.oidc", "--port", str(port), "--file", str(file)]
    return spawn("oidc", argv, log=log, grace_seconds=5, inherited_fds=inherited_fds)


def wait_ready(child: Child, port: int, pause: Pause = time.sleep) -> None:
    child.wait_until(lambda: sample_process.answers(port, "/keys"), START_TIMEOUT_SECONDS, pause)


@contextmanager
def running(port: int, file: Path, directory: Path) -> Iterator[str]:
    """A provider for tests, with its log in `directory`. Yields its issuer."""
    with stopping(start(port, file, log=directory / "oidc.log")) as child:
        wait_ready(child, port)
        yield url(port)

"""The sample upstream as a child process. Its app is `devstack.sample`; this side stays light for the supervisor."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from devstack.child import Child, Pause, spawn, stopping
from devstack.ports import LOOPBACK, free_port

START_TIMEOUT_SECONDS = 60.0


def url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def start(port: int, *, log: Path, inherited_fds: Sequence[int] = ()) -> Child:
    argv = [sys.executable, "-m", "devstack.sample", "--port", str(port)]
    return spawn("upstream", argv, log=log, grace_seconds=5, inherited_fds=inherited_fds)


def wait_ready(child: Child, port: int, pause: Pause = time.sleep) -> None:
    child.wait_until(lambda: answers(port, "/_/hits"), START_TIMEOUT_SECONDS, pause)


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """A sample upstream for tests, with its log in `directory`. Yields its URL."""
    port = free_port()
    with stopping(start(port, log=directory / "upstream.log")) as child:
        wait_ready(child, port)
        yield url(port)


def hits(upstream_url: str) -> dict[str, Any]:
    """Requests that reached the upstream since its start or `forget_hits`: `{"total": int, "by_org": {org: int}}`."""
    return _hits(upstream_url, "GET")


def forget_hits(upstream_url: str) -> None:
    _hits(upstream_url, "DELETE")


def answers(port: int, path: str) -> bool:
    """Whether a GET of this path on loopback is answered with 200 at once."""
    connection = HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _hits(upstream_url: str, method: str) -> dict[str, Any]:
    connection = HTTPConnection(upstream_url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, "/_/hits")
        counted: dict[str, Any] = json.load(connection.getresponse())
        return counted
    finally:
        connection.close()

"""A Valkey of a test's own."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack import valkey
from devstack.child import Child
from devstack.ports import free_port


class Store:
    """A Valkey that a test may stop, continue and end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.child: Child | None = None

    @property
    def url(self) -> str:
        return valkey.url(self.port)

    def start(self) -> None:
        self.child = valkey.start(self.directory, self.port, log=self.directory / "valkey.log", durable=True)
        valkey.wait_ready(self.child, self.port)

    def send(self, what: signal.Signals) -> None:
        assert self.child is not None
        os.kill(self.child.process.pid, what)

    def end(self) -> None:
        if self.child is not None:
            self.send(signal.SIGCONT)
            self.child.stop()
            self.child = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

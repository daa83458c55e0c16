"""The children of one stack: when one dies, all of them are stopped."""

import os
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from devstack.child import Child, ServiceDied

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """Somebody pressed Ctrl-C, or asked this process to end."""


class Children:
    """Children, each of a stage. Leaving the context stops the highest stage first; those of one stage stop together.

    Signals only set a flag, which the waits check. An exception from a handler could come between the start of a child
    and the line that remembers it, and the child would stay behind."""

    def __init__(self) -> None:
        self._stages: dict[int, list[Child]] = {}
        self._stop_requests = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._wakeup_reader, self._wakeup_writer = os.pipe()

    def __enter__(self) -> Self:
        os.set_blocking(self._wakeup_reader, False)
        os.set_blocking(self._wakeup_writer, False)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        for signum in STOP_SIGNALS:
            self._handle(signum, self._request_stop)
        self._handle(signal.SIGCHLD, lambda *_: None)  # for the wake-up alone: a death is noticed at once
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        requests_before = self._stop_requests
        for stage in sorted(self._stages, reverse=True):
            for child in self._stages[stage]:
                child.ask_to_stop()
            for child in self._stages[stage]:
                in_a_hurry = self._stop_requests > requests_before  # a second Ctrl-C
                child.end(grace_seconds=0 if in_a_hurry else None)
        signal.set_wakeup_fd(-1)
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        os.close(self._wakeup_reader)
        os.close(self._wakeup_writer)

    def keep(self, child: Child, stage: int = 0) -> Child:
        self._stages.setdefault(stage, []).append(child)
        return child

    def pause(self, seconds: float | None) -> None:
        """Waits, at most that long. Raises `StopRequested`, or `ServiceDied` for the first child that ended."""
        self._check()
        if select.select([self._wakeup_reader], [], [], seconds)[0]:
            os.read(self._wakeup_reader, 512)
        self._check()

    def watch(self) -> None:
        """Returns when somebody asks us to stop. Raises `ServiceDied`."""
        try:
            while True:
                self.pause(None)
        except StopRequested:
            return

    def _check(self) -> None:
        if self._stop_requests:
            raise StopRequested
        for children in self._stages.values():
            for child in children:
                if child.exit_code is not None:
                    raise ServiceDied(child)

    def _handle(self, signum: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
        if signum is signal.SIGHUP and signal.getsignal(signum) is signal.SIG_IGN:
            return  # under nohup
        self._handlers[signum] = signal.signal(signum, handler)

    def _request_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop_requests += 1

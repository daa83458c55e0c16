"""Timeouts from one coarse sweep over deadlines: moving a deadline is an assignment, and no request owns a timer.

Each tick walks over all connections and compares their deadlines, about 50 ns each: ten thousand connections cost a
thousandth of a core, while a heap of timers would cost every request two insertions and two removals.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

import structlog

log = structlog.get_logger()

TICK_SECONDS = 0.5  # a timeout fires at most two of them late
NEVER = float("inf")


class Timed(Protocol):
    deadline: float
    """Loop time after which `on_deadline` is called, once; `NEVER` while nothing is awaited. Moved by assignment."""

    def on_deadline(self) -> None: ...


class DeadlineSweep:
    def __init__(self, loop: asyncio.AbstractEventLoop, tick_seconds: float = TICK_SECONDS) -> None:
        self.tick_seconds = tick_seconds
        self._loop = loop
        self.now = loop.time() + tick_seconds
        """What deadlines are counted from, without asking the clock: loop time at the next tick; none fires early."""
        self._timed: set[Timed] = set()
        self._timer = loop.call_later(tick_seconds, self._tick)

    def add(self, timed: Timed) -> None:
        self._timed.add(timed)

    def discard(self, timed: Timed) -> None:
        self._timed.discard(timed)

    def __iter__(self) -> Iterator[Timed]:
        return iter(self._timed)

    def close(self) -> None:
        self._timer.cancel()
        self._timed.clear()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self.tick_seconds, self._tick)
        now = self._loop.time()
        self.now = now + self.tick_seconds
        for timed in [timed for timed in self._timed if timed.deadline <= now]:
            timed.deadline = NEVER
            try:
                timed.on_deadline()
            except Exception:  # one connection's fault must not keep the others' timeouts from firing
                log.exception("a timeout failed")

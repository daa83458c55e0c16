"""Timeouts from one coarse wheel: a connection stands on it once and moves its own deadline by an assignment.

A timer a request would cost two heap operations each; here a deadline that keeps moving away costs nothing until
the slot it was filed under comes round, where it is filed anew or fires.
"""

import asyncio
from typing import Protocol

TICK_SECONDS = 0.25  # a timeout fires at most two ticks late
FAR = float("inf")


class Timed(Protocol):
    deadline: float
    """Loop time after which `on_deadline` is called; `FAR` while nothing is awaited."""
    slot: int
    """Where it is filed; 0: nowhere. Belongs to the wheel."""

    def on_deadline(self) -> None: ...


class Wheel:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time()
        """Loop time at the last tick: what deadlines are counted from, without asking the clock."""
        self._slots: dict[int, set[Timed]] = {}
        self._current = int(self.now / TICK_SECONDS)
        self._timer = loop.call_later(TICK_SECONDS, self._tick)

    def expire(self, timed: Timed, deadline: float) -> None:
        """Sets a deadline. Files it, if it was not, or if it comes before the slot it was filed under."""
        timed.deadline = deadline
        if timed.slot * TICK_SECONDS > deadline + TICK_SECONDS or not timed.slot:
            self.forget(timed)
            self._file(timed)

    def forget(self, timed: Timed) -> None:
        if timed.slot and (filed := self._slots.get(timed.slot)) is not None:
            filed.discard(timed)
        timed.slot = 0

    def close(self) -> None:
        self._timer.cancel()
        self._slots.clear()

    def _file(self, timed: Timed) -> None:
        if timed.deadline == FAR:
            return
        timed.slot = max(int(timed.deadline / TICK_SECONDS) + 1, self._current + 1)
        self._slots.setdefault(timed.slot, set()).add(timed)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self.now = self._loop.time()
        last, self._current = self._current, int(self.now / TICK_SECONDS)
        for slot in range(last + 1, self._current + 1):
            for timed in self._slots.pop(slot, ()):
                timed.slot = 0
                if timed.deadline <= self.now:
                    timed.deadline = FAR
                    timed.on_deadline()
                else:
                    self._file(timed)

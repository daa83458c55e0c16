"""In place of a client that has left, where the route says so: the answer is read on for what it reports.

The client's connection is gone at once, and with it what it cost. What the upstream still does for it goes on to be one
of the worker's connections, so that it counts as under way, and a worker that drains waits for it.
"""

import asyncio
from typing import Any, Protocol

from gateway.http.deadlines import DeadlineSweep
from gateway.settings.metering import OnAbort


class OpenConnections(Protocol):
    """Of a worker, as uvicorn counts them. It waits for them when it stops."""

    @property
    def connections(self) -> set[Any]: ...


class AbsentWorker(Protocol):
    """What holds the exchange."""

    @property
    def deadlines(self) -> DeadlineSweep: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...


class AbsentExchange(Protocol):
    """The exchange whose client has left."""

    @property
    def worker(self) -> AbsentWorker: ...
    def end_absent(self) -> None: ...
    def abandon(self) -> None: ...


class Absent:
    """What an exchange writes to then. It ends with the exchange, or when its bounds are reached."""

    writing_paused = False
    in_flight = 1
    certificate_fields = b""  # the request has gone upstream, with those of the client that was there

    def __init__(
        self, exchange: AbsentExchange, state: OpenConnections, address: bytes, proto: bytes, sent: int, bounds: OnAbort
    ) -> None:
        self.address, self.proto = address, proto
        self.sent_bytes = sent  # to the client, while it was there
        self._exchange = exchange
        self._state = state
        self._left_bytes = bounds.drain_bytes_max
        self._deadlines = exchange.worker.deadlines
        self.deadline = self._deadlines.now + bounds.drain_seconds
        self._deadlines.add(self)
        state.connections.add(self)

    # For the exchange and its upstream

    def write(self, data: bytes) -> None:
        before, self._left_bytes = self._left_bytes, self._left_bytes - len(data)
        if before >= 0 > self._left_bytes:
            # Not from within the upstream's read: what that has brought may be the end.
            self._exchange.worker.loop.call_soon(self.stop)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def date_field(self) -> bytes:
        return b""

    def exchange_done(self, exchange: AbsentExchange) -> None:
        if self._forgotten():
            exchange.end_absent()

    def cut(self, *, reset: bool) -> None:
        self.stop()

    # For the worker

    def shutdown(self) -> None:
        """The worker drains, and waits for this."""

    def on_deadline(self) -> None:
        self.stop()

    def abort(self) -> None:
        self.stop()

    def stop(self) -> None:
        """What was read by now must do."""
        if self._forgotten():
            self._exchange.abandon()

    def _forgotten(self) -> bool:
        """Takes this out of the worker's connections, and says whether it was there."""
        self._deadlines.discard(self)
        was_there = self in self._state.connections
        self._state.connections.discard(self)
        return was_there

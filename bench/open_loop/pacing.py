"""An open loop: requests are due at fixed times, whatever became of those before.

A client that waits for an answer before it sends the next request leaves out just those requests that would have met a
stall: coordinated omission. Here each of them is due all the same, waits for a free connection if it must, and that
waiting is part of its latency. So a stall of a second is seen by all requests of that second.
"""

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httptools

from bench.open_loop.ticker import Ticker

TICK_SECONDS = 0.0002
DRAIN_SECONDS = 10.0  # after the last request was due; what is not answered by then counts as lost
LEAD_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """All times in seconds, ascending."""

    rate: float
    seconds: float
    statuses: Counter[int | str]
    latencies: Sequence[float]
    """From when a request was due to the end of its answer; one that was lost has what it had waited."""
    service_times: Sequence[float]
    """From when it was sent: what a closed loop measures."""
    lateness: Sequence[float]
    """From when it was due to when it was sent, where a connection was free: the generator's own fault."""

    @property
    def lost(self) -> int:
        return self.statuses["lost"]

    @property
    def answered_per_second(self) -> float:
        return (self.statuses.total() - self.lost) / self.seconds

    def ok(self) -> bool:
        return set(self.statuses) <= {200}


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that has at least this share of all at or below it."""
    if not ascending:
        return 0.0
    rank = -int(-share * len(ascending) // 1)  # rounded up
    return ascending[min(len(ascending), max(1, rank)) - 1]


class _Connection(asyncio.Protocol):
    """Has one request at a time."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self.due: float | None = None
        self.sent = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # always a socket

    def ask(self, request: bytes, due: float, now: float) -> None:
        self.due, self.sent = due, now
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_complete(self) -> None:
        self._run.on_answer(self, self._parser.get_status_code(), self._parser.should_keep_alive())

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.on_end(self)


@dataclass
class _Run:
    host: str
    port: int
    requests: Iterator[bytes]
    rate: float
    seconds: float
    connections: int
    total: int = 0
    scheduled: int = 0
    started: float = 0.0
    waiting: deque[float] = field(default_factory=deque)
    """When those were due for which no connection was free."""
    free: list[_Connection] = field(default_factory=list)
    open: set[_Connection] = field(default_factory=set)
    statuses: Counter[int | str] = field(default_factory=Counter)
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    service_times: "array[float]" = field(default_factory=lambda: array("d"))
    lateness: "array[float]" = field(default_factory=lambda: array("d"))
    over: bool = False

    def __post_init__(self) -> None:
        self.total = max(1, round(self.rate * self.seconds))
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._dials: set[asyncio.Task[None]] = set()

    async def go(self) -> Outcome:
        await asyncio.gather(*(self._dial() for _ in range(self.connections)))
        self.started = time.perf_counter() + LEAD_SECONDS
        with Ticker(self._loop, min(TICK_SECONDS, 1 / self.rate), self._on_tick):
            try:
                await asyncio.wait_for(self._done.wait(), LEAD_SECONDS + self.seconds + DRAIN_SECONDS)
            except TimeoutError:
                self._give_up()
        self.over = True
        for connection in tuple(self.open):
            connection.close()
        for dial in self._dials:
            dial.cancel()
        parts = (sorted(self.latencies), sorted(self.service_times), sorted(self.lateness))
        return Outcome(self.rate, self.seconds, self.statuses, *parts)

    def _on_tick(self) -> None:
        now = time.perf_counter()
        due_by_now = min(self.total, int((now - self.started) * self.rate) + 1) if now >= self.started else 0
        while self.scheduled < due_by_now:
            due = self.started + self.scheduled / self.rate
            self.scheduled += 1
            if self.free and not self.waiting:
                self.lateness.append(now - due)
                self.free.pop().ask(next(self.requests), due, now)
            else:
                self.waiting.append(due)

    def on_answer(self, connection: _Connection, status: int, keep: bool) -> None:
        now = time.perf_counter()
        if connection.due is None:
            return  # an answer to nothing: the connection ends by itself
        self.latencies.append(now - connection.due)
        self.service_times.append(now - connection.sent)
        connection.due = None
        self._count(status)
        if not keep:
            connection.close()
        elif self.waiting:
            connection.ask(next(self.requests), self.waiting.popleft(), now)
        else:
            self.free.append(connection)

    def on_end(self, connection: _Connection) -> None:
        """The request that it had is lost; another connection takes its place."""
        self.open.discard(connection)
        if connection in self.free:
            self.free.remove(connection)
        if self.over:
            return
        if connection.due is not None:
            self.latencies.append(time.perf_counter() - connection.due)
            connection.due = None
            self._count("lost")
        dial = self._loop.create_task(self._dial_again())
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _dial(self) -> None:
        _, connection = await self._loop.create_connection(lambda: _Connection(self), self.host, self.port)
        self.open.add(connection)
        if self.waiting:
            connection.ask(next(self.requests), self.waiting.popleft(), time.perf_counter())
        else:
            self.free.append(connection)

    async def _dial_again(self) -> None:
        while not self.over:
            try:
                await self._dial()
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return

    def _count(self, status: int | str) -> None:
        self.statuses[status] += 1
        if self.statuses.total() == self.total:
            self._done.set()

    def _give_up(self) -> None:
        now = time.perf_counter()
        owed = [connection.due for connection in self.open if connection.due is not None]
        for due in (*owed, *self.waiting):
            self.latencies.append(now - due)
            self.statuses["lost"] += 1


async def paced(
    host: str, port: int, requests: Iterator[bytes], rate: float, seconds: float, connections: int
) -> Outcome:
    """Sends `rate` requests a second for so long, evenly spaced. Raises OSError where nobody listens."""
    return await _Run(host, port, requests, rate, seconds, connections).go()

"""A link's connection is made again whenever it has broken, with a backoff while that fails.

Where Sentinels say who the primary is, a connection to another server is broken here: a server that was cut off ends
none, and may go on taking writes.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from common.redis_sentinel import Primary, Sentinels, SentinelWatch
from gateway.redis.connection import Connection, Lost
from gateway.redis.pauses import Pauses
from gateway.settings.intervals import Intervals

log = structlog.get_logger()

CONNECT_TIMEOUT_SECONDS = 2.0
STABLE_SECONDS = 1.0  # a connection whose server refuses sooner is dialed again with backoff
TURN_SECONDS = 5.0  # after a failover the next primary may refuse for so long, until replicas have found it
TURN_PAUSE_SECONDS = 0.1  # and is dialed so often: takes wait for nothing else


class ReconnectedLink(Protocol):
    @property
    def pauses(self) -> Pauses: ...
    async def connect(self) -> Connection:
        """A connection on which takes may be sent. Raises OSError, Lost, ValueError."""

    def on_unreachable(self, error: Exception, *, first: bool) -> None:
        """No connection came about; whether that is the first failure in a row."""

    def use(self, connection: Connection) -> None:
        """The link has this connection from now on, until it calls `on_broken`."""


class Dialing(Protocol):
    """Who dials for the link."""

    @property
    def sentinels(self) -> Sentinels | None: ...
    @property
    def primary(self) -> Primary | None:
        """Whom the Sentinels named when it was dialed last."""


class Reconnection:
    __slots__ = (
        "_broken",
        "_connection",
        "_dialer",
        "_dialing",
        "_intervals",
        "_link",
        "_loop",
        "_task",
        "_turned",
        "_turned_at",
        "_watch",
        "closing",
        "on_connected",
        "on_moved",
    )

    def __init__(
        self, link: ReconnectedLink, loop: asyncio.AbstractEventLoop, intervals: Intervals, dialer: Dialing
    ) -> None:
        self._link = link
        self._dialer = dialer
        self._connection: Connection | None = None  # that was made last
        self._dialing: asyncio.Task[Connection] | None = None
        self._turned = asyncio.Event()  # the Sentinels name another primary than was dialed
        self._turned_at = float("-inf")  # loop time
        self._watch = None if dialer.sentinels is None else SentinelWatch(dialer.sentinels, self._on_named)
        self._loop = loop
        self._intervals = intervals
        self._broken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.closing = False
        self.on_moved: list[Callable[[], None]] = []
        """Called when another connection is there in place of one whose server could not take."""
        self.on_connected: list[Callable[[], None]] = []
        """Called whenever another connection is there."""

    def start(self) -> None:
        self._task = self._loop.create_task(self._keep_connected(), name="redis-link")
        if self._watch is not None:
            self._watch.start()

    async def close(self) -> None:
        self.closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._watch is not None:
            await self._watch.aclose()
        if self._dialer.sentinels is not None:
            await self._dialer.sentinels.aclose()

    def on_broken(self) -> None:
        self._broken.set()

    def _on_named(self, primary: Primary) -> None:
        if primary != self._dialer.primary:
            self._turned.set()
            self._turned_at = self._loop.time()
            if self._dialing is not None:
                self._dialing.cancel()
            if self._connection is not None and self._connection.lost is None:
                self._connection.abort(f"the Sentinels name another primary: {primary.host}:{primary.port}")

    async def _dial(self) -> Connection:
        """Raises OSError, Lost, TimeoutError, ValueError."""
        dialing = self._dialing = self._loop.create_task(self._link.connect(), name="redis-dial")
        made = False
        try:
            done, _ = await asyncio.wait([dialing], timeout=CONNECT_TIMEOUT_SECONDS)
            made = bool(done)
        finally:
            self._dialing = None
            if not made:
                dialing.add_done_callback(_abort)  # it may be there at this moment
                dialing.cancel()
        if not made:
            await asyncio.gather(dialing, return_exceptions=True)
            raise TimeoutError
        if dialing.cancelled():
            raise Lost("the Sentinels name another primary than the one that was dialed", applied=False)
        return dialing.result()

    async def _pause(self, attempts: int) -> None:
        """The backoff, which ends when there is another primary."""
        seconds = self._intervals.redis_again.seconds(attempts)
        if self._loop.time() - self._turned_at < TURN_SECONDS:
            seconds = min(seconds, TURN_PAUSE_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._turned.wait(), seconds)

    async def _keep_connected(self) -> None:
        failures = 0
        refusals = 0  # connections in a row whose server refused soon after they were made
        refused = False
        while not self.closing:
            self._turned.clear()
            try:
                connection = await self._dial()
            except (OSError, Lost, TimeoutError, ValueError) as e:
                self._link.on_unreachable(e, first=failures == 0)
                failures += 1
                await self._pause(failures)
                continue
            if failures:
                log.info("redis is back", attempts=failures + 1)
            failures = 0
            self._broken.clear()
            self._connection = connection
            opened_at = self._loop.time()
            self._link.use(connection)
            for callback in (*self.on_connected, *(self.on_moved if refused else ())):
                callback()
            await self._broken.wait()
            refused = self._link.pauses.refused is not None
            refusals = refusals + 1 if refused and self._loop.time() - opened_at < STABLE_SECONDS else 0
            if refusals:
                await self._pause(refusals)


def _abort(dialing: asyncio.Task[Connection]) -> None:
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().abort("it was there too late")

"""A link's connection is made again whenever it has broken, with a backoff while that fails."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from gateway.redis.connection import Connection, Lost
from gateway.redis.pauses import Pauses
from gateway.settings.intervals import Intervals

log = structlog.get_logger()

CONNECT_TIMEOUT_SECONDS = 2.0
STABLE_SECONDS = 1.0  # a connection whose server refuses sooner is dialed again with backoff


class ReconnectedLink(Protocol):
    @property
    def pauses(self) -> Pauses: ...
    async def connect(self) -> Connection:
        """A connection on which takes may be sent. Raises OSError, Lost, ValueError."""

    def on_unreachable(self, error: Exception, *, first: bool) -> None:
        """No connection came about; whether that is the first failure in a row."""

    def use(self, connection: Connection) -> None:
        """The link has this connection from now on, until it calls `on_broken`."""


class Reconnection:
    __slots__ = ("_broken", "_intervals", "_link", "_loop", "_task", "closing", "on_moved")

    def __init__(self, link: ReconnectedLink, loop: asyncio.AbstractEventLoop, intervals: Intervals) -> None:
        self._link = link
        self._loop = loop
        self._intervals = intervals
        self._broken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.closing = False
        self.on_moved: list[Callable[[], None]] = []
        """Called when another connection is there in place of one whose server could not take."""

    def start(self) -> None:
        self._task = self._loop.create_task(self._keep_connected(), name="redis-link")

    async def close(self) -> None:
        self.closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def on_broken(self) -> None:
        self._broken.set()

    async def _keep_connected(self) -> None:
        failures = 0
        refusals = 0  # connections in a row whose server refused soon after they were made
        refused = False
        while not self.closing:
            try:
                connection = await asyncio.wait_for(self._link.connect(), CONNECT_TIMEOUT_SECONDS)
            except (OSError, Lost, TimeoutError, ValueError) as e:
                self._link.on_unreachable(e, first=failures == 0)
                failures += 1
                await asyncio.sleep(self._intervals.redis_again.seconds(failures))
                continue
            if failures:
                log.info("redis is back", attempts=failures + 1)
            failures = 0
            if self.closing:  # before Python 3.12, wait_for swallows a cancellation that comes with the result
                connection.abort("the gateway is stopping")
                return
            self._broken.clear()
            opened_at = self._loop.time()
            self._link.use(connection)
            if refused:
                for callback in self.on_moved:
                    callback()
            await self._broken.wait()
            refused = self._link.pauses.refused is not None
            refusals = refusals + 1 if refused and self._loop.time() - opened_at < STABLE_SECONDS else 0
            if refusals:
                await asyncio.sleep(self._intervals.redis_again.seconds(refusals))

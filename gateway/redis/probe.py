"""Whether Redis would take: it is asked by a write that changes nothing, and is refused wherever a take would be."""

import asyncio
from typing import Any, Protocol

import structlog

from common.redis_server import Refused
from gateway.redis.connection import Connection, Lost
from gateway.redis.pauses import PausableLink, Pause
from gateway.redis.way import Way
from gateway.settings.intervals import Intervals

log = structlog.get_logger()


class RefusableLink(PausableLink, Protocol):
    def pause_refused(self, refused: Refused, reason: str) -> None: ...


class TakesProbe:
    __slots__ = ("_intervals", "_link", "_looked_at", "_loop", "_probes", "_timer", "_way")

    def __init__(self, link: RefusableLink, loop: asyncio.AbstractEventLoop, way: Way, intervals: Intervals) -> None:
        self._link = link
        self._loop = loop
        self._intervals = intervals
        self._way = way
        self._probes = 0  # since it refused first
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = float("-inf")  # loop time

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def probe_until_it_takes(self, connection: Connection, refused: Refused, reason: str) -> None:
        """This server recovers: takes are sent again when it has."""
        if self._link.pauses.refused is None:
            self._probes = 0
            log.warning("redis refuses takes: it is asked until it takes again", reason=reason)
        self._link.pause_refused(refused, reason)
        if self._timer is None:
            seconds = self._intervals.redis_again.seconds(self._probes + 1)
            self._timer = self._loop.call_later(seconds, self._send_probe, connection)

    def _send_probe(self, connection: Connection) -> None:
        self._timer = None
        if connection is self._link.connection and self._link.pauses.refused is not None:
            self._probes += 1
            connection.send(self._way.probe(), lambda reply: self._on_probed(connection, reply))

    def _on_probed(self, connection: Connection, reply: Any) -> None:
        if connection is not self._link.connection or (refused := self._link.pauses.refused) is None:
            return
        if isinstance(reply, Lost):
            self.probe_until_it_takes(connection, refused, str(reply))
            return
        self._link.resume(Pause.REFUSED)
        log.info("redis takes again")

    async def look(self) -> None:
        """Asks once, unless it did just now; the link's pauses say afterwards whether Redis would take. That takes are
        answered does not show it: a replica refuses the exhausted as a primary does, since nothing is written for
        that."""
        connection, now = self._link.connection, self._loop.time()
        if connection is None or self._link.pauses or now - self._looked_at < self._intervals.link_look_seconds:
            return
        self._looked_at = now
        answered: asyncio.Future[None] = self._loop.create_future()
        connection.send(self._way.probe(), lambda _: None if answered.done() else answered.set_result(None))
        await answered

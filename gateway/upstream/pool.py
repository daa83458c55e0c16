"""The connections to one target of an upstream, and the requests that wait for one."""

import asyncio
from collections import deque
from typing import Protocol

import structlog

from gateway.http.deadlines import NEVER, DeadlineSweep
from gateway.settings.intervals import Intervals
from gateway.settings.upstreams import Upstream as UpstreamSettings
from gateway.upstream.connection.answer_reader import AnswerReader
from gateway.upstream.connection.carried import CarriedRequest
from gateway.upstream.connection.failures import Overloaded, Unreachable, UpstreamFailure
from gateway.upstream.connection.known_answers import KnownAnswers
from gateway.upstream.connection.unread import UnreadWatch
from gateway.upstream.connection.upstream_connection import UpstreamConnection
from gateway.upstream.dialer import Dialer
from gateway.upstream.ejection import TargetHealth
from gateway.upstream.endpoint import endpoint_of
from gateway.upstream.resolve import Addresses, system_look_up

log = structlog.get_logger()


def _host_line(host: str, authority: str, scheme: str) -> bytes:
    if host == "preserve":
        return b""
    if host == "upstream":
        host = authority.removesuffix(":443" if scheme == "https" else ":80")
    return b"Host: %b\r\n" % host.encode()


class Owner(Protocol):
    """The upstream that a target is of: it chooses another one where this one fails."""

    def send_elsewhere(self, target: "Pool", exchange: CarriedRequest, failure: UpstreamFailure) -> None:
        """Nothing of the request was sent."""
        ...

    def send_again(self, target: "Pool", exchange: CarriedRequest, reused: bool) -> bool:
        """Sends once more what had no answer on a connection, `reused` or new, if it may be; says whether."""
        ...

    def record_failure(self, target: "Pool", why: str) -> None: ...
    def record_answer(self, target: "Pool") -> None: ...


class Pool:
    """The connections of one worker to one target. Idle ones are taken last-in first-out, so that surplus ages."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: DeadlineSweep,
        name: str,
        url: str,
        settings: UpstreamSettings,
        owner: Owner,
        intervals: Intervals,
    ) -> None:
        self.name = name
        self._owner = owner
        self._distrust_seconds = intervals.distrust_seconds
        self.health = TargetHealth(settings.ejection)
        self.settings = settings
        self.deadlines = deadlines
        self.deadline = NEVER
        deadlines.add(self)
        endpoint = self.endpoint = endpoint_of(url, settings)
        self.authority = endpoint.authority.encode()
        self.host_line = _host_line(settings.host, endpoint.authority, endpoint.scheme)
        """The Host of requests; empty for the client's own."""
        seconds, look_up = settings.resolve_seconds, system_look_up(loop)
        self.addresses = Addresses(deadlines, endpoint.host, endpoint.port, seconds, look_up, self._retire_others)
        connect_seconds = settings.connect_timeout_seconds
        self._dialer = Dialer(loop, endpoint, self.addresses, connect_seconds, lambda: UpstreamConnection(self))
        self._connections: set[UpstreamConnection] = set()
        self._loop = loop
        self._idle: list[UpstreamConnection] = []
        self._idle_max = settings.keepalive_idle_max
        self.idle_seconds = settings.keepalive_seconds if self._idle_max else 0
        self._used_again_from = 0.0  # loop time: connections that are made before carry one exchange each
        self.head_seconds = settings.head_timeout_seconds
        self.known_answers = KnownAnswers(AnswerReader(self.idle_seconds, deadlines.tick_seconds))
        self._open = 0
        self._waiting: deque[tuple[CarriedRequest, float]] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._unread = UnreadWatch(loop)

    def send(self, exchange: CarriedRequest) -> None:
        """Sends on an idle connection, on a new one, or when one comes free. Failures reach the exchange."""
        if not self._unread.looked:
            self._unread.look()
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.deadline <= self.deadlines.now:
                connection.transport.close()  # its deadline has passed; the sweep was about to say so
            elif not connection.transport.is_closing():  # a TLS layer may be, of which the kernel does not know
                connection.start(exchange, True)
                return
        self.send_without_reuse(exchange)

    def send_without_reuse(self, exchange: CarriedRequest) -> None:
        """Sends on no connection that is idle now."""
        if self._open < self.settings.connections_max:
            self._dial_for(exchange)
        elif len(self._waiting) < self.settings.queue_max:
            self._waiting.append((exchange, min(self.deadlines.now + self.settings.queue_seconds, exchange.expires)))
            if len(self._waiting) == 1:
                self.deadline = self._waiting[0][1]
        else:
            failure = Overloaded(f"{self._open} connections are busy and {len(self._waiting)} requests wait")
            self._owner.send_elsewhere(self, exchange, failure)

    @property
    def busy(self) -> int:
        """Requests that are under way or wait."""
        return self._open - len(self._idle) + len(self._waiting)

    def release(self, connection: UpstreamConnection) -> None:
        """Takes back a connection whose answer is complete."""
        if connection.retired:
            connection.transport.close()
        elif self._waiting and (exchange := self._next_waiting()) is not None:
            # Not from within the parser's callbacks of the exchange before.
            self._loop.call_soon(self._hand_over, connection, exchange)
        elif len(self._idle) < self._idle_max:
            connection.deadline = self.deadlines.now + connection.idle_seconds
            self._idle.append(connection)
        else:
            connection.transport.close()

    def record_failure(self, why: str) -> None:
        self._owner.record_failure(self, why)

    def record_answer(self) -> None:
        self._owner.record_answer(self)

    def send_again(self, exchange: CarriedRequest, reused: bool) -> bool:
        return self._owner.send_again(self, exchange, reused)

    def lost(self, connection: UpstreamConnection) -> None:
        self._unread.discard(connection)
        self.deadlines.discard(connection)
        self._connections.discard(connection)
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if self._open < self.settings.connections_max and (exchange := self._next_waiting()) is not None:
            self._dial_for(exchange)

    def on_deadline(self) -> None:
        while self._waiting and self._waiting[0][1] <= self.deadlines.now:
            exchange, _ = self._waiting.popleft()
            exchange.on_upstream_failed(Overloaded("no connection came free in time"))
        if self._waiting:
            self.deadline = self._waiting[0][1]

    async def close(self) -> None:
        for connection in self._idle:
            connection.end_idle()
        for dial in self._dials:
            dial.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        await self.addresses.close()

    def _next_waiting(self) -> CarriedRequest | None:
        while self._waiting:
            exchange, _ = self._waiting.popleft()
            if not exchange.over:
                return exchange
        return None

    def _hand_over(self, connection: UpstreamConnection, exchange: CarriedRequest) -> None:
        if exchange.over:
            self.release(connection)
            return
        if not self._unread.looked:
            self._unread.look()
        if connection.transport.is_closing():
            self.send(exchange)
        else:
            connection.start(exchange, True)

    def _dial_for(self, exchange: CarriedRequest) -> None:
        self._open += 1
        dial = self._loop.create_task(self._dial(exchange))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _dial(self, exchange: CarriedRequest) -> None:
        try:
            connection = await self._dialer.connect(exchange.expires - self._loop.time())
        except (OSError, TimeoutError) as e:
            self._open -= 1
            reason = str(e) or f"no connection within {self.settings.connect_timeout_seconds:g} s"
            self.record_failure(reason)
            self._owner.send_elsewhere(self, exchange, Unreachable(reason))
            if (waiting := self._next_waiting()) is not None:
                self._dial_for(waiting)
            return
        except asyncio.CancelledError:
            self._open -= 1
            raise
        if not connection.transport.is_closing():
            self._unread.add(connection)
            connection.retired = self.deadlines.now < self._used_again_from
            self._connections.add(connection)
        if exchange.over:
            self.release(connection)
        else:
            connection.start(exchange, False)

    def distrust(self, connection: UpstreamConnection) -> None:
        """The target said more than it was asked for. What it says too late would be the answer to somebody else's
        request, so no connection to it carries a second exchange for a while."""
        if self._used_again_from <= self.deadlines.now:
            log.warning("the upstream says more than its answers", upstream=self.name, address=connection.address)
        self._used_again_from = self.deadlines.now + self._distrust_seconds
        for each in self._connections:
            each.retired = True
        for idle in self._idle:
            idle.end_idle()

    def _retire_others(self, addresses: frozenset[str]) -> None:
        """DNS names these now: connections to others end with what they carry."""
        for connection in self._connections:
            connection.retired = connection.retired or connection.address not in addresses
        for connection in [connection for connection in self._idle if connection.retired]:
            connection.end_idle()

"""The connections to one target of an upstream, and the requests that wait for one."""

import asyncio
import select
import ssl
from collections import deque
from contextlib import suppress
from typing import Protocol

import structlog

from gateway.http.deadlines import NEVER, DeadlineSweep
from gateway.http.head import AnswerHead
from gateway.settings.upstreams import Upstream as UpstreamSettings
from gateway.upstream.carried import CarriedRequest
from gateway.upstream.ejection import TargetHealth
from gateway.upstream.failures import Overloaded, Unreachable, UpstreamFailure
from gateway.upstream.resolve import Addresses, system_look_up
from gateway.upstream.upstream_connection import UpstreamConnection
from gateway.upstream.way import way_to

DISTRUST_SECONDS = 60.0  # for so long no connection is used again to a target that says more than its answers

log = structlog.get_logger()


def _host_line(host: str, authority: str, scheme: str) -> bytes:
    if host == "preserve":
        return b""
    if host == "upstream":
        host = authority.removesuffix(":443" if scheme == "https" else ":80")
    return b"Host: %b\r\n" % host.encode()


class Owner(Protocol):
    """The upstream that a target is of: it chooses another one where this one fails."""

    def unsent(self, target: "Pool", exchange: CarriedRequest, failure: UpstreamFailure) -> None:
        """Nothing of the request was sent."""
        ...

    def send_again(self, target: "Pool", exchange: CarriedRequest, reused: bool) -> bool:
        """Sends once more what had no answer on a connection, `reused` or new, if it may be; says whether."""
        ...

    def failed(self, target: "Pool") -> None: ...
    def answered(self, target: "Pool") -> None: ...


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
        *,
        distrust_seconds: float = DISTRUST_SECONDS,
    ) -> None:
        self.name = name
        self._owner = owner
        self.distrust_seconds = distrust_seconds
        self.health = TargetHealth(settings.ejection)
        self.settings = settings
        self.deadlines = deadlines
        self.deadline = NEVER
        deadlines.add(self)
        way = way_to(url, settings)
        self.url = url
        self.socket = way.socket
        self.authority = way.authority.encode()
        self.host_line = _host_line(settings.host, way.authority, way.scheme)
        """The Host of requests; empty for the client's own."""
        self.tls, self._port, self.server_name = way.tls, way.port, way.server_name
        seconds, look_up = settings.resolve_seconds, system_look_up(loop)
        self.addresses = Addresses(deadlines, way.host, way.port, seconds, look_up, self._retire_others)
        self._connections: set[UpstreamConnection] = set()
        self._loop = loop
        self._idle: list[UpstreamConnection] = []
        self._idle_max = settings.keepalive_idle_max
        self.idle_seconds = settings.keepalive_seconds if self._idle_max else 0
        self._used_again_from = 0.0  # loop time: connections that are made before carry one exchange each
        self.head_seconds = settings.head_timeout_seconds
        self.last_answer: AnswerHead | None = None  # of `known_answers`
        self.known_answers: dict[bytes, AnswerHead] = {}
        self._open = 0
        self._waiting: deque[tuple[CarriedRequest, float]] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._unread = select.epoll() if hasattr(select, "epoll") else select.poll()
        """Tells which of these connections the kernel holds bytes, or the end, of."""
        self._watched: dict[int, UpstreamConnection] = {}
        self._looked = False  # in this turn of the loop

    def send(self, exchange: CarriedRequest) -> None:
        """Sends on an idle connection, on a new one, or when one comes free. Failures reach the exchange."""
        if not self._looked:
            self._look()
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.deadline <= self.deadlines.now:
                connection.transport.close()  # its deadline has passed; the sweep was about to say so
            elif not connection.transport.is_closing():  # a TLS layer may be, of which the kernel does not know
                connection.start(exchange, reused=True)
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
            self._owner.unsent(self, exchange, failure)

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

    def failed(self) -> None:
        self._owner.failed(self)

    def answered(self) -> None:
        self._owner.answered(self)

    def send_again(self, exchange: CarriedRequest, reused: bool) -> bool:
        return self._owner.send_again(self, exchange, reused)

    def _look(self) -> None:
        """Ends idle connections on which something came that the loop has not read yet. Once in a turn of the loop, for
        all of them: a look at each, just before it is used, costs a request a twentieth of its time."""
        self._looked = True
        self._loop.call_soon(self._begin_turn)
        for fd, _ in self._unread.poll(0):
            connection = self._watched.get(fd)
            if connection is not None and connection.exchange is None and not connection.transport.is_closing():
                connection.end_unasked()

    def _begin_turn(self) -> None:
        self._looked = False

    def _watch(self, connection: UpstreamConnection) -> None:
        connection.fd = connection.transport.get_extra_info("socket").fileno()
        self._watched[connection.fd] = connection
        self._unread.register(connection.fd, select.POLLIN)

    def _unwatch(self, connection: UpstreamConnection) -> None:
        # A TLS layer tells of its end a turn after its socket, whose number another connection may have by then.
        if self._watched.get(connection.fd) is connection:
            del self._watched[connection.fd]
            with suppress(OSError, KeyError):  # closed already
                self._unread.unregister(connection.fd)

    def lost(self, connection: UpstreamConnection) -> None:
        self._unwatch(connection)
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
        if not self._looked:
            self._look()
        if connection.transport.is_closing():
            self.send(exchange)
        else:
            connection.start(exchange, reused=True)

    def _dial_for(self, exchange: CarriedRequest) -> None:
        self._open += 1
        dial = self._loop.create_task(self._dial(exchange))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _dial(self, exchange: CarriedRequest) -> None:
        try:
            connection = await self._connect(exchange.expires - self._loop.time())
        except (OSError, TimeoutError) as e:
            self._open -= 1
            reason = str(e) or f"no connection within {self.settings.connect_timeout_seconds:g} s"
            self.failed()
            self._owner.unsent(self, exchange, Unreachable(reason))
            if (waiting := self._next_waiting()) is not None:
                self._dial_for(waiting)
            return
        except asyncio.CancelledError:
            self._open -= 1
            raise
        if exchange.over:
            self.release(connection)
        else:
            connection.start(exchange, reused=False)

    async def _connect(self, seconds: float) -> UpstreamConnection:
        """Tries the addresses one after the other, each but the last for half of the time that is left."""
        ends = self._loop.time() + min(self.settings.connect_timeout_seconds, seconds)
        async with asyncio.timeout_at(ends):
            *others, last = await self.addresses.in_turn()
        for address in others:
            try:
                return await self._connect_to(address, (ends + self._loop.time()) / 2)
            except (OSError, TimeoutError):
                self.addresses.refused(address)
        return await self._connect_to(last, ends)

    async def _connect_to(self, address: str, ends: float) -> UpstreamConnection:
        async with asyncio.timeout_at(ends):
            if self.socket is not None:
                _, connection = await self._loop.create_unix_connection(lambda: UpstreamConnection(self), address)
            elif self.tls is None:
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(self), address, self._port
                )
            else:
                connection = await self._connect_tls(address, await self.tls.current())
        connection.address = address
        if not connection.transport.is_closing():
            self._watch(connection)
            connection.retired = self.deadlines.now < self._used_again_from
            self._connections.add(connection)
        return connection

    async def _connect_tls(self, address: str, context: ssl.SSLContext) -> UpstreamConnection:
        """In two steps, so that the connection knows the socket below its TLS layer."""
        plain, _ = await self._loop.create_connection(asyncio.Protocol, address, self._port)
        connection = UpstreamConnection(self)
        connection.transport = connection.socket = plain  # for bytes that come unasked before the next line is done
        transport = await self._loop.start_tls(plain, connection, context, server_hostname=self.server_name)
        if transport is None:  # typeshed: never
            raise ConnectionAbortedError("the connection ended within its handshake")
        connection.connection_made(transport)
        return connection

    def distrust(self, connection: UpstreamConnection) -> None:
        """The target said more than it was asked for. What it says too late would be the answer to somebody else's
        request, so no connection to it carries a second exchange for a while."""
        if self._used_again_from <= self.deadlines.now:
            log.warning("the upstream says more than its answers", upstream=self.name, address=connection.address)
        self._used_again_from = self.deadlines.now + self.distrust_seconds
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

"""Connections to an upstream and their pool. One connection carries one exchange at a time.

The answer is parsed by llhttp and written to the client from the same callbacks: what one read of the upstream
brought goes out in one write, and nothing is kept.
"""

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import httptools
import structlog

from gateway import headers
from gateway.head import ANSWERS_MAX, SECTION_BYTES_MAX, AnswerHead
from gateway.headers import classify_response
from gateway.settings import Upstream as UpstreamSettings
from gateway.wheel import FAR, Wheel

if TYPE_CHECKING:
    from gateway.exchange import Exchange

log = structlog.get_logger()

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110 section 9.2.2
HEAD_BYTES_MAX = 262_144  # of an answer, or of its trailers; more is no API but an attack on the gateway's memory
QUEUE_MAX = 1024  # exchanges that wait for a connection, in each worker


class UpstreamFailure(Exception):
    """An exchange with the upstream failed. The text is for the log, not for the client."""


class Unreachable(UpstreamFailure):
    """No byte was sent: the dial failed."""


class Overloaded(UpstreamFailure):
    """All connections are taken, and the queue is full or none came free in time: nothing was sent."""


class Broken(UpstreamFailure):
    """The connection broke, or the answer is no HTTP, after the request was (partly) sent."""


class TimedOut(UpstreamFailure):
    """The upstream was sent the request and fell silent."""


class Connection(asyncio.Protocol):
    """One connection to the upstream."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport
        self.exchange: Exchange | None = None
        self.deadline = FAR
        self.reading = True
        self._writing_paused = False
        self._parser: httptools.HttpResponseParser | None = None
        self._reused = False
        self._silent = True  # no byte of this answer has come
        self._overhead_bytes = 0  # of a head or of trailers, read since there was something to pass on
        self._out: list[bytes] = []
        self._status = 0
        self._whole = False  # sized, with a body, on a connection that goes on
        self._reason = b""
        self._fields: list[bytes] = []
        self._nominated: list[bytes] = []
        self._length: bytes | None = None
        self._transfer_coding: bytes | None = None
        self._headed = False  # the final response's head was parsed
        self._rechunk = False
        self._until_close = False
        self._complete = False
        self._keep = False
        self._fault: str | None = None

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.pool.wheel.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.transport.close()  # an unasked answer: whose it is cannot be known
            return
        fresh, self._silent = self._silent, False
        if fresh and self._repeats(exchange, data):
            return
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault = "the upstream switched protocols, which nobody had asked for"
        except httptools.HttpParserError as e:
            self._fault = self._fault or f"the upstream's answer is no HTTP: {e}"
        if self.exchange is not exchange:  # the client left from within a callback
            return
        if self._out:
            exchange.client.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
            self._out.clear()
            self._overhead_bytes = 0
        else:
            self._overhead_bytes += len(data)
        if self._complete:
            if fresh and self._whole:
                self._learn(data)
            self._finish(exchange)
        elif self._fault is not None:
            self._fail(Broken(self._fault))
        elif self._overhead_bytes > HEAD_BYTES_MAX:
            self._fail(Broken(f"the upstream sent {self._overhead_bytes} bytes of fields"))
        elif self._headed:
            self.deadline = self.pool.wheel.now + self.pool.settings.idle_timeout_seconds

    def _repeats(self, exchange: "Exchange", data: bytes) -> bool:
        """Passes on an answer that is whole in `data` and has a head that was parsed before."""
        end = data.find(b"\r\n\r\n") + 4
        known = self.pool.known_answers.get(data[:end])
        if known is None or len(data) - end != known.body_bytes or exchange.method == b"HEAD":
            return False
        exchange.client.write(exchange.answer_head(known.status, known.reason, known.fields) + data[end:])
        self._keep = True
        self._finish(exchange)
        return True

    def _learn(self, data: bytes) -> None:
        """Remembers the head of an answer that was one whole read, to recognize it."""
        end = data.find(b"\r\n\r\n") + 4
        if self._length is not None and end <= SECTION_BYTES_MAX and len(data) - end == int(self._length):
            if len(self.pool.known_answers) >= ANSWERS_MAX:
                self.pool.known_answers.clear()
            head = AnswerHead(self._status, self._reason, b"".join(self._fields), len(data) - end)
            self.pool.known_answers[data[:end]] = head

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.lost(self)
        exchange = self.exchange
        if exchange is None:
            return
        if self._headed and self._until_close and exc is None:
            if self._rechunk:
                exchange.client.write(b"0\r\n\r\n")
            self.exchange = None
            exchange.on_answered()
            return
        if self._reused and self._silent and exchange.method in IDEMPOTENT and not exchange.head.has_body:
            # The upstream closed an idle connection just as it was taken: RFC 9110 section 9.2.2 allows another try.
            self.exchange = None
            self.pool.send(exchange, reuse=False)
            return
        self._fail(
            Broken(f"the upstream closed the connection: {exc}" if exc else "the upstream closed the connection")
        )

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self.exchange is not None:
            self.exchange.hold_client()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self.exchange is not None:
            self.exchange.release_client()

    # The request

    def start(self, exchange: "Exchange", reused: bool) -> None:
        """Sends the request's head and what has come of its body."""
        self.exchange = exchange
        exchange.upstream = self
        self.reading = True
        self._reused = reused
        self._silent = True
        self._headed = self._complete = self._until_close = self._whole = False
        self._overhead_bytes = 0
        self._fault = None
        self._out.clear()
        self._clear_head()
        self.deadline = self.pool.wheel.now + self.pool.settings.head_timeout_seconds
        self.transport.write(exchange.take_request())
        if exchange.client.writing_paused:  # an earlier answer of this connection is still on its way
            self.pause_reading()

    def write(self, data: bytes) -> None:
        """More of the request's body, framed."""
        self.transport.write(data)
        if not self._headed:  # the upstream's time to answer runs from the last byte it was sent
            self.deadline = self.pool.wheel.now + self.pool.settings.head_timeout_seconds

    def pause_reading(self) -> None:
        if self.reading and not self.transport.is_closing():
            self.reading = False
            self.deadline = FAR  # the client's own deadline runs while it does not read
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading and not self.transport.is_closing():
            self.reading = True
            self.deadline = self.pool.wheel.now + self.pool.settings.idle_timeout_seconds
            self.transport.resume_reading()

    def abandon(self) -> None:
        """Nobody waits for the rest of this answer."""
        self.exchange = None
        self.transport.abort()

    def on_deadline(self) -> None:
        exchange = self.exchange
        if exchange is None:
            self.transport.close()
        elif self._headed:
            self._fail(Broken("the upstream fell silent in the middle of its answer"))
        else:
            self._fail(TimedOut(f"no answer within {self.pool.settings.head_timeout_seconds:g} s"))

    # The answer: llhttp's callbacks

    def on_message_begin(self) -> None:
        if self._complete and self._fault is None:
            self._keep = self._whole = False
            self._fault = "there is more than the one answer"  # nobody asked for the rest: nobody gets it

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            return  # trailers are not forwarded
        kind = classify_response(name)
        if not kind:  # FORWARD
            self._fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.CONTENT_LENGTH:
            self._length = value
            self._fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.TRANSFER_ENCODING:
            if self._transfer_coding is not None or value.lower() != b"chunked":
                self._fault = "the upstream used a transfer coding other than chunked"
            self._transfer_coding = value
        elif kind == headers.CONNECTION:
            self._nominated += headers.connection_tokens(value)

    def on_headers_complete(self) -> None:
        parser, exchange = self._parser, self.exchange
        if parser is None or exchange is None or self._fault is not None:
            return
        if self._transfer_coding is not None and self._length is not None:
            self._fault = "the upstream's answer has two lengths"
            return
        status = parser.get_status_code()
        if self._nominated:
            self._fields = headers.without(self._fields, self._nominated)
        if status < 200:
            if status == 101 or status < 100:
                self._fault = f"the upstream answered {status}, which nobody had asked for"
            elif exchange.head.is_11:
                self._out.append(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, self._reason, b"".join(self._fields)))
            self._clear_head()
            return
        self._headed = True
        self._status = status
        self._keep = parser.should_keep_alive()
        bodiless = exchange.method == b"HEAD" or status in (204, 304)
        framing = b""
        self._rechunk = False
        if bodiless:
            self._complete = True
            if status == 204 and self._length is not None:
                # RFC 9110 section 8.6 forbids it: a client that believed it would wait for a body.
                self._fields = [field for field in self._fields if not field.lower().startswith(b"content-length:")]
        elif self._transfer_coding is not None:
            self._rechunk = exchange.head.is_11
        elif self._length is None:
            self._until_close = True
            self._keep = False
            self._rechunk = exchange.head.is_11
        if self._rechunk:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif not bodiless and self._length is None:
            exchange.keep_alive = False  # an HTTP/1.0 client sees the body's end by the connection's
        self._whole = self._keep and not bodiless and self._length is not None
        self._out.append(exchange.answer_head(status, self._reason, b"".join(self._fields) + framing))
        if exchange.method == b"HEAD":
            # llhttp would wait for the body that a HEAD's fields announce, so the next answer gets a new parser.
            self._parser = None

    def on_body(self, data: bytes) -> None:
        if self._complete or self._fault is not None:
            self._keep = False
        elif self._rechunk:
            self._out.append(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._out.append(data)

    def on_message_complete(self) -> None:
        if not self._headed:
            return  # an interim answer
        if not self._complete:
            self._complete = True
            if self._rechunk:
                self._out.append(b"0\r\n\r\n")

    # Ends

    def _clear_head(self) -> None:
        self._reason = b""
        self._fields = []
        self._nominated = []
        self._length = self._transfer_coding = None

    def _finish(self, exchange: "Exchange") -> None:
        self.exchange = None
        exchange.upstream = None
        if not exchange.request_complete or self._writing_paused:
            self.transport.abort()  # the upstream answered before it had the whole request, and may never read the rest
        elif self._keep and not self.transport.is_closing():
            self.resume_reading()  # the client may have fallen behind with the end of this answer
            self.pool.release(self)
        else:
            self.transport.close()
        exchange.on_answered()

    def _fail(self, failure: UpstreamFailure) -> None:
        exchange, self.exchange = self.exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.upstream = None
            exchange.on_upstream_failed(failure)


class Pool:
    """The connections of one worker to one upstream. Idle ones are taken last-in first-out, so that surplus ages."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wheel: Wheel, name: str, settings: UpstreamSettings) -> None:
        self.name = name
        self.settings = settings
        self.wheel = wheel
        self.deadline = FAR
        wheel.add(self)
        parts = urlsplit(settings.url)
        self.authority = parts.netloc.encode()
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._loop = loop
        self._idle: list[Connection] = []
        self.known_answers: dict[bytes, AnswerHead] = {}
        self._open = 0
        self._waiting: deque[tuple[Exchange, float]] = deque()
        self._dials: set[asyncio.Task[None]] = set()

    def send(self, exchange: "Exchange", reuse: bool = True) -> None:
        """Sends on an idle connection, on a new one, or when one comes free. Failures reach the exchange."""
        idle = self._idle
        while reuse and idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.start(exchange, reused=True)
                return
        if self._open < self.settings.connections_max:
            self._dial_for(exchange)
        elif len(self._waiting) < QUEUE_MAX:
            self._waiting.append((exchange, self.wheel.now + self.settings.head_timeout_seconds))
            if len(self._waiting) == 1:
                self.deadline = self._waiting[0][1]
        else:
            exchange.on_upstream_failed(Overloaded(f"{self._open} connections are busy and {QUEUE_MAX} requests wait"))

    def release(self, connection: Connection) -> None:
        """Takes back a connection whose answer is complete."""
        if (exchange := self._next_waiting()) is not None:
            # Not from within the parser's callbacks of the exchange before.
            self._loop.call_soon(self._hand_over, connection, exchange)
        elif len(self._idle) < self.settings.keepalive_idle_max:
            connection.deadline = self.wheel.now + self.settings.keepalive_seconds
            self._idle.append(connection)
        else:
            connection.transport.close()

    def lost(self, connection: Connection) -> None:
        self.wheel.discard(connection)
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if self._open < self.settings.connections_max and (exchange := self._next_waiting()) is not None:
            self._dial_for(exchange)

    def on_deadline(self) -> None:
        while self._waiting and self._waiting[0][1] <= self.wheel.now:
            exchange, _ = self._waiting.popleft()
            exchange.on_upstream_failed(Overloaded("no connection came free in time"))
        if self._waiting:
            self.deadline = self._waiting[0][1]

    async def close(self) -> None:
        for connection in self._idle:
            connection.transport.close()
        for dial in self._dials:
            dial.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)

    def _next_waiting(self) -> "Exchange | None":
        while self._waiting:
            exchange, _ = self._waiting.popleft()
            if not exchange.over:
                return exchange
        return None

    def _hand_over(self, connection: Connection, exchange: "Exchange") -> None:
        if exchange.over:
            self.release(connection)
        elif connection.transport.is_closing():
            self.send(exchange)
        else:
            connection.start(exchange, reused=True)

    def _dial_for(self, exchange: "Exchange") -> None:
        self._open += 1
        dial = self._loop.create_task(self._dial(exchange))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _dial(self, exchange: "Exchange") -> None:
        try:
            async with asyncio.timeout(self.settings.connect_timeout_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except (OSError, TimeoutError) as e:
            self._open -= 1
            reason = str(e) or f"no connection within {self.settings.connect_timeout_seconds:g} s"
            exchange.on_upstream_failed(Unreachable(reason))
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

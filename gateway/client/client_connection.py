"""The client's connection: a uvicorn HTTP protocol class on llhttp.

It reads requests and keeps their order; what a request means is the exchange's business. Pipelined requests wait
in a queue of exchanges, the first of which is being answered, while nothing more is read.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httptools
import structlog
from uvicorn.protocols.utils import get_remote_addr, is_ssl

from common.addresses import spelt_plainly
from gateway.exchange.exchange import Exchange, ExchangeWorker
from gateway.exchange.verdicts import RefusalAnswer
from gateway.http import headers
from gateway.http.boundaries import BadRequestLine, Boundaries, UnknownMethod
from gateway.http.deadlines import NEVER
from gateway.http.head import REQUEST_LINE, SECTION_BYTES_MAX, RequestHead
from gateway.http.headers import classify_request
from gateway.http.target import TargetRefused
from gateway.routing.destinations import MeteredRoute
from gateway.tunnel.tunnel import Tunnel
from quota import problems

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState


log = structlog.get_logger()

HEAD_BYTES_SMALL, HEADER_FIELDS_FEW = 1024, 8  # the settings allow no limits below these
NO_TUNNEL = "This gateway opens no tunnel to elsewhere: CONNECT is not served here."
AMBIGUOUS_AUTHORIZATION = b"Bearer"  # refused as a malformed request
LINGER_SECONDS = 2.0  # a refused sender that sends no more has this long to read why, before it is reset
LINGER_SECONDS_MAX = 30.0  # one that goes on sending; what it sends is dropped
IDLE_DRAIN_SECONDS = 0.25  # one that is idle at the end has this long for a request that is on its way
FIRST_REQUEST_SECONDS = 1.0  # a connection that was accepted just before the end may still ask once
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, the only end that nobody takes for the end of a body
STALL_SECONDS = 60.0  # a client that takes nothing of its answer for so long is cut


class ClientConnection(asyncio.Protocol):
    """One client connection of a worker. Made by uvicorn for each it accepts."""

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.worker: ExchangeWorker = app_state["worker"]
        self.deadline = NEVER
        self.address = b"unknown"
        self.sent_bytes = 0  # since the last exchange ended
        self.proto = b"http"
        self.trusted = False
        """Whether what this peer says of its clients is believed."""
        self._server_state = server_state
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._boundaries = Boundaries()
        self._body_parser: httptools.HttpRequestParser | None = None
        """Of the request under way, if its Upgrade is ignored and a body follows."""
        self._exchanges: deque[Exchange] = deque()
        self._receiving: Exchange | None = None
        self._known: RequestHead | None = None  # of the last request that can be recognized
        self._known_tail = b"\0"  # its header section, with the CRLF before it; nothing ends like the first value
        self._learn: RequestHead | None = None  # parsed in this read, and fit to be recognized
        self._read_bytes = 0  # of the read that is being parsed
        self._head_read = 0  # of an unfinished head, or of chunk extensions and trailers, in the reads before
        self._body_seen = 0
        self._reads_paused = 0
        self.writing_paused = False
        self._held = False  # no further request is read until the client has taken its answers
        self._unwritten = 0
        self._fresh = True  # no request was read
        self._draining = False
        self._deaf = False  # nothing more is parsed
        self._tunnel: Tunnel | None = None  # asked for, or open; this request is the connection's last
        self._ended = False  # nothing more is answered
        self._lingers_until = 0.0

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(cast("Any", self))
        self.worker.deadlines.add(self)
        peer = get_remote_addr(self._transport)
        self.address = spelt_plainly(peer[0]).encode() if peer else b"unknown"
        self.proto = b"https" if is_ssl(self._transport) else b"http"
        self.trusted = self.worker.trust.trusts(self.address)
        if len(self._server_state.connections) > self.worker.settings.limits.connections_max:
            self._transport.abort()
            return
        if self.worker.draining:
            self.shutdown()
        else:
            self._expect_within(self.worker.settings.timeouts.head_seconds)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            if self._tunnel is not None:
                self._tunnel.on_early(data)
            elif self._ended:
                self._linger()
            return
        if not self._exchanges and data.endswith(self._known_tail) and self._repeats(data):
            return
        at, boundaries = 0, self._boundaries
        while at < len(data) and not self._deaf:
            try:
                end = boundaries.next_part(data, at, self._receiving)
            except BadRequestLine:
                self._junk("The request line is not a method, a target and HTTP/1.1, with one blank between them.")
                return
            except UnknownMethod:
                # RFC 9110 section 9.1. What the method means is not known, so nothing behind it is read as a request.
                self._junk("The request method is none that goes through here.", problems.NOT_IMPLEMENTED)
                return
            if not boundaries.withholding:
                self._parse(data[at:end])
            elif boundaries.line_bytes > self.worker.settings.limits.head_bytes_max:
                self._head_too_large()
            at = end
        if self._tunnel is not None and at < len(data):
            self._tunnel.on_early(data[at:])
        if boundaries.begun:
            self._known, self._known_tail = None, b"\0"  # what comes next is the rest of a request

    def _parse(self, part: bytes) -> None:
        """Bytes of one request."""
        self._read_bytes = len(part)
        between = self._receiving is None  # a request begins here
        parser = self._parser if self._body_parser is None else self._body_parser
        try:
            parser.feed_data(part)
        except httptools.HttpParserUpgrade as e:
            if self._tunnel is not None:
                self._deaf = True
                if e.args[0] < len(part):
                    self._tunnel.on_early(part[e.args[0] :])
                return
            if e.args[0] != len(part):
                self._junk("The request has no end.")
                return
            # The Upgrade is ignored, and llhttp goes on with the next request.
        except httptools.HttpParserCallbackError as e:
            log.error("a request failed inside the gateway", exc_info=e.__context__)
            self._junk("The gateway failed on this request.", problems.INTERNAL)
            return
        except httptools.HttpParserError as e:
            self._junk(f"The request is not valid HTTP: {e}.")
            return
        if self._receiving is not None and not self._deaf:
            self._after_read(self._receiving, len(part))
        if self._learn is not None:
            self._learn_section(self._learn, part, between)

    def _repeats(self, data: bytes) -> bool:
        """Starts the request in `data`, which ends like the one before, if only a request line precedes that."""
        head, worker = self._known, self.worker
        if head is None or self.writing_paused:
            return False
        line = data[: -len(self._known_tail)]
        known = worker.destinations.known.get((line, head.hosts[0]))
        match = REQUEST_LINE.fullmatch(line) if known is None else None
        if known is None and match is None:
            return False
        exchange = Exchange(worker, self, head)
        if self._draining:
            exchange.keep_alive = False
        self._exchanges.append(exchange)
        self.deadline = NEVER
        if known is not None and known.route is not None:
            exchange.start_again(known, known.route)
        elif match is not None:
            exchange.method, exchange.raw_target = match.groups()
            exchange.head_complete = exchange.request_complete = True
            exchange.start()
        return True

    def _learn_section(self, head: RequestHead, data: bytes, between: bool) -> None:
        """Keeps the header section of a request that was one whole read, to recognize it. In a read that began with
        the end of another request's body, that body's lines would pass for fields."""
        self._learn = None
        end = data.find(b"\r\n")
        whole = between and self._receiving is None and data.find(b"\r\n\r\n") == len(data) - 4
        if whole and len(data) - end <= SECTION_BYTES_MAX and REQUEST_LINE.fullmatch(data, 0, end):
            self._known, self._known_tail = head, data[end:]

    def _after_read(self, receiving: Exchange, byte_count: int) -> None:
        if receiving.head_complete:
            if not self._reads_paused and receiving.head.has_body:
                self._expect_within(self.worker.settings.timeouts.body_idle_seconds)
            if receiving.head.chunked and self._body_seen == receiving.body_bytes:
                self._head_read += byte_count  # extensions or trailers: llhttp holds those back, too
                if self._head_read > self.worker.settings.limits.head_bytes_max:
                    self._head_too_large()
            else:
                self._body_seen, self._head_read = receiving.body_bytes, 0
        else:
            # llhttp holds an unfinished field back, so a head in pieces is counted as it is read.
            self._head_read += byte_count
            if self._head_read > self.worker.settings.limits.head_bytes_max:
                self._head_too_large()

    def eof_received(self) -> bool | None:
        # The end of a client's bytes is the end of the client, as nginx has it too: one that left must not keep the
        # upstream busy, and it looks the same as one that only half-closed.
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._deaf = True
        self._server_state.connections.discard(cast("Any", self))
        self.worker.deadlines.discard(self)
        for exchange in self._exchanges:
            exchange.leave(self._server_state)
        self._exchanges.clear()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._unwritten = self._transport.get_write_buffer_size()
        self._expect_within(STALL_SECONDS)
        if self._exchanges and (upstream := self._exchanges[0].upstream) is not None:
            upstream.pause_reading()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._held:
            self._held = False
            self.resume_reading()
        self._await_client()
        if self._exchanges and (upstream := self._exchanges[0].upstream) is not None:
            upstream.resume_reading()

    @property
    def transport(self) -> asyncio.Transport:
        return self._transport

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def in_flight(self) -> int:
        return len(self._exchanges)

    def shutdown(self) -> None:
        """uvicorn drains: what is under way is answered, nothing further is read."""
        self._draining = True
        if self._exchanges:
            self._exchanges[-1].keep_alive = False
            if self._tunnel is not None and self._tunnel.open:
                self._tunnel.drain()
        else:
            # Closed at once, a request that is on its way would find no one.
            self._expect_within(FIRST_REQUEST_SECONDS if self._fresh else IDLE_DRAIN_SECONDS)

    def stop(self) -> None:
        """The worker's time is over: what is under way is refused or cut. Tunnels were closed before."""
        if self._ended or (self._tunnel is not None and self._tunnel.open):
            return
        if self._exchanges:
            self._exchanges[0].stop()
        else:
            self._end(unread=False)

    def abort(self) -> None:
        self._transport.abort()

    def on_deadline(self) -> None:
        receiving = self._receiving
        unwritten = self._transport.get_write_buffer_size()
        if self.writing_paused or (self._ended and unwritten):
            if unwritten < self._unwritten:
                self._unwritten = unwritten
                self._expect_within(STALL_SECONDS)
            else:
                self._transport.abort()
        elif self._ended:
            self._transport.abort()
        elif not self._exchanges and not self._deaf and self._has_arrived():
            self._expect_within(0)
        elif receiving is None or receiving.responded or self._exchanges[0] is not receiving:
            self._end(unread=False)
        else:
            detail = "The body stopped arriving." if receiving.head_complete else "The head took too long."
            receiving.refuse(RefusalAnswer(problems.REQUEST_TIMEOUT, detail), close=True)

    # llhttp: one request after the other

    def on_message_begin(self) -> None:
        if self._deaf:
            return
        if not self._boundaries.expected:
            self._junk("A request begins where none may begin.")
            return
        exchange = self._receiving = Exchange(self.worker, self, RequestHead())
        self._exchanges.append(exchange)
        self._head_read = 0
        self._fresh = False
        if len(self._exchanges) > 1:
            self.pause_reading()
        elif not self.writing_paused:
            self._expect_within(self.worker.settings.timeouts.head_seconds)
        if self.writing_paused and not self._held:
            self._held = True
            self.pause_reading()

    def on_url(self, url: bytes) -> None:
        exchange = self._receiving
        if exchange is not None:
            exchange.raw_target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._receiving
        if exchange is None or self._deaf:
            return
        head = exchange.head
        if exchange.head_complete:
            self._on_trailer(head, name, value)
            return
        kind = classify_request(name)
        if not kind:  # FORWARD
            head.fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.AUTHORIZATION:
            # Two of them: which one counts is not for us to choose, so none does.
            head.authorization = value if head.authorization is None else AMBIGUOUS_AUTHORIZATION
            head.fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.HOST:
            head.hosts.append(value)
        else:
            self._on_special_header(head, kind, name, value)

    def _on_trailer(self, head: RequestHead, name: bytes, value: bytes) -> None:
        head.trailer_fields += 1
        head.trailer_bytes += len(name) + len(value) + 4
        limits = self.worker.settings.limits
        if head.trailer_fields > limits.header_fields_max or head.trailer_bytes > limits.head_bytes_max:
            self._head_too_large()
        elif headers.trailer_goes_on(name, head.nominated):
            head.trailers.append(b"%b: %b\r\n" % (name, value))

    def _on_special_header(self, head: RequestHead, kind: int, name: bytes, value: bytes) -> None:
        if kind == headers.CONTENT_LENGTH:
            head.content_length = int(value)  # llhttp let digits through, once
            return
        if kind in (headers.EXPECT, headers.ORIGIN, headers.ACCESS_CONTROL_REQUEST_METHOD, headers.IDEMPOTENCY_KEY):
            head.fields.append(b"%b: %b\r\n" % (name, value))
        else:
            head.dropped_fields += 1
            head.dropped_bytes += len(name) + len(value) + 4
        if kind == headers.TRANSFER_ENCODING:
            head.transfer_codings += 1
            head.chunked = value.lower() == b"chunked"
        elif kind == headers.CONNECTION:
            head.nominated += headers.connection_tokens(value)
        elif kind == headers.EXPECT:
            head.expects_continue = value.lower() == b"100-continue"
        elif kind == headers.ORIGIN:
            head.origin = value
        elif kind == headers.ACCESS_CONTROL_REQUEST_METHOD:
            head.requested_method = value
        elif kind == headers.IDEMPOTENCY_KEY:
            head.idempotency_key = value.strip(b" \t") if head.idempotency_key is None else b""
        elif kind == headers.REQUEST_ID:
            head.request_id = headers.correlation_id(value)
        elif kind == headers.FORWARDED:
            if self.trusted:
                head.forwarded.append((name.lower(), value))
            if name.lower() == b"x-forwarded-host":
                head.forwarded_hosts += (value,)
        elif kind == headers.UPGRADE:
            head.upgrade += headers.connection_tokens(value)
        elif kind == headers.TE:
            head.takes_trailers = head.takes_trailers or headers.accepts_trailers(value)

    def on_headers_complete(self) -> None:
        exchange = self._receiving
        if exchange is None or self._deaf:
            return
        parser, head = self._parser, exchange.head
        exchange.method = parser.get_method()
        version = parser.get_http_version()
        if version != "1.1":
            head.is_11 = False
            if version != "1.0":
                self._junk("HTTP/1.1 and 1.0 are spoken.", problems.VERSION_NOT_SUPPORTED)
                return
        head.keep_alive = parser.should_keep_alive()
        exchange.keep_alive = head.keep_alive and not self._draining
        exchange.head_complete = True
        # Most heads are far from any limit, and are not counted.
        long = self._head_read or self._read_bytes > HEAD_BYTES_SMALL or len(head.fields) > HEADER_FIELDS_FEW
        if long and self._is_head_too_large(exchange):
            self._head_too_large()
            return
        if exchange.method == b"CONNECT" or parser.should_upgrade():
            if exchange.method == b"CONNECT":
                self._junk(NO_TUNNEL, problems.NOT_IMPLEMENTED)
                return
            if (offer := self._offered(exchange)) is None:
                self._ignore_upgrade(head)
            else:
                protocol, route = offer
                exchange.keep_alive = False  # what follows the head is no request
                self._tunnel = exchange.tunnel = Tunnel(self.worker, exchange, self, protocol, route.tunnel_price)
        if not self.writing_paused:
            self.deadline = NEVER
        # Whether an Upgrade is ignored depends on the route, unless no route offers it.
        anywhere = not head.upgrade or self.worker.destinations.upgrades.isdisjoint(head.upgrade)
        if not self._head_read and head.repeatable and self._tunnel is None and anywhere:
            self._learn = head
        if self._exchanges[0] is exchange:
            exchange.start()

    def _offered(self, exchange: Exchange) -> tuple[bytes, MeteredRoute] | None:
        """The first of the protocols asked for that the route offers, and the route. None: the Upgrade is ignored, as
        RFC 9110 section 7.8 allows, and the request is one like any other."""
        head, destinations = exchange.head, self.worker.destinations
        plain = exchange.method == b"GET" and head.is_11 and not head.has_body and not head.transfer_codings
        if not plain or destinations.upgrades.isdisjoint(head.upgrade):
            return None
        try:
            route = destinations.find(exchange.method, exchange.raw_target, head).route
        except TargetRefused:  # by the exchange, when it is its turn
            return None
        if route is None:
            return None
        return next(((token, route) for token in head.upgrade if token in route.upgrades), None)

    def _ignore_upgrade(self, head: RequestHead) -> None:
        """llhttp takes the head of a request with an Upgrade for all of it. The framing that the head tells is told to
        another parser, which reads the body."""
        if head.transfer_codings:
            if head.transfer_codings > 1 or not head.chunked or head.content_length is not None or not head.is_11:
                self._deaf = True  # nobody knows where it ends; the exchange refuses it when it is its turn
                return
            framing = b"Transfer-Encoding: chunked"
        elif head.content_length:
            framing = b"Content-Length: %d" % head.content_length
        else:
            return
        parser = httptools.HttpRequestParser(_Body(self))
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: body\r\n%b\r\n\r\n" % framing)
        self._body_parser = parser

    def on_body_complete(self) -> None:
        """The end of a body that had a parser of its own."""
        self._body_parser = None
        self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        if self._receiving is not None and not self._deaf:
            self._receiving.on_request_body(data)

    def on_message_complete(self) -> None:
        if self._body_parser is not None:
            return  # so llhttp says of the head
        self._boundaries.request_ended()
        exchange, self._receiving = self._receiving, None
        if exchange is not None and not self._deaf:
            if not self.writing_paused:
                self.deadline = NEVER
            exchange.on_request_complete()

    # For the exchange

    def write(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self._transport.write(data)

    def date_field(self) -> bytes:
        """The Date of the gateway's own answers; uvicorn renews it each second."""
        defaults, worker = self._server_state.default_headers, self.worker
        if worker.dated is not defaults:  # a new list each second
            worker.dated = defaults
            worker.date_field = b"".join([b"%b: %b\r\n" % (name.title(), value) for name, value in defaults])
        return worker.date_field

    def pause_reading(self) -> None:
        self._reads_paused += 1
        if self._reads_paused == 1 and not self._transport.is_closing():
            self._transport.pause_reading()
            if not self.writing_paused:
                self.deadline = NEVER

    def resume_reading(self) -> None:
        if self._reads_paused:
            self._reads_paused -= 1
            if not self._reads_paused and not self._transport.is_closing():
                self._transport.resume_reading()
                self._await_client()

    def hand_over(self, exchange: Exchange, successor: Exchange) -> None:
        """The exchange whose turn it is lets another answer the request."""
        self._exchanges[0] = successor
        if self._receiving is exchange:
            self._receiving = successor

    def exchange_done(self, exchange: Exchange) -> None:
        """The answer is written. The next request follows, or the end of the connection."""
        if self._ended or not self._exchanges or self._exchanges[0] is not exchange:
            return
        self._exchanges.popleft()
        self._server_state.total_requests += 1
        self.worker.recorder.finished(exchange)
        if exchange.permit:
            exchange.release_permit()
        if not exchange.keep_alive:
            # What was read behind this request, or waits to be read, is answered no more.
            self._end(unread=self._deaf or self._reads_paused > 0 or not exchange.request_complete)
            return
        if self._exchanges:
            self.resume_reading()
            # Not from here: thousands of pipelined refusals would answer each other in one recursion.
            self.worker.loop.call_soon(self._start_following, self._exchanges[0])
        elif self._draining:
            self._end(unread=False)
        elif not self.writing_paused:
            self.deadline = self.worker.deadlines.now + self.worker.idle_seconds

    def take_back(self) -> None:
        self._transport.set_protocol(self)

    def tunnel_ended(self) -> None:
        exchange = self._exchanges.popleft()  # nothing was parsed behind it
        self._server_state.total_requests += 1
        self.worker.recorder.finished(exchange)
        self._tunnel = None
        if not self._transport.is_closing():
            self._end(unread=True)

    def _start_following(self, exchange: Exchange) -> None:
        if not self._ended and exchange.head_complete and not exchange.id:
            exchange.start()

    def cut(self, *, reset: bool) -> None:
        """Ends the connection within an answer. `reset`: only a reset connection shows the client that it was cut."""
        if reset:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()
        else:
            self._end(unread=not self._exchanges[0].request_complete)  # the client may still be sending

    # Ends

    def _end(self, unread: bool) -> None:
        self._ended = self._deaf = True
        self._unwritten = self._transport.get_write_buffer_size() + 1
        self._expect_within(LINGER_SECONDS)
        if unread and self._transport.can_write_eof():
            # Closing with bytes unread makes the kernel reset the connection, and the client may lose the answer.
            self._transport.write_eof()
            self._transport.resume_reading()
            self._lingers_until = self.worker.deadlines.now + LINGER_SECONDS_MAX
        else:
            self._transport.close()

    def _linger(self) -> None:
        """The client sends what nobody wants: it has not read its answer yet."""
        if not (self._draining or self.writing_paused or self._transport.get_write_buffer_size()):
            self.deadline = min(self.worker.deadlines.now + LINGER_SECONDS, self._lingers_until)

    def _has_arrived(self) -> bool:
        """Whether the kernel holds bytes of the client that were not read yet: closing now would lose a request."""
        waiting = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, b"\0" * 4)
        return any(waiting)

    def _await_client(self) -> None:
        """Sets the deadline of what is awaited of the client now, after a pause in which it was waited for in vain."""
        timeouts, receiving = self.worker.settings.timeouts, self._receiving
        if self.writing_paused or self._ended:
            return
        if self._reads_paused:
            self.deadline = NEVER
        elif receiving is not None:
            seconds = timeouts.body_idle_seconds if receiving.head_complete else timeouts.head_seconds
            self._expect_within(seconds)
        elif self._exchanges:
            self.deadline = NEVER
        else:
            self._expect_within(timeouts.idle_seconds)

    def _expect_within(self, seconds: float) -> None:
        self.deadline = self.worker.deadlines.now + seconds

    def _junk(self, detail: str, problem: problems.Problem = problems.BAD_REQUEST) -> None:
        """The bytes are no request, so nothing that follows them can be trusted to be one."""
        if self._deaf:
            return
        self._deaf = True
        receiving, self._receiving = self._receiving, None
        if receiving is None:
            if self._exchanges:  # junk behind a good request: its answer is the last
                self._exchanges[-1].keep_alive = False
                return
            receiving = Exchange(self.worker, self, RequestHead())
            self._exchanges.append(receiving)
        if self._exchanges[0] is not receiving:
            self._exchanges.pop()
            self._exchanges[-1].keep_alive = False
        elif receiving.responded:
            self._end(unread=True)
        else:
            receiving.refuse(RefusalAnswer(problem, detail), close=True)

    def _is_head_too_large(self, exchange: Exchange) -> bool:
        limits = self.worker.settings.limits
        head = exchange.head
        if len(head.fields) + len(head.hosts) + head.dropped_fields > limits.header_fields_max:
            return True
        byte_count = len(exchange.raw_target) + head.dropped_bytes + sum(map(len, head.fields + head.hosts))
        return byte_count > limits.head_bytes_max

    def _head_too_large(self) -> None:
        limits = self.worker.settings.limits
        detail = f"The head may have {limits.head_bytes_max} bytes and {limits.header_fields_max} fields."
        self._junk(detail, problems.HEADERS_TOO_LARGE)


class _Body:
    """What llhttp calls for a body that it is given without the head."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._begun = False

    def on_message_begin(self) -> None:
        if self._begun:
            self._client.on_message_begin()  # where none may begin

    def on_headers_complete(self) -> None:
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun:  # a trailer
            self._client.on_header(name, value)

    def on_body(self, data: bytes) -> None:
        self._client.on_body(data)

    def on_message_complete(self) -> None:
        self._client.on_body_complete()

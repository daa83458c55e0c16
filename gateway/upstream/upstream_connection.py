"""A connection to an upstream. It carries one exchange at a time.

The answer is parsed by llhttp and written to the client from the same callbacks: what one read of the upstream
brought goes out in one write, and nothing is kept.
"""

import asyncio
import os
import re
import socket
from contextlib import suppress
from typing import Protocol, cast

import httptools

from common.certificates import Certificates
from gateway.http import headers
from gateway.http.boundaries import HTTP_1, BadStatusLine, Openings
from gateway.http.cors import exposing
from gateway.http.deadlines import NEVER, DeadlineSweep
from gateway.http.head import ANSWERS_MAX, SECTION_BYTES_MAX, AnswerHead
from gateway.http.headers import classify_response
from gateway.settings.upstreams import Upstream as UpstreamSettings
from gateway.upstream.carried import CarriedRequest
from gateway.upstream.ejection import TargetHealth
from gateway.upstream.failures import Broken, TimedOut, UpstreamFailure
from gateway.upstream.remainder import Remainder, read_on

HEAD_BYTES_MAX = 262_144  # of an answer, or of its trailers; more is no API but an attack on the gateway's memory
LONG_BODY_BYTES = 65_536
"""An upstream may answer a longer body without having read it. The end of such a connection says nothing of the
target's health, and after a refusal the connection is not used again."""
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


IDLE_END = b"HTTP/1.1 408 "  # RFC 9110 section 15.5.9: how a server may say that it ends an idle connection


def usable_seconds(promised: float, tick_seconds: float) -> float:
    """For how long a connection is used that the upstream keeps for so long: a second less, or a tenth, since its clock
    may have begun earlier. The sweep's time is up to a tick ahead of the clock."""
    if promised <= 0:
        return 0
    return max(promised - max(1, promised / 10) - tick_seconds, tick_seconds / 2)


class Target(Protocol):
    """What a connection uses of the pool that it belongs to."""

    last_answer: AnswerHead | None
    """Of `known_answers`."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> UpstreamSettings: ...
    @property
    def deadlines(self) -> DeadlineSweep: ...
    @property
    def health(self) -> TargetHealth: ...
    @property
    def host_line(self) -> bytes: ...
    @property
    def tls(self) -> Certificates | None: ...
    @property
    def idle_seconds(self) -> float: ...
    @property
    def head_seconds(self) -> float: ...
    @property
    def known_answers(self) -> dict[bytes, AnswerHead]: ...
    def release(self, connection: "UpstreamConnection") -> None:
        """Takes back a connection whose answer is complete."""
        ...

    def lost(self, connection: "UpstreamConnection") -> None: ...
    def distrust(self, connection: "UpstreamConnection") -> None: ...
    def answered(self) -> None:
        """It had failed, and has answered."""
        ...

    def failed(self) -> None: ...
    def send_again(self, exchange: CarriedRequest, reused: bool) -> bool:
        """Sends once more what had no answer on a connection, `reused` or new, if it may be; says whether."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to the upstream."""

    def __init__(self, pool: Target) -> None:
        self.pool = pool
        self.transport: asyncio.Transport
        self.socket: asyncio.Transport | None = None
        """Below the TLS layer, if there is one."""
        self._made = False
        self._guarded = False  # what a failed write leaves unread is read below the TLS layer
        self.exchange: CarriedRequest | None = None
        self.deadline = NEVER
        self.address = ""
        self.retired = False
        """Its address is no longer one of the target's: it is not used again."""
        self.idle_seconds = pool.idle_seconds
        """Idle for longer, and it is not used again."""
        self.reading = True
        self.writing_paused = False
        self.fd = -1
        self._parser: httptools.HttpResponseParser | None = None
        self._reused = False
        self._silent = True  # no byte of this answer has come
        self._judged = False  # the final answer has begun, and is one of HTTP/1.x
        self._openings: Openings | None = None
        self._part_at = 0  # where in its read the part begins that is being parsed
        self._parsed = False  # some of this answer, or of the one before, went through the parser
        self._overhead_bytes = 0  # of a head or of trailers, read since there was something to pass on
        self._out: list[bytes] = []
        self._status = 0
        self._whole = False  # sized, with a body, on a connection that goes on
        self._reason = b""
        self._fields: list[bytes] = []
        self._nominated: list[bytes] = []
        self._trailers: list[bytes] = []
        self._learnable = True
        self._dated = False
        self._readable = False  # for pages of other origins
        self._upgrade = b""
        self._idle_seconds: float | None = None  # as this answer says
        self._interim = False  # an interim answer was passed on
        self._surplus = False  # there was more than the one answer
        self._switching = False  # to the protocol that the client asked for
        self._length: bytes | None = None
        self._transfer_coding: bytes | None = None
        self._headed = False  # the final response's head was parsed
        self._unwanted = False  # the upstream answered, and takes no more of the body
        self._rechunk = False
        self._until_close = False
        self._complete = False
        self._keep = False
        self._fault: str | None = None

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._made = True
        self.pool.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if not data.startswith(IDLE_END):
                self.pool.distrust(self)
            self.end_idle()  # an unasked answer: whose it is cannot be known
            return
        fresh, self._silent = self._silent, False
        if fresh and self._repeats(exchange, data):
            return
        self._parsed = True
        if exchange.report is not None:
            exchange.report.on_read()
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        try:
            if not self._judged:
                # One that is not interim: no other begins behind it.
                self._judged = fresh and data.startswith(HTTP_1) and data[9:10] not in b"1"
            if self._judged:
                self._part_at = 0
                parser.feed_data(data)
            else:
                self._feed_in_parts(parser, data)
        except BadStatusLine:
            self._fault = self._fault or "the upstream's answer is none of HTTP/1.x"
        except httptools.HttpParserUpgrade as e:
            if self._switching and self._fault is None and self.exchange is exchange:
                self._switch(exchange, data[self._part_at + e.args[0] :])
                return
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
            if self._surplus or self._fault is not None:
                self._keep = False
                self.pool.distrust(self)
            elif fresh and self._whole:
                self._learn(data)
            self._finish(exchange)
        elif self._fault is not None:
            if not (self._reused and not self._headed and not self._interim and self._is_sent_again(exchange)):
                self._fail(Broken(self._fault))
        elif self._overhead_bytes > HEAD_BYTES_MAX:
            self._fail(Broken(f"the upstream sent {self._overhead_bytes} bytes of fields"))
        elif self._headed:
            self._expect_within(self.pool.settings.idle_timeout_seconds, exchange)

    def _feed_in_parts(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        """Interim answers may be before the final one, and llhttp does not tell where each begins."""
        openings = self._openings
        if openings is None:
            openings = self._openings = Openings()
        at = 0
        while at < len(data):
            end = len(data) if self._headed else openings.next_part(data, at)
            self._part_at = at
            parser.feed_data(data[at:end])
            at = end
        self._judged = self._headed

    def _repeats(self, exchange: CarriedRequest, data: bytes) -> bool:
        """Passes on an answer that is whole in `data` and has a head that was parsed before."""
        pool = self.pool
        known = pool.last_answer
        if known is None or not data.startswith(known.raw):
            known = pool.last_answer = pool.known_answers.get(data[: data.find(b"\r\n\r\n") + 4])
            if known is None:
                return False
        if len(data) != known.whole_bytes or exchange.method == b"HEAD" or exchange.report is not None:
            return False
        exchange.client.write(exchange.answer_known(known, data[len(known.raw) :]))
        self._keep = known.status < 300 or exchange.body_bytes <= LONG_BODY_BYTES  # see on_headers_complete
        if known.idle_seconds is not None:
            self.idle_seconds = known.idle_seconds
        if pool.health.failures:
            pool.answered()
        self._finish(exchange)
        return True

    def _learn(self, data: bytes) -> None:
        """Remembers the head of an answer that was one whole read, to recognize it."""
        end = data.find(b"\r\n\r\n") + 4
        if self._length is not None and end <= SECTION_BYTES_MAX and len(data) - end == int(self._length):
            if len(self.pool.known_answers) >= ANSWERS_MAX:
                self.pool.known_answers.clear()
            fields = b"".join(self._fields)
            start = b"HTTP/1.1 %d %b\r\n%b" % (self._status, self._reason, fields)
            head = AnswerHead(
                self._status, self._reason, fields, data[:end], len(data), start, self._dated, self._idle_seconds
            )
            self.pool.known_answers[head.raw] = head

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._made:
            return  # a handshake that failed: whoever dials knows
        self.pool.lost(self)
        exchange = self.exchange
        if exchange is not None and isinstance(exc, OSError):
            self._read_what_is_left(exchange)
        if self.exchange is None or exchange is None:
            return
        # EPIPE: the kernel had the upstream's FIN before its RST, so that the answer is whole.
        if self._headed and self._until_close and (exc is None or isinstance(exc, BrokenPipeError)):
            if self._rechunk:
                exchange.client.write(b"0\r\n\r\n")
            self.exchange = None
            exchange.on_answered()
            return
        # What was idle may end at any time, which says nothing of the target. Nor does the end of a long upload: an
        # upstream that refuses one ends so, too, and its answer may have been lost.
        if not (self._silent and self._reused) and exchange.body_bytes <= LONG_BODY_BYTES:
            self._blame(exchange)
        if not (self._silent and self._is_sent_again(exchange)):
            self._fail(self._closed(exc))

    def _is_sent_again(self, exchange: CarriedRequest) -> bool:
        """Leaves the exchange to another connection, if its request may be sent twice."""
        self.exchange = exchange.upstream = None
        if not self.pool.send_again(exchange, self._reused):
            self.exchange, exchange.upstream = exchange, self
            return False
        self.transport.abort()
        return True

    def _read_what_is_left(self, exchange: CarriedRequest) -> None:
        """Reads what the kernel holds of an upstream that has answered and gone. A write to it that fails ends the
        connection before that, and the answer to an upload that is refused would be lost."""
        if self.pool.tls is None:  # else it was read below the TLS layer
            read_on(
                self.transport.get_extra_info("socket").fileno(),
                lambda data: self.data_received(data) if self.exchange is exchange else None,
            )

    @staticmethod
    def _closed(exc: Exception | None) -> Broken:
        return Broken(f"the upstream closed the connection: {exc}" if exc else "the upstream closed the connection")

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.exchange is not None and not self._unwanted:
            self.exchange.hold_client()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.exchange is not None:
            self.exchange.release_client()

    @property
    def host_line(self) -> bytes:
        return self.pool.host_line

    def tunnel_ended(self) -> None:
        self.exchange = None

    def take_back(self) -> None:
        """The tunnel is over, and so is this connection."""
        self.transport.set_protocol(self)
        self.transport.close()

    # The request

    def end_unasked(self) -> None:
        """Something came on this idle connection that was not read yet. What came is no answer to anything, and would
        pass for the answer to what is sent next; an end would leave that without one."""
        if self.pool.tls is None and (waiting := self._peek()) and not waiting.startswith(IDLE_END):
            self.pool.distrust(self)
        self.end_idle()

    def _peek(self) -> bytes:
        with suppress(OSError), socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as seen:
            return seen.recv(len(IDLE_END), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return b""

    def end_idle(self) -> None:
        """Closes a connection that carries no exchange. The pool takes none whose deadline is over."""
        self.transport.close()
        self.deadline = self.pool.deadlines.now  # what the upstream does not read by then is not worth waiting for

    def start(self, exchange: CarriedRequest, reused: bool) -> None:
        """Sends the request's head and what has come of its body."""
        self.exchange = exchange
        exchange.upstream = self
        self.reading = True
        self._reused = reused
        self._silent = True
        if self._parsed:
            self._forget_answer()
        pool = self.pool
        self.deadline = pool.deadlines.now + pool.head_seconds
        if exchange.expires < self.deadline:
            self.deadline = exchange.expires
        if self.socket is not None and not self._guarded and exchange.head.has_body:
            self._guarded = True
            self.socket.set_protocol(Remainder(self.socket))
        self.transport.write(exchange.take_request())
        if exchange.client.writing_paused:  # an earlier answer of this connection is still on its way
            self.pause_reading()

    def write(self, data: bytes) -> None:
        """More of the request's body, framed."""
        if self._unwanted:
            return
        self.transport.write(data)
        if not self._headed and self.exchange is not None:
            # The upstream's time to answer runs from the last byte it was sent.
            self._expect_within(self.pool.settings.head_timeout_seconds, self.exchange)

    def pause_reading(self) -> None:
        if self.reading and not self.transport.is_closing():
            self.reading = False
            # The client's own deadline runs while it does not read.
            self.deadline = NEVER if self.exchange is None else self.exchange.expires
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading and not self.transport.is_closing():
            self.reading = True
            if self.exchange is not None:
                self._expect_within(self.pool.settings.idle_timeout_seconds, self.exchange)
            self.transport.resume_reading()

    def _expect_within(self, seconds: float, exchange: CarriedRequest) -> None:
        self.deadline = min(self.pool.deadlines.now + seconds, exchange.expires)

    def abandon(self) -> None:
        """Nobody waits for the rest of this answer."""
        self.exchange = None
        self.transport.abort()

    def on_deadline(self) -> None:
        exchange = self.exchange
        if exchange is None:
            if self.transport.is_closing():
                self.transport.abort()  # a tunnel's end that the upstream does not read
            else:
                self.end_idle()
        elif exchange.expires <= self.pool.deadlines.now:
            self._fail(TimedOut(f"no whole answer within {self.pool.settings.total_timeout_seconds:g} s"))
        elif self._headed:
            self._fail(Broken("the upstream fell silent in the middle of its answer"))
        else:
            if not self.transport.get_write_buffer_size():  # what was sent was taken
                self._blame(exchange)
            self._fail(TimedOut(f"no answer within {self.pool.settings.head_timeout_seconds:g} s"))

    # The answer: llhttp's callbacks

    def on_message_begin(self) -> None:
        if self._complete and self._fault is None:
            self._surplus = True
            self._whole = False
            self._fault = "there is more than the one answer"  # nobody asked for the rest: nobody gets it

    def on_status(self, reason: bytes) -> None:
        self._reason += reason
        if _CONTROL.search(reason):  # RFC 9112 section 4, where llhttp lets them through
            self._fault = self._fault or "the reason phrase of the upstream's answer holds control characters"

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            if self.exchange is not None and self.exchange.report is not None:
                self.exchange.report.on_trailer(name, value)
            if self._rechunk and headers.trailer_goes_on(name, self._nominated):
                self._trailers.append(b"%b: %b\r\n" % (name, value))
            return
        kind = classify_response(name)
        if not kind:  # FORWARD
            self._fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.DATE:
            self._dated = True
            self._fields.append(b"%b: %b\r\n" % (name, value))
        elif kind == headers.ALLOW_ORIGIN:
            self._readable = True
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
        elif kind == headers.UPGRADE:
            self._upgrade = value
        elif kind == headers.KEEP_ALIVE:
            self._promise(value)
        elif kind == headers.RATE_LIMIT:
            self._learnable = False  # whether it goes on depends on the request
            if self.exchange is not None and not self.exchange.rate_fields:
                self._fields.append(b"%b: %b\r\n" % (name, value))

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
            if status == 101 and self._grants(exchange):
                self._switching = True
                return
            if status == 101 or status < 100:
                self._fault = f"the upstream answered {status}, which nobody had asked for"
            elif exchange.head.is_11:
                self._interim = True
                fields = exchange.edited(b"".join(self._fields))
                self._out.append(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, self._reason, fields))
            self._clear_head()
            return
        self._headed = True
        if self.pool.health.failures:
            self.pool.answered()
        self._status = status
        if exchange.report is not None:
            exchange.report.on_head(self._fields)
        # An upstream that refuses a long upload may have read none of it, and closes the connection without a word: the
        # kernel resets it then, and a request that was sent on it meanwhile would have no answer.
        self._keep = parser.should_keep_alive() and (exchange.body_bytes <= LONG_BODY_BYTES or status < 300)
        if not (exchange.request_complete or self._keep) and status >= 300:
            # It does not wish to have the rest, and is about to close: RFC 9112 section 9.5. The rest is dropped.
            self._unwanted = True
            exchange.release_client()
        bodiless = exchange.method == b"HEAD" or status in (204, 304)
        framing = b""
        self._rechunk = False
        if bodiless:
            self._complete = True
            if self._transfer_coding is not None or (self._length or b"").strip(b"0"):
                # It tells of a body that must not follow. One that follows all the same, a bit later, would be read as
                # the answer to the next request.
                self._keep = False
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
        if self._readable:
            self._fields = exposing(self._fields)
        self._whole = self._keep and not bodiless and self._length is not None and self._learnable
        fields = b"%b%b%b" % (b"".join(self._fields), self._date_field(exchange), framing)
        self._out.append(exchange.answer_head(status, self._reason, fields))
        if exchange.method == b"HEAD":
            # llhttp would wait for the body that a HEAD's fields announce, so the next answer gets a new parser.
            self._parser = None

    def on_body(self, data: bytes) -> None:
        if self._complete or self._fault is not None:
            self._surplus = self._complete
            return
        if self.exchange is not None and self.exchange.report is not None:
            self.exchange.report.on_body(data)
        if self._rechunk:
            self._out.append(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._out.append(data)

    def on_message_complete(self) -> None:
        if not self._headed:
            return  # an interim answer
        if not self._complete:
            self._complete = True
            if self._rechunk:
                trailers = self._trailers if self.exchange is None else self.exchange.edited_trailers(self._trailers)
                self._out.append(b"0\r\n%b\r\n" % b"".join(trailers))

    # Ends

    def _forget_answer(self) -> None:
        self._parsed = False
        self._headed = self._complete = self._until_close = self._whole = self._judged = self._unwanted = False
        self._openings = None
        self._interim = self._surplus = False
        self._overhead_bytes = 0
        self._fault = None
        self._out.clear()
        self._clear_head()

    def _clear_head(self) -> None:
        self._reason = b""
        self._fields = []
        self._nominated = []
        self._trailers.clear()
        self._learnable = True
        self._dated = False
        self._readable = False
        self._idle_seconds = None
        self._upgrade = b""
        self._length = self._transfer_coding = None

    def _date_field(self, exchange: CarriedRequest) -> bytes:
        """What is added to an answer without a Date: the time that it came (RFC 9110 section 6.6.1). Interim ones go on
        as they are: clients know `100 Continue` by its bytes."""
        return b"" if self._dated else exchange.client.date_field()

    def _grants(self, exchange: CarriedRequest) -> bool:
        """Whether a 101 switches to what was asked for. It has no body (RFC 9110 section 15.2)."""
        bodiless = self._length is None and self._transfer_coding is None
        return bodiless and exchange.tunnel is not None and exchange.tunnel.answers(self._upgrade, self._nominated)

    def _switch(self, exchange: CarriedRequest, behind: bytes) -> None:
        """Hands this connection over to the tunnel, with the bytes behind the 101."""
        assert exchange.tunnel is not None  # noqa: S101 - without one a 101 is a fault
        if self.pool.health.failures:
            self.pool.answered()
        self._out.append(exchange.switching_head(self._reason, b"".join(self._fields) + self._date_field(exchange)))
        exchange.tunnel.start(self, b"".join(self._out), behind)

    def _finish(self, exchange: CarriedRequest) -> None:
        self.exchange = None
        if not exchange.request_complete or self.writing_paused:
            self.transport.abort()  # the upstream answered before it had the whole request, and may never read the rest
        elif self._keep and self.idle_seconds > 0:
            if not self.reading:
                self.resume_reading()  # the client had fallen behind with the end of this answer
            self.pool.release(self)
        else:
            self.transport.close()
        exchange.on_answered()

    def _promise(self, value: bytes) -> None:
        """The upstream says when it ends this connection. The gateway is first, or a request would meet that end."""
        promised = headers.promised_idle_seconds(value)
        if promised is not None:
            self._idle_seconds = self.idle_seconds = min(
                self.pool.idle_seconds, usable_seconds(promised, self.pool.deadlines.tick_seconds)
            )

    def _blame(self, exchange: CarriedRequest) -> None:
        """The target did not answer. Clients that send half a request must not be able to have it ejected."""
        if not self._headed and exchange.request_complete:
            self.pool.failed()

    def _fail(self, failure: UpstreamFailure) -> None:
        exchange, self.exchange = self.exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.upstream = None
            exchange.on_upstream_failed(failure)

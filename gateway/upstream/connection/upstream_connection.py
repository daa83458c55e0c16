"""A connection to an upstream. It carries one exchange at a time, and what it is doing is one of `states.py`."""

import asyncio
from typing import Protocol, cast

from gateway.http.deadlines import NEVER, DeadlineSweep
from gateway.http.framing import UNTIL_CLOSE
from gateway.settings.upstreams import Upstream as UpstreamSettings
from gateway.upstream.connection.answer import Answer
from gateway.upstream.connection.carried import CarriedRequest, Tunnel
from gateway.upstream.connection.failures import Broken, TimedOut, UpstreamFailure
from gateway.upstream.connection.framing import LONG_BODY_BYTES, read_before_answered
from gateway.upstream.connection.known_answers import KnownAnswers
from gateway.upstream.connection.remainder import Remainder, read_on
from gateway.upstream.connection.reuse import announces_end, peek
from gateway.upstream.connection.states import (
    ANSWER_BEGAN,
    ANSWER_ENDED,
    AWAITED,
    BODY,
    COMPLETE,
    CONNECTED,
    CONNECTING,
    CONNECTION_LOST,
    PROTOCOL_SWITCHED,
    REQUEST_LEFT,
    REQUEST_SENT,
    SENT,
    SURPLUS,
    SWITCHING,
    ConnectionState,
)
from gateway.upstream.ejection import TargetHealth
from gateway.upstream.endpoint import Endpoint

HEAD_BYTES_MAX = 262_144  # of an answer, or of its trailers; more is no API but an attack on the gateway's memory


class Target(Protocol):
    """What a connection uses of the pool that it belongs to."""

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
    def endpoint(self) -> Endpoint: ...
    @property
    def idle_seconds(self) -> float: ...
    @property
    def head_seconds(self) -> float: ...
    @property
    def known_answers(self) -> KnownAnswers: ...
    def release(self, connection: "UpstreamConnection") -> None:
        """Takes back a connection whose answer is complete."""
        ...

    def lost(self, connection: "UpstreamConnection") -> None: ...
    def distrust(self, connection: "UpstreamConnection") -> None: ...
    def record_answer(self) -> None:
        """It had failed, and has answered."""
        ...

    def record_failure(self, why: str) -> None: ...
    def send_again(self, exchange: CarriedRequest, reused: bool) -> bool:
        """Sends once more what had no answer on a connection, `reused` or new, if it may be; says whether."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to the upstream."""

    __slots__ = (
        "_answer",
        "_guarded",
        "_overhead_bytes",
        "_reused",
        "address",
        "deadline",
        "exchange",
        "fd",
        "idle_seconds",
        "pool",
        "reading",
        "retired",
        "socket",
        "state",
        "transport",
        "writing_paused",
    )

    def __init__(self, pool: Target) -> None:
        self.pool = pool
        self.state = ConnectionState.CONNECTING
        self.transport: asyncio.Transport
        self.socket: asyncio.Transport | None = None
        """Below the TLS layer, if there is one."""
        self.exchange: CarriedRequest | None = None
        """While there is one, the state is SENT, ANSWERING or SWITCHED."""
        self.deadline = NEVER
        self.address = ""
        self.retired = False
        """It is not used again: its address is no longer one of the target's, say."""
        self.idle_seconds = pool.idle_seconds
        """Idle for longer, and it is not used again."""
        self.reading = True
        self.writing_paused = False
        self.fd = -1
        self._answer = Answer()
        self._reused = False  # the exchange is not the first that it carries
        self._guarded = False  # what a failed write leaves unread is read below the TLS layer
        self._overhead_bytes = 0  # of a head or of trailers, read since there was something to pass on

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.state = CONNECTED[self.state]
        self.pool.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if not announces_end(data):
                self.pool.distrust(self)
            self.end_idle()  # an unasked answer: whose it is cannot be known
            return
        answer, first = self._answer, self.state is SENT
        if first:
            if self._repeats(exchange, data):
                return
            self.state = ANSWER_BEGAN[self.state]
            self._overhead_bytes = 0
            answer.begin(exchange)
        answer.feed(data, first)
        if self.exchange is not exchange:  # the client left from within a callback
            return
        if answer.state is SWITCHING and answer.fault is None and exchange.tunnel is not None:
            self._switch(exchange.tunnel, answer)
            return
        self._pass_on(exchange, answer, len(data))
        if answer.state is COMPLETE and answer.fault is None:
            self._end_answer(exchange, answer, data if first else None)
        elif answer.state is COMPLETE or answer.state is SURPLUS:
            self.pool.distrust(self)
            self._finish(exchange, used_again=False)
        elif answer.fault is not None:
            if not (self._reused and answer.can_be_another and self._is_sent_again(exchange)):
                self._fail(Broken(answer.fault))
        elif self._overhead_bytes > HEAD_BYTES_MAX:
            self._fail(Broken(f"the upstream sent {self._overhead_bytes} bytes of fields"))
        elif answer.state is BODY:
            self._expect_within(self.pool.settings.idle_timeout_seconds, exchange)

    def _pass_on(self, exchange: CarriedRequest, answer: Answer, byte_count: int) -> None:
        if self.pool.health.failures and answer.head_passed:
            self.pool.record_answer()
        out = answer.out
        if out:
            exchange.client.write(b"".join(out) if len(out) > 1 else out[0])
            out.clear()
            self._overhead_bytes = 0
        else:
            self._overhead_bytes += byte_count

    def _repeats(self, exchange: CarriedRequest, data: bytes) -> bool:
        """Passes on an answer that is whole in `data`, if its head was parsed before or can be read by its lines."""
        if exchange.method == b"HEAD" or exchange.report is not None:
            return False
        pool = self.pool
        answers = pool.known_answers
        head = answers.last
        if head is None or not data.startswith(head.raw):
            head = answers.find(data)
            if head is None:
                return False
        if len(data) != head.whole_bytes:
            return False
        exchange.client.write(exchange.answer_known(head, data[len(head.raw) :]))
        if head.idle_seconds is not None:
            self.idle_seconds = head.idle_seconds
        if pool.health.failures:
            pool.record_answer()
        self._finish(exchange, head.status < 300 or read_before_answered(head.status, exchange.body_bytes))
        return True

    def _end_answer(self, exchange: CarriedRequest, answer: Answer, whole: bytes | None) -> None:
        """The answer is complete; `whole`: all of it, if it came in one read."""
        idle_seconds: float | None = None
        if answer.promised_idle_seconds is not None:
            self.idle_seconds = idle_seconds = self.pool.known_answers.reader.idle_seconds(answer.promised_idle_seconds)
        if whole is not None and (head := answer.learned(whole, idle_seconds)) is not None:
            self.pool.known_answers.learn(head)
        self._finish(exchange, answer.used_again)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state is CONNECTING:
            return  # a handshake that failed: whoever dials knows
        self.pool.lost(self)
        exchange = self.exchange
        if exchange is not None and isinstance(exc, OSError):
            self._read_what_is_left(exchange)
        silent = self.state is SENT
        self.state = CONNECTION_LOST[self.state]
        if exchange is None or self.exchange is not exchange:
            return
        answer = self._answer
        # EPIPE: the kernel had the upstream's FIN before its RST, so that the answer is whole.
        ended = exc is None or isinstance(exc, BrokenPipeError)
        if ended and answer.state is BODY and answer.framing is UNTIL_CLOSE:
            if last := answer.end():
                exchange.client.write(last)
            self.exchange = None
            answer.give_up()
            exchange.on_answered()
            return
        # What was idle may end at any time, which says nothing of the target. Nor does the end of a long upload: an
        # upstream that refuses one ends so, too, and its answer may have been lost.
        why = "the upstream closed the connection" + (f": {exc}" if exc else "")
        if not (silent and self._reused) and exchange.body_bytes <= LONG_BODY_BYTES:
            self._blame(exchange, why)
        if not (silent and self._is_sent_again(exchange)):
            self._fail(Broken(why))

    def _is_sent_again(self, exchange: CarriedRequest) -> bool:
        """Leaves the exchange to another connection, if its request may be sent twice."""
        self.exchange = exchange.upstream = None
        if not self.pool.send_again(exchange, self._reused):
            self.exchange, exchange.upstream = exchange, self
            return False
        self.state = REQUEST_LEFT[self.state]
        self._answer.give_up()
        self.transport.abort()
        return True

    def _read_what_is_left(self, exchange: CarriedRequest) -> None:
        """Reads what the kernel holds of an upstream that has answered and gone. A write to it that fails ends the
        connection before that, and the answer to an upload that is refused would be lost."""
        self.retired = True
        if self.pool.endpoint.tls is None:  # else it was read below the TLS layer
            read_on(
                self.transport.get_extra_info("socket").fileno(),
                lambda data: self.data_received(data) if self.exchange is exchange else None,
            )

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.exchange is not None and not self._answer.refuses_rest:
            self.exchange.hold_client()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.exchange is not None:
            self.exchange.release_client()

    @property
    def is_idle(self) -> bool:
        return self.state is ConnectionState.IDLE

    @property
    def host_line(self) -> bytes:
        return self.pool.host_line

    def tunnel_ended(self) -> None:
        self.exchange = None  # its end is still to come, and the state with it

    def take_back(self) -> None:
        """The tunnel is over, and so is this connection."""
        self.transport.set_protocol(self)
        self.transport.close()

    # The request

    def end_unasked(self) -> None:
        """Something came on this idle connection that was not read yet. What came is no answer to anything, and would
        pass for the answer to what is sent next; an end would leave that without one."""
        if self.pool.endpoint.tls is None and (unread := peek(self.transport)) and not announces_end(unread):
            self.pool.distrust(self)
        self.end_idle()

    def end_idle(self) -> None:
        """Closes a connection that carries no exchange. The pool takes none whose deadline is over."""
        self.transport.close()
        self.deadline = self.pool.deadlines.now  # what the upstream does not read by then is not worth waiting for

    def start(self, exchange: CarriedRequest, reused: bool) -> None:
        """Sends the request's head and what has come of its body; `reused`: the connection has been idle before."""
        self.state = REQUEST_SENT[self.state]
        self.exchange = exchange
        exchange.upstream = self
        self.reading = True
        self._reused = reused
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
        if self._answer.refuses_rest:
            return
        self.transport.write(data)
        if not self._answer.head_passed and self.exchange is not None:
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
        self.state = REQUEST_LEFT[self.state]
        self._answer.give_up()
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
        elif self._answer.head_passed:
            self._fail(Broken("the upstream fell silent in the middle of its answer"))
        else:
            why = f"no answer within {self.pool.settings.head_timeout_seconds:g} s"
            if not self.transport.get_write_buffer_size():  # what was sent was taken
                self._blame(exchange, why)
            self._fail(TimedOut(why))

    # Ends

    def _switch(self, tunnel: Tunnel, answer: Answer) -> None:
        """Hands this connection over to the tunnel, with the bytes behind the 101."""
        if self.pool.health.failures:
            self.pool.record_answer()
        self.state = PROTOCOL_SWITCHED[self.state]
        head, behind = answer.switching_head(), answer.behind
        answer.give_up()
        tunnel.start(self, head, behind)

    def _finish(self, exchange: CarriedRequest, used_again: bool) -> None:
        self.exchange = None
        self.state = ANSWER_ENDED[self.state]
        if self._answer.state is not AWAITED:
            self._answer.forget()
        if not exchange.request_complete or self.writing_paused:
            self.transport.abort()  # the upstream answered before it had the whole request, and may never read the rest
        elif used_again and self.idle_seconds > 0:
            if not self.reading:
                self.resume_reading()  # the client had fallen behind with the end of this answer
            self.pool.release(self)
        else:
            self.transport.close()
        exchange.on_answered()

    def _blame(self, exchange: CarriedRequest, why: str) -> None:
        """The target did not answer. Clients that send half a request must not be able to have it ejected."""
        if not self._answer.head_passed and exchange.request_complete:
            self.pool.record_failure(why)

    def _fail(self, failure: UpstreamFailure) -> None:
        exchange, self.exchange = self.exchange, None
        self.state = REQUEST_LEFT[self.state]
        self._answer.give_up()
        self.transport.abort()
        if exchange is not None:
            exchange.upstream = None
            exchange.on_upstream_failed(failure)

"""The control port's connections: uvicorn's own protocol, with a deadline for everything that waits for a client.

There are deadlines for a head, a body, the next request, and for the client to read an answer. The number of
connections is limited, of one address and of all. Beyond the limit a new connection is served, and the one that has
kept us waiting for the longest time is closed. So a client that sends nothing, or next to nothing, keeps nobody out.
"""

import asyncio
import resource
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import structlog
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from common.networks import Networks, address_of
from control.settings.control_plane import Limits
from quota import problems
from quota.problems import Problem

log = structlog.get_logger()

OVERHEAD_BYTES_MAX: Final = 64 * 1024  # of a request that are no body: its head, the framing of chunks, trailers
OVERHEAD_OF_BODY: Final = 8  # and so many for each byte of its body: chunks of one byte take six
DESCRIPTORS_OF_OTHERS: Final = 256  # kept for the stores, for Stripe, for files
FRAMING: Final = (b"content-length", b"transfer-encoding")
CLOSE_SECONDS: Final = 5.0  # what an ended connection was told must be taken within so long
SENT_BYTES_MIN: Final = 16 * 1024  # of an answer, in `write_seconds`: less is nothing


class Turn(Enum):
    """Whose turn it is, and with what."""

    HEAD = "head"
    BODY = "body"
    IDLE = "idle"
    """The client's: the next request."""
    OURS = "ours"


class Connections:
    """All of one server."""

    def __init__(self, limits: Limits, trusted: Networks) -> None:
        self.limits = limits
        self.trusted = trusted
        self.total_max = min(limits.connections_max, _descriptors() - DESCRIPTORS_OF_OTHERS)
        if self.total_max < limits.connections_max:
            log.warning(
                "fewer connections than limits.connections_max: this process may have no more files open",
                connections_max=self.total_max,
            )
        self._all: set[ControlConnection] = set()

    def protocol(self, *args: Any, **kwargs: Any) -> "ControlConnection":
        """For uvicorn, which makes one for each connection."""
        return ControlConnection(self, *args, **kwargs)

    def add(self, connection: "ControlConnection") -> bool:
        """Makes room for it; False where all others are being served."""
        self._all.add(connection)
        if not connection.trusted:
            same = [each for each in self._all if each.address == connection.address]
            if len(same) > self.limits.connections_per_address_max and not self._end_one(same, connection):
                return False
        return len(self._all) <= self.total_max or self._end_one(self._all, connection)

    def discard(self, connection: "ControlConnection") -> None:
        self._all.discard(connection)

    def _end_one(self, among: Iterable["ControlConnection"], newcomer: "ControlConnection") -> bool:
        waiting = [(since, each) for each in among if each is not newcomer and (since := each.waits_since) is not None]
        if not waiting:
            return False
        _, oldest = min(waiting, key=lambda pair: pair[0])
        self._all.discard(oldest)
        oldest.abort()
        return True


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


class ControlConnection(HttpToolsProtocol):
    def __init__(self, all_connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._all = all_connections
        self._limits = all_connections.limits
        self.address = "unknown"
        self.trusted = False
        self.turn = Turn.HEAD
        self.turn_began = 0.0
        self._in_head = False
        self._replayed = False  # the parser is being told of a head that was read already
        self._overhead = 0
        self._body_bytes = 0
        self._stopped_reading = False  # what comes is no HTTP; what came before is answered
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None  # what is written is not read
        self._write_blocked_since = 0.0
        self._unsent_bytes = 0

    @property
    def waits_since(self) -> float | None:
        """When the client's turn began; None while it is ours."""
        if self.turn is not Turn.OURS:
            return self.turn_began
        return self._write_blocked_since if self._write_deadline is not None else None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # always a socket
        super().connection_made(transport)
        address = address_of(self.client[0]) if self.client else None
        self.address, self.trusted = str(address or "unknown"), address in self._all.trusted
        self._take_turn(Turn.HEAD, self._limits.head_seconds)
        if not self._all.add(self):
            self._refuse(problems.OVERLOADED, "All connections are in use.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        self._cancel()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
        super().connection_lost(exc)

    def abort(self) -> None:
        self._cancel()
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(self._limits.write_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    # A request

    def data_received(self, data: bytes) -> None:
        if self._stopped_reading or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self.turn is Turn.IDLE:
            self._take_turn(Turn.HEAD, self._limits.head_seconds)
        self._overhead += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._overhead -= len(data) - upgrade.args[0]
            self._ignore_upgrade()
            if behind_head := data[upgrade.args[0] :]:
                self.data_received(behind_head)
                return
        except HttpParserError:
            self._refuse(problems.BAD_REQUEST, "This is not an HTTP request.")
            return
        if self._overhead > OVERHEAD_BYTES_MAX + OVERHEAD_OF_BODY * self._body_bytes:
            self._refuse(
                problems.HEADERS_TOO_LARGE, f"The request head exceeds the limit of {OVERHEAD_BYTES_MAX} bytes."
            )

    def _ignore_upgrade(self) -> None:
        """An upgrade may be ignored (RFC 9110 section 7.8). llhttp reads nothing behind such a head, so another parser
        gets the framing of the body, and continues."""
        self.parser = HttpRequestParser(self)
        if self._has_body:
            framing = [b"%b: %b\r\n" % field for field in self.headers if field[0] in FRAMING]
            self._replayed = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
            self._replayed = False

    @property
    def _has_body(self) -> bool:
        return any(name in FRAMING and value.strip(b" \t0") for name, value in self.headers)

    def on_message_begin(self) -> None:
        if self._replayed:
            return
        super().on_message_begin()
        self._in_head = True
        self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._replayed:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._replayed:
            return
        self._in_head = False
        self._take_turn(Turn.BODY, self._limits.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._has_body:
            return  # llhttp takes its body for what follows the upgrade
        self._overhead = 0
        answered = self.cycle is not None and self.cycle.response_complete
        self._take_turn(Turn.IDLE if answered else Turn.OURS, self._limits.idle_seconds if answered else None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's own, which would begin before the rest of a body is read
        if self.transport.is_closing():
            self._cancel()
            self._watch_writing(self._limits.write_seconds)
        elif self.turn is Turn.OURS and self.cycle.response_complete:
            if self._in_head:
                self._take_turn(Turn.HEAD, self._limits.head_seconds)
            else:
                self._take_turn(Turn.IDLE, self._limits.idle_seconds)

    # Deadlines

    def _take_turn(self, turn: Turn, seconds: float | None) -> None:
        self._cancel()
        self.turn, self.turn_began = turn, self.loop.time()
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._on_deadline)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        if self.flow.read_paused:
            self._take_turn(self.turn, self._limits.body_seconds)  # it is we who do not read
        elif self.turn is Turn.IDLE and self.transport.get_write_buffer_size():
            self._take_turn(self.turn, self._limits.idle_seconds)  # it still reads
        elif self.turn is Turn.BODY and not self.cycle.response_complete:
            self._refuse(
                problems.REQUEST_TIMEOUT, f"The request body did not arrive within {self._limits.body_seconds:g} s."
            )
        elif self._in_head:
            self._refuse(
                problems.REQUEST_TIMEOUT, f"The request head did not arrive within {self._limits.head_seconds:g} s."
            )
        else:
            self._end()

    def _watch_writing(self, seconds: float) -> None:
        if self._write_deadline is None:
            self._write_blocked_since = self.loop.time()
            self._unsent_bytes = self.transport.get_write_buffer_size()
            self._write_deadline = self.loop.call_later(seconds, self._on_write_deadline, seconds)

    def _on_write_deadline(self, seconds: float) -> None:
        self._write_deadline = None
        if self.transport.get_write_buffer_size() > self._unsent_bytes - SENT_BYTES_MIN:
            self.abort()
        else:
            self._watch_writing(seconds)

    def _refuse(self, problem: Problem, detail: str) -> None:
        """Answers something that is not a request, or not a complete one, and closes the connection."""
        self._cancel()
        log.info("a connection is ended", client=self.address, reason=detail)
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:
                self._stopped_reading, self.cycle.keep_alive = True, False  # the requests before are answered
                return
            if self.cycle.response_started or self.pipeline:
                self.abort()
                return
            self.cycle.disconnected = True  # the app's own answer comes too late
            self.cycle.message_event.set()
        body = problems.body(problem, detail, None)
        fields = [b"content-type: " + problems.MEDIA_TYPE.encode(), b"content-length: %d" % len(body)]
        head = [b"HTTP/1.1 %d %b" % (problem.status, problem.title.encode()), *fields, b"connection: close", b"", b""]
        self.transport.write(b"\r\n".join(head) + body)
        self._end()

    def _end(self) -> None:
        self.transport.close()
        self._watch_writing(CLOSE_SECONDS)

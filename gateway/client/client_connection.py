"""The life of a client's connection: a uvicorn HTTP protocol class.

It keeps requests in order; what a request means is the exchange's business. Pipelined requests wait in a queue of
exchanges, the first of which is being answered, while nothing more is read.
"""

import asyncio
from collections import deque
from typing import Any, cast

from uvicorn.server import ServerState

from common.transitions import after
from gateway.client.awaited import awaited_seconds, silence_refusal
from gateway.client.dates import date_field
from gateway.client.flow import Flow
from gateway.client.neighbours import UNKNOWN_PEER, ClientWorker, Introduction
from gateway.client.request_reader import RequestReader
from gateway.client.sockets import has_arrived, has_unsent, introduced, reset_connection
from gateway.client.states import ENDED, PARSED, TRANSITIONS, ClientEvent, ClientState
from gateway.client.upgrades import offered_upgrade
from gateway.decision.refusals import RefusalAnswer
from gateway.exchange.exchange import Exchange
from gateway.http.deadlines import NEVER
from gateway.http.head import REQUEST_LINE, RequestHead
from gateway.tunnel.tunnel import Tunnel
from quota import problems

_NEW, _READING = ClientState.NEW, ClientState.READING  # on the way of each request, where a name is looked up faster
NOTHING_KNOWN = b"\0"  # no request ends like this


class ClientConnection(asyncio.Protocol):
    """One client connection of a worker. Made by uvicorn for each it accepts."""

    __slots__ = (
        "_exchanges",
        "_flow",
        "_known",
        "_known_tail",
        "_lingers_until",
        "_reader",
        "_server_state",
        "_tunnel",
        "address",
        "certificate_fields",
        "deadline",
        "draining",
        "introduction",
        "proto",
        "sent_bytes",
        "state",
        "transport",
        "worker",
        "writing_paused",
    )

    def __init__(
        self, config: object, server_state: ServerState, app_state: dict[str, Any], _loop: object = None
    ) -> None:
        self.worker: ClientWorker = app_state["worker"]
        self.deadline = NEVER
        self.state = ClientState.NEW
        self.draining = False
        """The worker stops: one more answer, which says that it is the last."""
        self.introduction: Introduction | None = None
        """Where the kernel does not say who is at the other end."""
        self.address, self.proto, self.certificate_fields = UNKNOWN_PEER
        self.sent_bytes = 0  # since the last exchange ended
        self.writing_paused = False
        self._server_state = server_state
        self.transport: asyncio.Transport
        self._flow: Flow
        self._reader: RequestReader[Exchange]
        self._exchanges: deque[Exchange] = deque()
        self._known: RequestHead | None = None  # of the last request that can be recognized
        self._known_tail = NOTHING_KNOWN  # its header section, with the CRLF before it
        self._tunnel: Tunnel | None = None  # asked for, or open; this request is the connection's last
        self._lingers_until = 0.0

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker = self.worker
        self.transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(cast("Any", self))
        worker.deadlines.add(self)
        self.address, self.proto, self.certificate_fields = introduced(self.transport, self.introduction)
        self._flow = Flow(self.transport)
        limits, trusted = worker.settings.limits, worker.trust.trusts(self.address)
        self._reader = RequestReader(self, worker.head_reader, limits, worker.destinations.upgrades, trusted)
        if len(self._server_state.connections) > limits.connections_max:
            self.transport.abort()
            return
        self._expect_within(worker.settings.timeouts.head_seconds)
        if worker.draining:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        if not self._exchanges and data.endswith(self._known_tail) and self._repeats(data):
            return
        if self.state is _READING or self.state is _NEW:
            self._reader.feed(data)
        elif self.state is ClientState.LINGERING:
            self._linger()
        else:
            self.on_unparsed(data)

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
        if self.draining:
            exchange.keep_alive = False
        self._exchanges.append(exchange)
        self.deadline = NEVER
        if known is not None:
            exchange.start_again(known)
        elif match is not None:
            exchange.method, exchange.raw_target = match.groups()
            exchange.head_complete = exchange.request_complete = True
            exchange.start()
        return True

    def eof_received(self) -> bool | None:
        # The end of a client's bytes is the end of the client, as nginx has it too: one that left must not keep the
        # upstream busy, and it looks the same as one that only half-closed.
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._become(ClientEvent.LOST)
        self._server_state.connections.discard(cast("Any", self))
        self.worker.deadlines.discard(self)
        for exchange in self._exchanges:
            exchange.leave(self._server_state)
        self._exchanges.clear()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._flow.expect_progress()
        self._expect_within(self.worker.intervals.client_stall_seconds)
        if self._exchanges and (upstream := self._exchanges[0].upstream) is not None:
            upstream.pause_reading()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._flow.holding:
            self._flow.holding = False
            self.resume_reading()
        self._await_client()
        if self._exchanges and (upstream := self._exchanges[0].upstream) is not None:
            upstream.resume_reading()

    @property
    def in_flight(self) -> int:
        return len(self._exchanges)

    @property
    def receiving(self) -> Exchange | None:
        """The request that has begun and not ended."""
        return self._reader.receiving

    # For the worker

    def shutdown(self) -> None:
        """The worker takes no further connections: the next answer that begins says that it is this one's last.

        Until then it is not closed for that: a request that is on its way would find no one. Called once more when the
        worker's end is near."""
        self.draining = True
        if not self._exchanges:
            self.deadline = min(self.deadline, self.worker.idle_end)
        elif self._tunnel is not None and self._tunnel.open:
            self._tunnel.drain()
        elif not self._exchanges[-1].responded:
            self._exchanges[-1].keep_alive = False

    def stop(self) -> None:
        """The worker's time is over: what is under way is refused or cut. Tunnels were closed before."""
        if self.state in ENDED or (self._tunnel is not None and self._tunnel.open):
            return
        if self._exchanges:
            self._exchanges[0].stop()
        else:
            self._end(unread=False)

    def abort(self) -> None:
        self.transport.abort()

    def on_deadline(self) -> None:
        ended = self.state in ENDED
        if self.writing_paused or (ended and self.transport.get_write_buffer_size()):
            if self._flow.took_some():
                self._expect_within(self.worker.intervals.client_stall_seconds)
            else:
                self.transport.abort()
        elif ended and has_unsent(self.transport) and self.worker.deadlines.now < self._lingers_until:
            self._expect_within(self.worker.intervals.client_linger_seconds)
        elif ended:
            self.transport.abort()
        elif not self._exchanges and self.state in PARSED and has_arrived(self.transport):
            self._expect_within(0)
        elif (receiving := self.receiving) is None or receiving.responded or self._exchanges[0] is not receiving:
            self._end(unread=False)
        else:
            receiving.refuse(silence_refusal(receiving), close=True)

    # For the reader of requests

    def begin_request(self, head: RequestHead) -> Exchange:
        if self.state is _NEW:
            self._become(ClientEvent.FIRST_REQUEST)
        exchange = Exchange(self.worker, self, head)
        self._exchanges.append(exchange)
        if len(self._exchanges) > 1:
            self.pause_reading()
        elif not self.writing_paused:
            self._expect_within(self.worker.settings.timeouts.head_seconds)
        if self.writing_paused and not self._flow.holding:
            self._flow.holding = True
            self.pause_reading()
        return exchange

    def grant_upgrade(self, request: Exchange) -> bool:
        """Whether the route offers what is asked for. Else the Upgrade is ignored, as RFC 9110 section 7.8 allows, and
        the request is one like any other."""
        if (offer := offered_upgrade(request, self.worker.destinations)) is None:
            return False
        self._become(ClientEvent.UPGRADE_ASKED)
        request.keep_alive = False  # what follows the head is no request
        self._tunnel = request.tunnel = Tunnel(self.worker, request, self, offer.protocol, offer.price)
        return True

    def on_request_head(self, request: Exchange) -> None:
        if self.draining or not request.head.keep_alive:
            request.keep_alive = False
        if not self.writing_paused:
            self.deadline = NEVER
        if self._exchanges[0] is request:
            request.start()

    def on_body_read(self) -> None:
        if not self._flow.paused:
            self._expect_within(self.worker.settings.timeouts.body_idle_seconds)

    def on_request_end(self, request: Exchange) -> None:
        if not self.writing_paused:
            self.deadline = NEVER
        request.on_request_complete()

    def on_unparsed(self, data: bytes) -> None:
        """What came behind the last request. Nobody but a tunnel wants it."""
        if self._tunnel is not None and self.state is ClientState.UPGRADING:
            self._tunnel.on_early(data)

    def on_unknown_end(self) -> None:
        """The exchange refuses the request when it is its turn."""
        self._become(ClientEvent.UNREADABLE)

    def on_unreadable(self, problem: problems.Problem, detail: str) -> None:
        """The bytes are no request, so nothing that follows them can be trusted to be one."""
        if self.state not in PARSED:
            return
        self._become(ClientEvent.UNREADABLE)
        receiving, self._reader.receiving = self._reader.receiving, None
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

    def learn_section(self, head: RequestHead, section: bytes) -> None:
        self._known, self._known_tail = head, section

    def forget_section(self) -> None:
        self._known, self._known_tail = None, NOTHING_KNOWN

    # For the exchange

    def write(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self.transport.write(data)

    def date_field(self) -> bytes:
        return date_field(self.worker, self._server_state.default_headers)

    def pause_reading(self) -> None:
        if self._flow.pause() and not self.writing_paused:
            self.deadline = NEVER

    def resume_reading(self) -> None:
        if self._flow.resume():
            self._await_client()

    def exchange_done(self, exchange: Exchange) -> None:
        """The answer is written. The next request follows, or the end of the connection."""
        if self.state is not _READING and self.state in ENDED:
            return
        if not self._exchanges or self._exchanges[0] is not exchange:
            return
        self._exchanges.popleft()
        self._server_state.total_requests += 1
        exchange.finish()
        if not exchange.keep_alive:
            # What was read behind this request, or waits to be read, is answered no more.
            self._end(unread=self.state not in PARSED or self._flow.paused or not exchange.request_complete)
            return
        if self._exchanges:
            self.resume_reading()
            # Not from here: thousands of pipelined refusals would answer each other in one recursion.
            self.worker.loop.call_soon(self._start_following, self._exchanges[0])
        elif self.draining and self.worker.idle_end <= self.worker.loop.time():
            self._end(unread=False)
        elif not self.writing_paused:
            self.deadline = self.worker.deadlines.now + self.worker.idle_seconds
            if self.draining:
                self.deadline = min(self.deadline, self.worker.idle_end)

    def _start_following(self, exchange: Exchange) -> None:
        if self.state not in ENDED and exchange.head_complete and not exchange.id:
            exchange.start()

    def cut(self, *, reset: bool) -> None:
        """Ends the connection within an answer. `reset`: only a reset connection shows the client that it was cut."""
        if reset:
            reset_connection(self.transport)
        else:
            self._end(unread=not self._exchanges[0].request_complete)  # the client may still be sending

    # For the tunnel

    def take_back(self) -> None:
        self.transport.set_protocol(self)

    def tunnel_ended(self) -> None:
        exchange = self._exchanges.popleft()  # nothing was parsed behind it
        self._server_state.total_requests += 1
        exchange.finish()
        self._tunnel = None
        if not self.transport.is_closing():
            self._end(unread=True)

    # Ends

    def _become(self, event: ClientEvent) -> None:
        self.state = after(TRANSITIONS, self.state, event)
        if self.state not in PARSED:
            self.forget_section()
            if self.state is not ClientState.UPGRADING:  # the reader stops behind that head by itself
                self._reader.stop()

    def _end(self, unread: bool) -> None:
        intervals, seconds = self.worker.intervals, self.worker.intervals.client_linger_seconds
        lingers = unread and self.transport.can_write_eof()
        if unread and not (lingers or self.state is ClientState.UPGRADING):
            # A TLS layer that is closed reads on until the client has closed, too, and does not say what comes.
            seconds = intervals.client_linger_seconds_max
        self._become(ClientEvent.ENDED_UNREAD if lingers else ClientEvent.ENDED)
        self._flow.expect_progress(self.transport.get_write_buffer_size() + 1)
        self._expect_within(seconds)
        self._lingers_until = self.worker.deadlines.now + intervals.client_linger_seconds_max
        if lingers:
            # Closing with bytes unread makes the kernel reset the connection, and the client may lose the answer.
            self.transport.write_eof()
            self.transport.resume_reading()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """The client sends what nobody wants: it has not read its answer yet."""
        if not (self.draining or self.writing_paused or self.transport.get_write_buffer_size()):
            linger_seconds = self.worker.intervals.client_linger_seconds
            self.deadline = min(self.worker.deadlines.now + linger_seconds, self._lingers_until)

    def _await_client(self) -> None:
        """Sets the deadline of what is awaited of the client now, after a pause in which it was waited for in vain."""
        if not self.writing_paused and self.state not in ENDED:
            timeouts, answering = self.worker.settings.timeouts, bool(self._exchanges)
            seconds = NEVER if self._flow.paused else awaited_seconds(timeouts, self.receiving, answering)
            self._expect_within(seconds)

    def _expect_within(self, seconds: float) -> None:
        self.deadline = self.worker.deadlines.now + seconds

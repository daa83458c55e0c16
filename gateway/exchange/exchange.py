"""One request's life: received, decided, forwarded, settled, recorded.

`start` reads like the request path of the design. No step waits: each hands over to the next, or to a callback
that the ledger, the key sets or the upstream call. An exchange belongs to one client connection and ends there.
"""

import asyncio
from time import monotonic_ns
from typing import Protocol

from common.request_target import TargetRefused
from gateway.decision.charge import CHARGED, Charge
from gateway.decision.decisions import Decisions
from gateway.decision.refusals import STATUS_LINES, RefusalAnswer, RefusalText
from gateway.exchange import refusals
from gateway.exchange.absent import Absent, OpenConnections
from gateway.exchange.body import BUFFER_MAX, RequestBody
from gateway.exchange.forwarding import Forwarding, Receiver, Upgrade
from gateway.exchange.heads import UpstreamHeads, connection_field
from gateway.http.cors import Cors
from gateway.http.deadlines import DeadlineSweep
from gateway.http.head import RequestHead
from gateway.observe import record
from gateway.observe.record import Recorder
from gateway.routing.destinations import Destination, Destinations, MeteredRoute, Unrouted
from gateway.upstream.connection.carried import Carrier
from identity.claims import Claims
from quota import problems

ALLOWED_ANYWHERE = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # routes tell more exactly


class Client(Receiver, Protocol):
    """Whom an exchange answers: its client's connection, or what takes the answer in place of a client that left."""

    sent_bytes: int
    """Since the last exchange ended."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def exchange_done(self, exchange: "Exchange") -> None: ...


class EndPoint(Protocol):
    """Where a request ends that is decided on, and not forwarded."""

    def admit(self, exchange: "Exchange", destination: Destination, charge: Charge | None) -> None: ...
    def spell(self, status: int, fields: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and fields of any answer, as whoever asks understands them."""


class Authorizations(Protocol):
    """Answers whether another proxy may forward."""

    def decide(self, exchange: "Exchange") -> None: ...


class ExchangeWorker(Protocol):
    """What an exchange uses of the worker that holds it."""

    @property
    def destinations(self) -> Destinations: ...
    @property
    def decisions(self) -> Decisions: ...
    @property
    def heads(self) -> UpstreamHeads: ...
    @property
    def cors(self) -> Cors: ...
    @property
    def recorder(self) -> Recorder: ...
    @property
    def forward_auth(self) -> Authorizations | None: ...
    @property
    def deadlines(self) -> DeadlineSweep: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    def next_id(self) -> bytes: ...
    def answer_locally(self, exchange: "Exchange", target: bytes) -> None: ...


class Exchange:
    """A request and its answer, as its client's connection knows them."""

    __slots__ = (
        "answered",
        "began_ns",
        "body",
        "charge",
        "claims",
        "client",
        "destination",
        "end_point",
        "forwarding",
        "head",
        "head_complete",
        "id",
        "keep_alive",
        "method",
        "over",
        "permit",
        "raw_target",
        "request_complete",
        "responded",
        "status",
        "tunnel",
        "verdict",
        "worker",
    )

    def __init__(self, worker: ExchangeWorker, client: Client, head: RequestHead) -> None:
        self.worker = worker
        self.client = client
        # received
        self.head = head
        self.method = self.raw_target = self.id = b""
        self.head_complete = self.request_complete = False
        self.keep_alive = True
        self.body: RequestBody | None = None  # nothing of one has come
        self.tunnel: Upgrade | None = None  # it asks for an upgrade
        # how far it came
        self.destination: Destination | Unrouted | None = None
        self.end_point: EndPoint | None = None
        self.claims: Claims | None = None
        self.charge: Charge | None = None
        self.permit = False  # counted among the organization's requests under way
        self.forwarding: Forwarding | None = None
        self.responded = self.answered = False
        # Nothing is wanted of the upstream any more: the client left, or the gateway itself has answered.
        self.over = False
        # recorded
        self.began_ns = 0  # monotonic
        self.verdict = b""
        self.status = 0

    # The request path

    def start(self) -> None:
        """The head is complete and it is this request's turn to be answered."""
        worker, head = self.worker, self.head
        self.began_ns = monotonic_ns()
        self.id = worker.next_id()
        if len(head.hosts) != 1 or head.transfer_codings or self.method == b"TRACE":
            refusal = refusals.of_head(head, self.method)
            if refusal is not None:
                self.keep_alive = False
                self.refuse(refusal)
                return
        if worker.forward_auth is not None and self.raw_target.startswith(b"/-/authorize/"):
            worker.forward_auth.decide(self)
            return
        try:
            destination = worker.destinations.find(self.method, self.raw_target, head)
        except TargetRefused as e:
            self.refuse(RefusalAnswer(problems.BAD_REQUEST, e.reason), close=True)
            return
        self.destination = destination
        if isinstance(destination, Destination):
            self.decide(destination)
        else:
            self._answer_here(destination)

    def start_again(self, destination: Destination) -> None:
        """A request of a recognized head to a destination that is remembered."""
        self.head_complete = self.request_complete = True
        self.began_ns = monotonic_ns()
        self.id = self.worker.next_id()
        self.destination = destination
        self.method = destination.method
        if destination.route.exempt:
            self.decide(destination)
        else:  # it has no body, and is no preflight
            self.worker.decisions.decide(self, destination)

    def decide(self, destination: Destination) -> None:
        route, length = destination.route, self.head.content_length
        limit = route.body_bytes_max
        if (length is not None and length > limit) or (self.body is not None and self.body.received_bytes > limit):
            self.refuse(refusals.of_long_body(limit), close=True)
        elif route.exempt or destination.preflight:
            self.verdict = record.EXEMPT
            self.proceed(destination, None)
        else:
            self.worker.decisions.decide(self, destination)

    def proceed(self, destination: Destination, charge: Charge | None) -> None:
        """Nothing speaks against the request: it is forwarded. `charge`: of one that is charged."""
        self.charge = charge
        if self.end_point is not None:
            self.end_point.admit(self, destination, charge)
            return
        forwarding = self.forwarding = Forwarding(self, destination, charge)
        destination.route.upstream.send(forwarding)

    # The body

    def on_request_body(self, data: bytes) -> None:
        body = self.body_for_sending()
        body.received_bytes += len(data)
        destination, forwarding = self.destination, self.forwarding
        # What comes before the request's turn is measured then.
        if destination is not None and destination.route is not None and not self.responded:
            limit = destination.route.body_bytes_max
            if body.received_bytes > limit:
                self.refuse(refusals.of_long_body(limit), close=True)
                return
        if forwarding is not None and forwarding.upstream is not None:
            forwarding.send_body(forwarding.upstream, body, data)
        elif not self.responded and body.wait(data):
            self.hold_client()

    def body_for_sending(self) -> RequestBody:
        body = self.body
        if body is None:
            body = self.body = RequestBody()
        return body

    def on_request_complete(self) -> None:
        self.request_complete = True
        if self.forwarding is not None:
            self.forwarding.on_request_complete()
        if self.answered:
            self.client.exchange_done(self)

    def hold_client(self) -> None:
        """The body comes faster than it can go on: the client is read no further."""
        body = self.body_for_sending()
        if not body.client_held:
            body.client_held = True
            self.client.pause_reading()

    def release_client(self) -> None:
        if (body := self.body) is not None and body.client_held:
            body.client_held = False
            self.client.resume_reading()

    def stop_reading_body_if_long(self) -> None:
        """The answer comes before the end of the request: a short rest is read and dropped so that the connection
        can be used again, a long one is not worth it."""
        head = self.head
        if not head.has_body:
            return
        rest = None if head.content_length is None else head.content_length - self.body_bytes
        if head.expects_continue or rest is None or rest > BUFFER_MAX:
            self.keep_alive = False

    @property
    def body_bytes(self) -> int:
        return 0 if self.body is None else self.body.received_bytes

    @body_bytes.setter
    def body_bytes(self, byte_count: int) -> None:
        """By a tunnel, whose bytes are counted likewise."""
        self.body_for_sending().received_bytes = byte_count

    # Answered by the gateway itself

    def _answer_here(self, destination: Unrouted) -> None:
        if destination.path.startswith(b"/-/"):
            self.verdict = record.LOCAL
            self.worker.answer_locally(self, destination.target)
        elif destination.path == b"*":
            # It asks about the server as a whole, which this gateway is to its client: RFC 9110 section 9.3.7.
            self.verdict = record.LOCAL
            self.respond(200, b"Allow: %b\r\n" % ALLOWED_ANYWHERE, b"")
        else:
            self.refuse(refusals.of_unrouted(destination))

    def refuse(self, refusal: RefusalAnswer, close: bool = False) -> None:
        if not self.id:  # refused before its turn came
            self.id = self.worker.next_id()
        if not self.verdict:
            self.verdict = record.verdict_of(refusal.problem)
        head = self.head
        fields, body = refusals.fields_and_body(refusal, head.request_id or self.id, self.worker.cors, head.origin)
        self.respond(refusal.problem.status, fields, body, close=close)

    def refuse_again(self, text: RefusalText) -> None:
        """A refusal whose text was made before."""
        head = self.head
        plain = self.request_complete and self.keep_alive and head.is_11
        if not plain or self.method == b"HEAD" or self.end_point is not None:
            self.refuse(text.refusal)
            return
        self.responded = self.over = self.answered = True
        self.status = text.refusal.problem.status
        if self.body is not None:
            self.body.drop()
            self.release_client()
        client = self.client
        cors_lines = refusals.readable_by(self.worker.cors, head.origin)
        client.write(refusals.prepared(text, client.date_field(), cors_lines, head.request_id or self.id))
        client.exchange_done(self)

    def respond(self, status: int, fields: bytes, body: bytes, close: bool = False) -> None:
        """Writes a whole answer of the gateway's own."""
        if self.responded or self.over:
            return
        if self.end_point is not None:
            status, fields = self.end_point.spell(status, fields, body)
        self.responded = True
        self.status = status
        if close:
            self.keep_alive = False
        elif not self.request_complete:
            self.stop_reading_body_if_long()
        self.over = True
        if self.forwarding is not None:
            self.forwarding.overrule("the gateway itself answered")
        if self.body is not None:
            self.body.drop()
            self.release_client()
        self.client.write(
            b"%b%bContent-Length: %d\r\n%b%bX-Request-Id: %b\r\n\r\n%b"
            % (
                STATUS_LINES[status],
                self.client.date_field(),
                len(body),
                fields,
                connection_field(self.head, keep_alive=self.keep_alive),
                self.head.request_id or self.id,
                b"" if self.method == b"HEAD" else body,
            )
        )
        self.answered = True
        if self.request_complete or not self.keep_alive:
            self.client.exchange_done(self)

    # Ends

    def finish(self, aborted: bool = False) -> None:
        """It is over. What knows it is let go: in a circle, all of them would wait for the garbage collector."""
        self.worker.recorder.finished(self, aborted)
        if self.permit:
            self._release_permit()
        self.forwarding = self.charge = None

    def stop(self) -> None:
        """The worker ends, and this has had its time."""
        if not self.responded:
            self.refuse(refusals.of_stop(), close=True)
            return
        if self.forwarding is not None:
            self.forwarding.cut("the gateway stopped")
        self.over = True
        self.client.cut(reset=not self.head.is_11)

    def leave(self, state: OpenConnections) -> None:
        """The client is gone."""
        forwarding, charge = self.forwarding, self.charge
        if forwarding is not None and forwarding.upstream is not None and charge is not None:
            route = forwarding.destination.route
            rules, bounds = route.refund.on, route.on_abort
            charged = charge.state is CHARGED and "client_abort" not in rules
            if bounds is not None and charged and self.request_complete:
                client, upstream = self.client, forwarding.upstream
                absent = Absent(self, state, client.address, client.proto, client.sent_bytes, bounds)
                self.client = forwarding.client = absent
                upstream.resume_reading()
                return
        self.abandon()

    def end_absent(self) -> None:
        """The answer is complete, and nobody is there to have it."""
        self.finish(aborted=True)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.over = True
        if self.forwarding is not None:
            self.forwarding.abandon()
        if self.id:
            self.finish(aborted=True)

    def _release_permit(self) -> None:
        """Another request of its organization may begin."""
        self.permit = False
        if self.claims is not None:
            self.worker.decisions.permits.release(self.claims.org, self.id)

    # What its client's connection and its tunnel ask

    @property
    def upstream(self) -> Carrier | None:
        """What sends its answer, as long as it does."""
        return None if self.forwarding is None else self.forwarding.upstream

    @property
    def route(self) -> MeteredRoute | None:
        return None if self.destination is None else self.destination.route

    def in_shadow(self, *, of_principal: bool = False) -> bool:
        return (route := self.route) is not None and self.worker.decisions.in_shadow(route, self.claims, of_principal)

    def hand_to_tunnel(self) -> bytes:
        """The upstream has switched. Its connection is the tunnel's from here on, and so is the permit: the take that
        got it, empty if there is none."""
        if self.forwarding is not None:
            self.forwarding.upstream = None
        held, self.permit = self.permit, False
        return self.id if held else b""

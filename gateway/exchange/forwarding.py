"""A request that goes on: sent to an upstream, whose answer goes to the client, and settled when it is over.

The upstream's connection calls it, with what it sends and what it is answered.
"""

from time import monotonic_ns
from typing import Any, Protocol

import structlog

from gateway.decision.charge import CHARGED, Charge
from gateway.decision.refusals import RefusalAnswer, of_open_breaker
from gateway.exchange import heads, refusals
from gateway.exchange.body import RequestBody, chunk, last_chunk
from gateway.exchange.heads import Sender, UpstreamHeads
from gateway.http.deadlines import NEVER
from gateway.http.head import AnswerHead, RequestHead
from gateway.metering.reported import UsageReport
from gateway.observe.record import Recorder
from gateway.routing.destinations import Destination
from gateway.settings.metering import Outcome
from gateway.upstream.balancer import IDEMPOTENT
from gateway.upstream.connection.carried import Carrier, SwitchedConnection
from gateway.upstream.connection.failures import Tripped, UpstreamFailure
from identity.claims import Claims

log = structlog.get_logger()


class Receiver(Sender, Protocol):
    """Where the answer goes."""

    @property
    def writing_paused(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def date_field(self) -> bytes: ...
    def exchange_done(self, exchange: Any) -> None: ...  # Any: the exchange that it belongs to, a class above
    def cut(self, *, reset: bool) -> None: ...


class Upgrade(Protocol):
    """A tunnel that was asked for."""

    @property
    def protocol(self) -> bytes: ...
    def answers(self, protocol: bytes, nominated: list[bytes]) -> bool: ...
    def start(self, upstream: SwitchedConnection, head: bytes, behind: bytes) -> None: ...


class ForwardingWorker(Protocol):
    @property
    def heads(self) -> UpstreamHeads: ...
    @property
    def recorder(self) -> Recorder: ...


class ForwardedExchange(Protocol):
    """The exchange that the request belongs to."""

    answered: bool
    keep_alive: bool
    responded: bool
    status: int
    body: RequestBody | None

    @property
    def id(self) -> bytes: ...
    @property
    def head(self) -> RequestHead: ...
    @property
    def method(self) -> bytes: ...
    @property
    def claims(self) -> Claims | None: ...
    @property
    def client(self) -> Receiver: ...
    @property
    def tunnel(self) -> Upgrade | None: ...
    @property
    def request_complete(self) -> bool: ...
    @property
    def over(self) -> bool: ...
    @property
    def worker(self) -> ForwardingWorker: ...
    def body_for_sending(self) -> RequestBody: ...
    def hold_client(self) -> None: ...
    def release_client(self) -> None: ...
    def stop_reading_body_if_long(self) -> None: ...
    def refuse(self, refusal: RefusalAnswer) -> None: ...


class Forwarding:
    __slots__ = (
        "charge",
        "client",
        "destination",
        "exchange",
        "expires",
        "forwarded_ns",
        "headed_ns",
        "method",
        "report",
        "request_complete",
        "resent",
        "tried",
        "upstream",
    )

    def __init__(self, exchange: ForwardedExchange, destination: Destination, charge: Charge | None) -> None:
        self.exchange = exchange
        self.client: Receiver = exchange.client  # another one when the client has left
        self.method = exchange.method
        self.request_complete = exchange.request_complete
        self.destination = destination
        self.charge = charge
        self.report: UsageReport | None = None  # of what was used, by the upstream
        if charge is not None and destination.route.pricing is not None:
            self.report = destination.route.pricing.report()
        self.upstream: Carrier | None = None
        self.expires = NEVER  # loop time by which the whole answer must be there
        self.tried: tuple[str, ...] = ()  # the names of targets that failed this request
        self.resent = False
        self.forwarded_ns = monotonic_ns()
        self.headed_ns = 0

    # What the upstream is sent

    def take_request(self) -> bytes:
        """The request's head as it goes upstream, and what has come of the body. Once, by each connection."""
        exchange, destination = self.exchange, self.destination
        head, claims, route = exchange.head, exchange.claims, destination.route
        told = None if claims is None else claims.upstream_fields
        if head.sent_for is not told or head.sent_as is not route.sent_as or (fields := head.upstream_fields) is None:
            protocol = None if exchange.tunnel is None else exchange.tunnel.protocol
            made = exchange.worker.heads.fields(head, destination, claims, self.client, protocol)
            fields = head.upstream_fields = made
            head.sent_for, head.sent_as = told, route.sent_as
            head.sent_whole = not (route.sent_by_target or head.has_body or head.transfer_codings)
        request_id = exchange.id
        if (traces := head.traces) is not None and traces.concerns(request_id):
            fields = traces.sent(fields, request_id, head.traceparent)
        if head.sent_whole:
            return b"%b%bX-Request-Id: %b\r\n\r\n" % (destination.request_line, fields, head.request_id or request_id)
        if route.sent_by_target and self.upstream is not None:
            fields = self.upstream.host_line + fields  # each target may have its own
        start = b"%b%bX-Request-Id: %b\r\n\r\n" % (destination.request_line, fields, head.request_id or request_id)
        return start + self._take_body(head)

    def _take_body(self, head: RequestHead) -> bytes:
        if not head.has_body and self.exchange.body is None:
            return b""
        received = self.exchange.body_for_sending().take(keep=self.method in IDEMPOTENT)
        if head.chunked:
            received = [chunk(data) for data in received]
            if self.request_complete:
                received.append(self._last_chunk())
        self.exchange.release_client()
        return b"".join(received)

    def send_body(self, upstream: Carrier, body: RequestBody, data: bytes) -> None:
        body.pass_on(data)
        upstream.write(chunk(data) if self.exchange.head.chunked else data)

    def on_request_complete(self) -> None:
        self.request_complete = True
        if self.upstream is not None and self.exchange.head.chunked:
            self.upstream.write(self._last_chunk())

    def _last_chunk(self) -> bytes:
        trailers, rewriting = self.exchange.head.trailers, self.destination.route.rewriting
        return last_chunk(trailers if rewriting is None or not trailers else rewriting.trailers(trailers))

    @property
    def body_at_hand(self) -> bool:
        """Whether the request can be sent once more: all that came of its body is still there."""
        body = self.exchange.body
        return (body is not None and body.kept) or not self.exchange.head.has_body

    def take_back_body(self) -> None:
        """What was sent of the body is to be sent again."""
        if (body := self.exchange.body) is not None:
            body.take_back()

    # What its connections ask

    @property
    def head(self) -> RequestHead:
        return self.exchange.head

    @property
    def body_bytes(self) -> int:
        body = self.exchange.body
        return 0 if body is None else body.received_bytes

    @property
    def keep_alive(self) -> bool:
        return self.exchange.keep_alive

    @keep_alive.setter
    def keep_alive(self, goes_on: bool) -> None:
        self.exchange.keep_alive = goes_on

    @property
    def over(self) -> bool:
        """Nothing is wanted of the upstream any more: the client left, or the gateway itself has answered."""
        return self.exchange.over

    @property
    def tunnel(self) -> Upgrade | None:
        return self.exchange.tunnel

    @property
    def rate_fields(self) -> bytes:
        return b"" if self.charge is None else self.charge.rate_fields

    def hold_client(self) -> None:
        self.exchange.hold_client()

    def release_client(self) -> None:
        self.exchange.release_client()

    # What the upstream answers

    def answer_known(self, known: AnswerHead, body: bytes) -> bytes:
        """The whole answer, of a head that was met before."""
        exchange, charge = self.exchange, self.charge
        head = exchange.head
        plain = self.request_complete and exchange.keep_alive and known.dated and head.is_11
        if not plain or self.destination.route.response_edits is not None:
            fields = known.fields if known.dated else known.fields + self.client.date_field()
            return self.answer_head(known.status, known.reason, fields) + body
        exchange.responded = True
        exchange.status = known.status
        self.headed_ns = monotonic_ns()
        return b"%b%bX-Request-Id: %b\r\n\r\n%b" % (
            known.start,
            b"" if charge is None else charge.rate_fields,
            head.request_id or exchange.id,
            body,
        )

    def answer_head(self, status: int, reason: bytes, fields: bytes) -> bytes:
        """The head of the upstream's answer as it goes to the client. From here on the answer can only be cut."""
        exchange = self.exchange
        exchange.responded = True
        exchange.status = status
        self.headed_ns = monotonic_ns()
        if not self.request_complete:
            exchange.stop_reading_body_if_long()
        head, fields, more = exchange.head, self.edited(fields), self.rate_fields
        if not (exchange.keep_alive and head.is_11):
            more += heads.connection_field(head, keep_alive=exchange.keep_alive)
        return heads.answer_head(status, reason, fields, more, head.request_id or exchange.id)

    def switching_head(self, reason: bytes, fields: bytes) -> bytes:
        """The head of the upstream's 101 as it goes to the client, which is a tunnel from here on."""
        exchange, sources = self.exchange, self.destination.route.tokens
        protocol = b"" if exchange.tunnel is None else exchange.tunnel.protocol
        exchange.responded = True
        exchange.status = 101
        self.headed_ns = monotonic_ns()
        chosen = b"" if sources is None else sources.chosen(exchange.head, fields)
        fields = self.edited(fields) + chosen
        request_id = exchange.head.request_id or exchange.id
        return heads.switching_head(reason, protocol, fields, self.rate_fields, request_id)

    def edited(self, fields: bytes) -> bytes:
        """Lines of the upstream's answer as the client gets them."""
        edits = self.destination.route.response_edits
        return fields if edits is None else edits.of_block(fields)

    def edited_trailers(self, lines: list[bytes]) -> list[bytes]:
        edits = self.destination.route.response_edits
        return lines if edits is None else edits.kept(lines)

    def on_answered(self) -> None:
        """The whole answer was written."""
        exchange = self.exchange
        self.upstream = None
        status = exchange.status
        if self.report is not None or status >= 500:
            self._settle("server_error" if status >= 500 else None, "the upstream failed")
        if exchange.body is not None:
            exchange.release_client()
        exchange.answered = True
        if self.request_complete or not exchange.keep_alive:
            exchange.client.exchange_done(exchange)

    def on_upstream_failed(self, failure: UpstreamFailure) -> None:
        exchange = self.exchange
        self.upstream = None
        exchange.release_client()
        if exchange.over:
            return
        log.warning(
            "upstream failed", request_id=exchange.id.decode(), reason=str(failure), kind=type(failure).__name__
        )
        if exchange.responded:
            self._settle("cut_answer", str(failure))
            # The head is gone, so the cut must show: the connection ends before the announced end of the body.
            self.client.cut(reset=not exchange.head.is_11)
            return
        charged = self._settle(refusals.outcome_of(failure, resent=self.resent), str(failure))
        if isinstance(failure, Tripped):
            exchange.refuse(of_open_breaker(self.destination.route.upstream.retry_after_seconds))
        else:
            exchange.refuse(refusals.of_failure(failure, charged=charged))

    # Ends before its time

    def overrule(self, reason: str) -> None:
        """The gateway itself answers."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
            self._settle("request_refused", reason)
        elif self.charge is not None:
            self.charge.give_back(reason)

    def cut(self, reason: str) -> None:
        """The answer has begun, and the gateway ends it."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
            self._settle("cut_answer", reason)

    def abandon(self) -> None:
        """The client has left."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
            self._settle("client_abort", "the client left before the answer was complete")
        elif not self.exchange.responded:
            if self.resent:
                self._settle("client_abort", "the client left before there was an answer")
            elif self.charge is not None:
                self.charge.give_back("the client left before its request was forwarded")

    # Settled

    def _settle(self, outcome: Outcome | None, reason: str) -> bool:
        """Whether something may stay charged."""
        return self.charge is not None and self.charge.settle(outcome, reason, self._reported(self.charge))

    def _reported(self, charge: Charge) -> dict[str, int]:
        """The units that the upstream has reported so far."""
        report, exchange, route = self.report, self.exchange, self.destination.route
        if report is None or not exchange.responded or charge.state is not CHARGED:
            return {}
        units, outcomes = report.units()
        for meter, outcome in outcomes.items():
            exchange.worker.recorder.reports[route.name, outcome] += 1
            if meter not in units:
                log.warning("usage not reported", request_id=exchange.id.decode(), meter=meter, reason=outcome)
        return units

"""One request's life: received, taken, forwarded, settled.

`start` reads like the request path of the design. No step waits: each hands over to the next, or to a callback
that the ledger, the key sets or the upstream call. An exchange belongs to one client connection and ends there.
"""

from time import monotonic
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.exchange import idempotency, verdicts
from gateway.exchange.absent import Absent, OpenConnections
from gateway.exchange.services import WorkerServices
from gateway.exchange.verdicts import RefusalAnswer
from gateway.http import headers
from gateway.http.codings import readable
from gateway.http.deadlines import NEVER
from gateway.http.head import AnswerHead, RequestHead
from gateway.http.target import TargetRefused
from gateway.http.trace import trace_id, without_trace
from gateway.metering.costs import CostRefused, price_of
from gateway.observe import record
from gateway.redis.connection import Lost
from gateway.upstream.balancer import IDEMPOTENT
from gateway.upstream.carried import Carrier, SwitchedConnection
from gateway.upstream.failures import Overloaded, TimedOut, Tripped, Unreachable, UpstreamFailure
from identity.claims import Claims
from identity.keysets import RETRY_SECONDS
from identity.refusals import KeyRefreshDue, Reason, TokenRefused
from quota import problems
from quota.calls.encoded import IDEMPOTENT_KEYS, TAKE_ARGV, keyed
from quota.calls.take import decode_take
from quota.model import Exhausted, RateLimited, Unknown
from quota.wire import More, Verdict

if TYPE_CHECKING:
    from gateway.metering.costs import RequestPrice
    from gateway.metering.reported import UsageReport
    from gateway.routing.destinations import Destination, MeteredRoute
    from gateway.settings.metering import Outcome

log = structlog.get_logger()

ALLOWED_ANYWHERE = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # routes tell more exactly
BUFFER_MAX = 65_536  # of a body, while the decision is pending; then the client is not read any further


class Client(Protocol):
    """Whom an exchange answers: its client's connection, or what takes the answer in place of a client that left."""

    sent_bytes: int
    """Since the last exchange ended."""

    @property
    def address(self) -> bytes: ...
    @property
    def proto(self) -> bytes: ...
    @property
    def writing_paused(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def date_field(self) -> bytes: ...
    def hand_over(self, exchange: "Exchange", successor: "Exchange") -> None: ...
    def exchange_done(self, exchange: "Exchange") -> None: ...
    def cut(self, *, reset: bool) -> None: ...


class Upgrade(Protocol):
    """The tunnel that a request asks for."""

    @property
    def protocol(self) -> bytes: ...
    def answers(self, protocol: bytes, nominated: list[bytes]) -> bool: ...
    def start(self, upstream: SwitchedConnection, head: bytes, behind: bytes) -> None: ...


class Outage(Protocol):
    """Forwards without a take while Redis is away."""

    def admit(self, exchange: "Exchange") -> bool: ...
    def void(self, org: str, request_id: bytes) -> None: ...
    def forget(self, org: str) -> None: ...


class Decisions(Protocol):
    """Answers whether another proxy may forward."""

    def decide(self, exchange: "Exchange") -> None: ...


class ExchangeWorker(WorkerServices, Protocol):
    """The worker: what it gives to all, and what it does with an exchange."""

    @property
    def degraded(self) -> Outage | None: ...
    @property
    def forward_auth(self) -> Decisions | None: ...
    def answer_locally(self, exchange: "Exchange", target: bytes) -> None: ...


class Exchange:
    """A request and its answer. What it holds is the state of the request path; what it calls does the I/O."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_holding",
        "_kept",
        "answered",
        "began",
        "body_bytes",
        "claims",
        "client",
        "destination",
        "expires",
        "forwarded_at",
        "given_back",
        "head",
        "head_complete",
        "headed_at",
        "hydrated",
        "id",
        "idempotency_name",
        "keep_alive",
        "method",
        "over",
        "permit",
        "price",
        "rate_fields",
        "raw_target",
        "receipt",
        "report",
        "request_complete",
        "resent",
        "responded",
        "route",
        "status",
        "tried",
        "tunnel",
        "upstream",
        "verdict",
        "worker",
    )

    def __init__(self, worker: ExchangeWorker, client: Client, head: RequestHead) -> None:
        self.worker = worker
        self.client = client
        # received
        self.head = head
        self.method = self.raw_target = b""
        self.head_complete = self.request_complete = self._holding = False
        self.keep_alive = True
        self.body_bytes = self._buffered = 0
        self._buffer: list[bytes] | None = None
        self._kept: list[bytes] | None = None  # of a body that was sent and may be sent again
        # decided
        self.id = b""
        self.destination: Destination | None = None
        self.route: MeteredRoute | None = None
        self.claims: Claims | None = None
        self.hydrated = False
        self.rate_fields = b""
        self.receipt: bytes | None = None
        self.idempotency_name: str | None = None  # the name of its idempotency key
        self.permit = False  # counted among the organization's requests under way
        self.price: RequestPrice | None = None  # where it is not the route's
        self.report: UsageReport | None = None  # of what was used, by the upstream
        self.tunnel: Upgrade | None = None  # it asks for an upgrade
        # forwarded
        self.upstream: Carrier | None = None
        self.expires = NEVER  # loop time by which the whole answer must be there
        self.tried: tuple[str, ...] = ()  # the names of targets that failed this request
        self.resent = self.responded = self.answered = False
        # recorded
        self.began = self.forwarded_at = self.headed_at = 0.0  # monotonic
        self.verdict = b""
        self.status = 0
        self.given_back = False
        # Nothing is wanted of the upstream any more: the client left, or the gateway itself has answered.
        self.over = False

    # Received

    def start(self) -> None:
        """The head is complete and it is this request's turn to be answered."""
        worker = self.worker
        self.began = monotonic()
        self.id = worker.next_id()
        head = self.head
        hosts = head.hosts
        if len(hosts) != 1 or head.transfer_codings or self.method == b"TRACE":
            fault = self._head_fault()
            if fault is not None:
                self.refuse(fault)
                return
        if worker.forward_auth is not None and self.raw_target.startswith(b"/-/authorize/"):
            worker.forward_auth.decide(self)
            return
        try:
            found = worker.destinations.find(self.method, self.raw_target, head)
        except TargetRefused as e:
            self.refuse(RefusalAnswer(problems.BAD_REQUEST, e.reason), close=True)
            return
        self.destination = found
        if (route := found.route) is not None:
            self._admit(route, found.preflight)
        elif found.path.startswith(b"/-/"):
            self.verdict = record.LOCAL
            worker.answer_locally(self, found.sent)
        elif found.path == b"*":
            # It asks about the server as a whole, which this gateway is to its client: RFC 9110 section 9.3.7.
            self.verdict = record.LOCAL
            self.respond(200, b"Allow: %b\r\n" % ALLOWED_ANYWHERE, b"")
        elif found.allow is not None:
            allow = b"Allow: %b\r\n" % found.allow
            self.refuse(RefusalAnswer(problems.METHOD_NOT_ALLOWED, "The path exists for other methods only.", allow))
        else:
            self.refuse(RefusalAnswer(problems.NO_ROUTE, "No route of this gateway holds the path."))

    def start_again(self, destination: "Destination", route: "MeteredRoute") -> None:
        """A request of a recognized head to a destination that was found before."""
        self.head_complete = self.request_complete = True
        self.began = monotonic()
        self.id = self.worker.next_id()
        self.destination = destination
        self.method = destination.method
        self._admit(route, False)

    def _admit(self, route: "MeteredRoute", preflight: bool) -> None:
        head = self.head
        self.route = route
        limit = route.body_bytes_max
        if (head.content_length is not None and head.content_length > limit) or self.body_bytes > limit:
            self._refuse_body(limit)
        elif route.exempt or preflight:
            self.verdict = record.EXEMPT
            self._forward()
        else:
            self._authenticate(route)

    def _head_fault(self) -> RefusalAnswer | None:
        """What of RFC 9112 the parser lets through and a proxy must not. The connection is closed after it, since
        the two sides may disagree on where this request ends."""
        head, fault = self.head, None
        if len(head.hosts) > 1 or (not head.hosts and head.is_11):
            fault = "There must be exactly one Host field."  # section 3.2
        elif head.transfer_codings > 1 or (head.transfer_codings and not head.chunked):
            self.keep_alive = False  # section 6.1
            return RefusalAnswer(problems.NOT_IMPLEMENTED, "The only transfer coding understood is chunked.")
        elif head.chunked and (head.content_length is not None or not head.is_11):
            fault = "Transfer-Encoding excludes Content-Length, and needs HTTP/1.1."  # sections 6.1, 6.3
        elif self.method == b"TRACE":
            self.keep_alive = False
            return RefusalAnswer(problems.NOT_IMPLEMENTED, "TRACE would show the client what a proxy added.")
        if fault is None:
            return None
        self.keep_alive = False
        return RefusalAnswer(problems.BAD_REQUEST, fault)

    def on_request_body(self, data: bytes) -> None:
        self.body_bytes += len(data)
        # What comes before the request's turn is measured then.
        if (route := self.route) is not None and self.body_bytes > route.body_bytes_max and not self.responded:
            self._refuse_body(route.body_bytes_max)
            return
        upstream = self.upstream
        if upstream is not None:
            if (kept := self._kept) is not None:
                kept.append(data)
                if self.body_bytes > BUFFER_MAX:
                    self._kept = None
            upstream.write(b"%x\r\n%b\r\n" % (len(data), data) if self.head.chunked else data)
        elif not self.responded:
            if self._buffer is None:
                self._buffer = []
            self._buffer.append(data)
            self._buffered += len(data)
            if self._buffered > BUFFER_MAX:
                self.hold_client()

    def _refuse_body(self, limit: int) -> None:
        self.refuse(RefusalAnswer(problems.PAYLOAD_TOO_LARGE, f"The body may have {limit} bytes."), close=True)

    def on_request_complete(self) -> None:
        self.request_complete = True
        if self.upstream is not None and self.head.chunked:
            self.upstream.write(self._last_chunk())
        if self.answered:
            self.client.exchange_done(self)

    def _last_chunk(self) -> bytes:
        trailers, route = self.head.trailers, self.route
        if trailers and route is not None and route.rewriting is not None:
            trailers = route.rewriting.trailers(trailers)
        return b"0\r\n%b\r\n" % b"".join(trailers)

    def hold_client(self) -> None:
        """The body comes faster than it can go on: the client is read no further."""
        if not self._holding:
            self._holding = True
            self.client.pause_reading()

    def release_client(self) -> None:
        if self._holding:
            self._holding = False
            self.client.resume_reading()

    # Taken

    def _authenticate(self, route: "MeteredRoute", keys_refreshed: bool = False) -> None:
        head, verifier = self.head, self.worker.verifier
        try:
            claims = head.claims
            if (sources := route.tokens) is not None:
                claims = verifier.verify(sources.token(head, self.destination.tokens if self.destination else ()))
            elif claims is None or head.verified_in != verifier.epoch or claims.expires_at <= verifier.clock():
                claims = head.claims = verifier.verify_field(head.authorization)
                head.verified_in = verifier.epoch
        except KeyRefreshDue as e:
            if keys_refreshed:
                self._refuse_token(e)
            else:
                self.worker.refresh_keys(lambda: self._authenticate_again(route))
            return
        except TokenRefused as e:
            self._refuse_token(e)
            return
        self.claims = claims
        self._take(route, claims)

    def _authenticate_again(self, route: "MeteredRoute") -> None:
        if not self.over:
            self._authenticate(route, keys_refreshed=True)

    def _refuse_token(self, refused: TokenRefused) -> None:
        self.verdict = b"token_" + refused.reason.encode()
        if refused.reason is Reason.UNKNOWN_KEY and not self.worker.keyset.usable:
            # The token may be good: whoever is told 401 throws it away.
            detail = "The keys that tokens are verified with could not be read; try again."
            self._deny(RefusalAnswer(problems.KEYS_UNAVAILABLE, detail, b"Retry-After: %d\r\n" % RETRY_SECONDS))
            return
        fields = b"WWW-Authenticate: %b\r\n" % refused.challenge
        self._deny(RefusalAnswer(problems.TOKEN_REFUSED, refused.detail, fields, {"reason": refused.reason}))

    def _take(self, route: "MeteredRoute", claims: Claims) -> None:
        worker = self.worker
        if route.upstream.failing and not route.upstream.admits():
            self._refuse_tripped()
            return
        price: RequestPrice | MeteredRoute = route
        if route.pricing is not None:
            assert self.destination is not None  # noqa: S101 - it holds the route
            try:
                price = self.price = route.pricing.price(self.head, self.destination.sent)
            except CostRefused as e:
                self.refuse(RefusalAnswer(problems.BAD_REQUEST, str(e)))
                return
        if self.head.idempotency_key is not None and route.idempotency:
            self._take_once(route, price, claims, self.head.idempotency_key)
            return
        if (
            worker.exhausted.by_org
            and (known := worker.exhausted.recall(claims.org, price.charge_bulk, price.charges)) is not None
        ):
            self.verdict = record.FROM_MEMORY
            if self.in_shadow():
                self._deny(known.refusal)
            else:
                self._refuse_again(known)
            return
        identity = worker.identities.get(claims.org) or worker.identity(claims.org)
        worker.link.take(
            identity.keys_bulk,
            TAKE_ARGV % (self.id, identity.org_bulk, price.charge_bulk),
            price.charge_words,
            self,
        )

    def _take_once(
        self, route: "MeteredRoute", price: "RequestPrice | MeteredRoute", claims: Claims, field: bytes
    ) -> None:
        """Takes for a request that may be the repetition of one that was charged, so memory does not refuse it."""
        worker, destination = self.worker, self.destination
        assert destination is not None  # noqa: S101 - only a routed request is charged
        if (key := idempotency.key_of(field)) is None:
            self.refuse(RefusalAnswer(problems.BAD_REQUEST, idempotency.MALFORMED))
            return
        self.idempotency_name = idempotency.name_of(key, route, destination.request_line, price.charge_bulk)
        identity = worker.identity(claims.org)
        worker.link.take(
            identity.keys_bulk + worker.idempotency_bulk(claims.org, self.idempotency_name),
            TAKE_ARGV % (self.id, identity.org_bulk, keyed(price.charge_bulk)),
            price.charge_words,
            self,
            key_count=IDEMPOTENT_KEYS,
        )

    def on_take(self, reply: bytes) -> None:
        route, claims = self.route, self.claims
        assert route is not None and claims is not None  # noqa: S101, PT018 - set before the take was sent
        if (admission := verdicts.admitted(reply, route)) is not None:
            self.rate_fields, self.receipt = admission
            self.verdict = record.ADMITTED
            if route.admitted_at is not None:
                route.admitted_at[claims.org] = self.worker.deadlines.now
            if self.over:
                self._give_back("the client left before its request was forwarded")
            else:
                self._forward()
            return
        if reply[0] == Verdict.ADMITTED_WITH_MORE:
            self._on_take_with_more(reply, route, claims.org)
            return
        if self.over:
            return
        price = self.price or route
        decision = decode_take(reply, list(price.charges))
        if isinstance(decision, Unknown) and not self.hydrated:
            self.hydrated = True
            self.worker.hydrator.ask(claims.org, self._on_hydrated)
            return
        if self.worker.degraded is not None and not isinstance(decision, RateLimited):
            self.worker.degraded.forget(claims.org)
        if isinstance(decision, Exhausted):
            self.worker.exhausted.remember(claims.org, price.charge_bulk, decision)
        self._deny(verdicts.of_decision(decision, price.charges, self.worker.settings.upgrade_url))

    def _on_take_with_more(self, reply: bytes, route: "MeteredRoute", org: str) -> None:
        """Admitted as the repetition of a request that was charged, or with a permit, or both."""
        more = reply[1]
        self.rate_fields, self.receipt = verdicts.admitted_with_more(reply, route)
        self.verdict = record.REPLAYED if more & More.REPLAYED else record.ADMITTED
        if route.admitted_at is not None and self.verdict is record.ADMITTED:
            route.admitted_at[org] = self.worker.deadlines.now
        if more & More.PERMIT:
            if self.over:
                self.worker.permits.release(org, self.id)
            else:
                self.permit = True
                self.worker.permits.hold(org, self.id)
        if self.over:
            self._give_back("the client left before its request was forwarded")
        else:
            self._forward()

    def release_permit(self) -> None:
        """The exchange has ended: another request of its organization may begin."""
        self.permit = False
        if self.claims is not None:
            self.worker.permits.release(self.claims.org, self.id)

    def _on_hydrated(self, published: bool) -> None:
        route, claims = self.route, self.claims
        if self.over or route is None or claims is None:
            return
        if published:
            self._take(route, claims)
        else:
            self._deny(verdicts.of_decision(Unknown(lapsed=False), route.charges, None))

    def on_take_lost(self, lost: Lost) -> None:
        if lost.applied is not False and self.claims is not None:
            # It may have been charged all the same. Never forwarded, it must not stay so.
            self.worker.settlements.void(self.claims.org, self.id, self.idempotency_name)
            self.worker.permits.release(self.claims.org, self.id)
        elif (degraded := self.worker.degraded) is not None and not self.over and degraded.admit(self):
            return
        self._refuse_unchecked()

    def on_journaled(self) -> None:
        """Redis is away, and the route allows it: the charge follows when Redis is back."""
        self.verdict = record.DEGRADED
        self.receipt = b""  # there will be one
        self._forward()

    def on_not_journaled(self) -> None:
        self._refuse_unchecked()

    def _refuse_unchecked(self) -> None:
        if not self.over:
            detail = "The quota could not be checked, so the request was not forwarded; try again."
            self._deny(RefusalAnswer(problems.LEDGER_UNAVAILABLE, detail, b"Retry-After: 1\r\n"))

    def in_shadow(self) -> bool:
        route, claims = self.route, self.claims
        if route is not None and route.shadow:
            return True
        return claims is not None and claims.org in self.worker.shadow_organizations

    def _deny(self, refusal: RefusalAnswer) -> None:
        """Caller or quota speak against the request. In shadow mode that is recorded, and the request goes on."""
        if self.in_shadow():
            self.verdict = record.SHADOW + (self.verdict or record.verdict_of(refusal.problem))
            self._forward()
        else:
            self.refuse(refusal)

    # Forwarded

    def _refuse_tripped(self) -> None:
        """The circuit breaker is open, which is known before anything is charged."""
        assert self.route is not None  # noqa: S101 - only a routed request is sent
        wait = b"Retry-After: %d\r\n" % self.route.upstream.retry_after_seconds
        self.refuse(
            RefusalAnswer(problems.UPSTREAM_AWAY, "The upstream is failing, so it gets no requests for a while.", wait)
        )

    def _forward(self) -> None:
        self.forwarded_at = monotonic()
        route = self.route
        assert route is not None  # noqa: S101 - only a routed request is forwarded
        if self.price is not None and route.pricing is not None:
            self.report = route.pricing.report()
        route.upstream.send(self)

    def take_request(self) -> bytes:
        """The request's head as it goes upstream, and what has come of the body. Once, by each connection."""
        head, claims, route, destination = self.head, self.claims, self.route, self.destination
        assert route is not None and destination is not None  # noqa: S101, PT018 - only a routed request is forwarded
        if head.sent_for is not claims or head.sent_as is not route.sent_as or (fields := head.upstream_fields) is None:
            fields = head.upstream_fields = self._upstream_fields(None if claims is None else claims.org, route)
            head.sent_for, head.sent_as = claims, route.sent_as
            head.sent_whole = not (route.sent_by_target or head.traces or head.has_body or head.transfer_codings)
        if head.sent_whole:
            return b"%b%bX-Request-Id: %b\r\n\r\n" % (destination.request_line, fields, head.request_id or self.id)
        if route.sent_by_target and self.upstream is not None:
            fields = self.upstream.host_line + fields  # each target may have its own
        if (traces := head.traces) is not None:
            fields = b"%b%b%b%b" % (fields, traces.line_start, self.id, traces.line_end)
        request_id = head.request_id or self.id
        if self._buffer is None and not head.transfer_codings:
            if head.content_length:
                self._keep([])
            return b"%b%bX-Request-Id: %b\r\n\r\n" % (destination.request_line, fields, request_id)
        received = self._buffer or []
        self._keep(received)
        if head.chunked:
            received = [b"%x\r\n%b\r\n" % (len(data), data) for data in received]
            if self.request_complete:
                received.append(self._last_chunk())
        self._buffer = None
        if self._holding:
            self.release_client()
        start = b"%b%bX-Request-Id: %b\r\n\r\n" % (destination.request_line, fields, request_id)
        return b"".join((start, *received))

    def _keep(self, body: list[bytes]) -> None:
        self._kept = body if self.method in IDEMPOTENT and self.body_bytes <= BUFFER_MAX else None

    @property
    def body_at_hand(self) -> bool:
        """Whether the request can be sent once more: all that came of its body is still there."""
        return self._kept is not None or not self.head.has_body

    def take_back_body(self) -> None:
        """What was sent of the body is to be sent again."""
        if self._kept is not None:
            self._buffer, self._kept = self._kept, None

    def _upstream_fields(self, org: str | None, route: "MeteredRoute") -> bytes:
        head = self.head
        host = head.hosts[0] if head.hosts else None
        lines = headers.without(head.fields, head.nominated) if head.nominated else head.fields
        if head.upgrade and self.tunnel is None:
            # The Upgrade is ignored, and goes no further: half a handshake must not look like one to the upstream.
            lines = headers.without_handshake(lines)
        rewriting, credited = route.rewriting, False
        if rewriting is not None:
            # Who was not believed does not speak with the gateway's voice, and a browser's preflight with nobody's.
            preflight = self.destination is not None and self.destination.preflight
            credited = org is not None or (route.exempt and not preflight)
            lines = rewriting.lines(lines, credited=credited)
        if route.needs.body:
            lines = readable(lines)
        if self.worker.traces is not None and trace_id(lines) is None:
            lines = without_trace(lines)
            head.traces = self.worker.traces
        return b"".join(
            (
                b""
                if rewriting is not None and rewriting.own_host
                else b"Host: %b\r\n" % (host or route.upstream.authority),
                *lines,
                b"" if head.content_length is None else b"Content-Length: %d\r\n" % head.content_length,
                b"Transfer-Encoding: chunked\r\n" if head.chunked else b"",
                # Said on behalf of the client, so only if it said so, and to this hop (RFC 9110 section 10.1.4), or
                # for the gateway itself, which reads them.
                b"TE: trailers\r\nConnection: TE\r\n"
                if self.tunnel is None
                and (route.needs.trailers or (head.takes_trailers and head.is_11 and b"te" in head.nominated))
                else b"",
                b"" if self.tunnel is None else b"Connection: Upgrade\r\nUpgrade: %b\r\n" % self.tunnel.protocol,
                self.worker.trust.lines(self.client.address, self.client.proto, host, head.forwarded),
                b"" if org is None else self.worker.identity(org).upstream_fields,
                b"Via: 1.1 quotagate\r\n",
            )
        )

    def answer_head(self, status: int, reason: bytes, fields: bytes) -> bytes:
        """The head of the upstream's answer as it goes to the client. From here on the answer can only be cut."""
        self.responded = True
        self.status = status
        self.headed_at = monotonic()
        if not self.request_complete:
            self._stop_reading_body_if_long()
        fields = self.edited(fields)
        return b"HTTP/1.1 %d %b\r\n%b%b%bX-Request-Id: %b\r\n\r\n" % (
            status,
            reason,
            fields,
            self.rate_fields,
            b"" if self.keep_alive and self.head.is_11 else self._connection_field(),
            self.head.request_id or self.id,
        )

    def edited(self, fields: bytes) -> bytes:
        """Lines of the upstream's answer as the client gets them."""
        edits = None if self.route is None else self.route.response_edits
        return fields if edits is None else edits.of_block(fields)

    def edited_trailers(self, lines: list[bytes]) -> list[bytes]:
        edits = None if self.route is None else self.route.response_edits
        return lines if edits is None else edits.kept(lines)

    def switching_head(self, reason: bytes, fields: bytes) -> bytes:
        """The head of the upstream's 101 as it goes to the client, which is a tunnel from here on."""
        assert self.tunnel is not None  # noqa: S101 - nobody else is answered so
        self.responded = True
        self.status = 101
        self.headed_at = monotonic()
        return b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b%bX-Request-Id: %b\r\n\r\n" % (
            reason,
            self.tunnel.protocol,
            self.edited(fields) + self._subprotocol(fields),
            self.rate_fields,
            self.head.request_id or self.id,
        )

    def hand_to_tunnel(self) -> bytes:
        """The upstream has switched. Its connection is the tunnel's from here on, and so is the permit: the take that
        got it, empty if there is none."""
        self.upstream = None
        held, self.permit = self.permit, False
        return self.id if held else b""

    def _subprotocol(self, fields: bytes) -> bytes:
        sources = None if self.route is None else self.route.tokens
        return b"" if sources is None else sources.chosen(self.head, fields)

    def answer_known(self, known: AnswerHead, body: bytes) -> bytes:
        """The whole answer, of a head that was parsed before."""
        route = self.route
        plain = self.request_complete and self.keep_alive and known.dated and self.head.is_11
        if not plain or route is None or route.response_edits is not None:
            fields = known.fields if known.dated else known.fields + self.client.date_field()
            return self.answer_head(known.status, known.reason, fields) + body
        self.responded = True
        self.status = known.status
        self.headed_at = monotonic()
        return b"%b%bX-Request-Id: %b\r\n\r\n%b" % (
            known.start,
            self.rate_fields,
            self.head.request_id or self.id,
            body,
        )

    def _connection_field(self) -> bytes:
        if not self.keep_alive:
            return b"Connection: close\r\n"
        return b"" if self.head.is_11 else b"Connection: keep-alive\r\n"

    def on_answered(self) -> None:
        """The whole answer was written."""
        self.upstream = None
        if self._holding:
            self.release_client()
        self.answered = True
        if self.report is not None or self.status >= 500:
            self._settle("server_error" if self.status >= 500 else None, "the upstream failed")
        if self.request_complete or not self.keep_alive:
            self.client.exchange_done(self)

    def on_upstream_failed(self, failure: UpstreamFailure) -> None:
        self.upstream = None
        self.release_client()
        if self.over:
            return
        log.warning("upstream failed", request_id=self.id.decode(), reason=str(failure), kind=type(failure).__name__)
        if self.responded:
            self._settle("cut_answer", str(failure))
            # The head is gone, so the cut must show: the connection ends before the announced end of the body.
            self.client.cut(reset=not self.head.is_11)
            return
        outcome: Outcome = "invalid_answer"
        if isinstance(failure, TimedOut):
            outcome = "timeout"
        elif isinstance(failure, (Tripped, Overloaded, Unreachable)) and not self.resent:
            outcome = "connect_failure"
        charged = "." if self._settle(outcome, str(failure)) else "; nothing was charged."
        if isinstance(failure, TimedOut):
            self.refuse(RefusalAnswer(problems.UPSTREAM_TIMEOUT, f"The upstream did not answer in time{charged}"))
        elif isinstance(failure, Tripped):
            self._refuse_tripped()
        elif isinstance(failure, Overloaded):
            detail = f"Too many requests wait for the upstream{charged}"
            self.refuse(RefusalAnswer(problems.OVERLOADED, detail, b"Retry-After: 1\r\n"))
        elif isinstance(failure, Unreachable):
            self.refuse(RefusalAnswer(problems.UPSTREAM_UNREACHABLE, f"The upstream cannot be reached{charged}"))
        else:
            self.refuse(RefusalAnswer(problems.UPSTREAM_INVALID, f"The upstream gave no valid answer{charged}"))

    # Settled

    def _settle(self, outcome: "Outcome | None", reason: str) -> bool:
        """Corrects the charge, once, of a request that was sent: it is given back if the route's rules say so of the
        outcome, else set to what the upstream has reported so far. Returns whether something may stay charged."""
        receipt, self.receipt = self.receipt, None
        route, claims, report = self.route, self.claims, self.report
        if receipt is None or route is None or claims is None:
            return False
        if not receipt:  # journaled: refunds cannot be counted towards a cap now, so there are those without one only
            return not (outcome in route.refund.on and self._give_back_journaled(claims, route, outcome))
        used = self._reported(report, route) if report is not None and self.responded else {}
        if outcome not in route.refund.on:
            if used:
                self.worker.settlements.correct(claims.org, receipt, used)
            return True
        # What was never sent cost nobody anything, so nobody can farm it.
        cap = None if outcome == "connect_failure" else route.refund.cap_per_period
        self.given_back = True
        self.rate_fields = b""  # they tell a balance that is being corrected
        self.worker.settlements.give_back(claims.org, receipt, reason, self.idempotency_name, self.id, cap, used)
        return cap is not None

    def _give_back_journaled(self, claims: Claims, route: "MeteredRoute", outcome: "Outcome | None") -> bool:
        if self.worker.degraded is None or (outcome != "connect_failure" and route.refund.cap_per_period is not None):
            return False
        self.given_back = True
        self.worker.degraded.void(claims.org, self.id)
        return True

    def _reported(self, report: "UsageReport", route: "MeteredRoute") -> dict[str, int]:
        """The units that differ from their estimates."""
        assert self.price is not None  # noqa: S101 - a route with reports has prices
        units, outcomes = report.units()
        for meter, outcome in outcomes.items():
            self.worker.recorder.reports[route.name, outcome] += 1
            if meter not in units:
                log.warning("usage not reported", request_id=self.id.decode(), meter=meter, reason=outcome)
        estimates = self.price.charges
        self.price = price_of(estimates | units)  # the access log tells what was used
        return {meter: used for meter, used in units.items() if used != estimates[meter]}

    def _give_back(self, reason: str) -> None:
        if self.receipt is not None and self.claims is not None:
            self.given_back = True
            self.rate_fields = b""  # they tell a balance that is being corrected
            if self.receipt:
                self.worker.settlements.give_back(self.claims.org, self.receipt, reason, self.idempotency_name, self.id)
            elif self.worker.degraded is not None:
                self.worker.degraded.void(self.claims.org, self.id)
            self.receipt = None

    # Answered by the gateway itself

    def refuse(self, refusal: RefusalAnswer, close: bool = False) -> None:
        if not self.id:  # refused before its turn came
            self.id = self.worker.next_id()
        if not self.verdict:
            self.verdict = record.verdict_of(refusal.problem)
        correlation = self.head.request_id or self.id  # as the X-Request-Id of this answer has it
        body = problems.body(refusal.problem, refusal.detail, correlation.decode(), refusal.extensions)
        cors, origin = self.worker.cors, self.head.origin
        readable_by = cors.unasked if origin is None else cors.lines(origin)
        fields = b"Content-Type: application/problem+json\r\n%b%b" % (refusal.fields, readable_by)
        self.respond(refusal.problem.status, fields, body, close=close)

    def _refuse_again(self, text: verdicts.RefusalText) -> None:
        """A refusal whose text was made before, to a plain request without a body."""
        head = self.head
        if (
            not (self.request_complete and self.keep_alive and head.is_11)
            or head.origin is not None
            or self.method == b"HEAD"
        ):
            self.refuse(text.refusal)
            return
        self.responded = self.over = self.answered = True
        self.status = text.refusal.problem.status
        request_id = head.request_id or self.id
        self.client.write(
            b"%b%bContent-Length: %d\r\n%b%bX-Request-Id: %b\r\n\r\n%b%b%b"
            % (
                text.start,
                self.client.date_field(),
                len(text.body_before) + len(request_id) + len(text.body_after),
                text.fields,
                self.worker.cors.unasked,
                request_id,
                text.body_before,
                request_id,
                text.body_after,
            )
        )
        self.client.exchange_done(self)

    def respond(self, status: int, fields: bytes, body: bytes, close: bool = False) -> None:
        """Writes a whole answer of the gateway's own."""
        if self.responded or self.over:
            return
        self.responded = True
        self.status = status
        if close:
            self.keep_alive = False
        elif not self.request_complete:
            self._stop_reading_body_if_long()
        self.over = True
        forwarded = (upstream := self.upstream) is not None
        if upstream is not None:
            self.upstream = None
            upstream.abandon()
        self._buffer = None
        self.release_client()
        if forwarded:
            self._settle("request_refused", "the gateway itself answered")
        else:
            self._give_back("the gateway itself answered")
        self.client.write(
            b"%b%bContent-Length: %d\r\n%b%bX-Request-Id: %b\r\n\r\n%b"
            % (
                verdicts.STATUS_LINES[status],
                self.client.date_field(),
                len(body),
                fields,
                self._connection_field(),
                self.head.request_id or self.id,
                b"" if self.method == b"HEAD" else body,
            )
        )
        self.answered = True
        if self.request_complete or not self.keep_alive:
            self.client.exchange_done(self)

    def _stop_reading_body_if_long(self) -> None:
        """The answer comes before the end of the request: a short rest is read and dropped so that the connection
        can be used again, a long one is not worth it."""
        head = self.head
        if not head.has_body:
            return
        rest = None if head.content_length is None else head.content_length - self.body_bytes
        if head.expects_continue or rest is None or rest > BUFFER_MAX:
            self.keep_alive = False

    def stop(self) -> None:
        """The worker ends, and this has had its time."""
        if not self.responded:
            self.refuse(
                RefusalAnswer(problems.OVERLOADED, "The gateway stops; try again.", b"Retry-After: 1\r\n"), close=True
            )
            return
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
            self._settle("cut_answer", "the gateway stopped")
        self.over = True
        self.client.cut(reset=not self.head.is_11)

    def leave(self, state: OpenConnections) -> None:
        """The client is gone."""
        route, upstream = self.route, self.upstream
        if (
            route is None
            or route.on_abort is None
            or upstream is None
            or not self.receipt
            or not self.request_complete
            or "client_abort" in route.refund.on
        ):
            self.abandon()
            return
        client = self.client
        self.client = Absent(self, state, client.address, client.proto, client.sent_bytes, route.on_abort)
        upstream.resume_reading()

    def end_absent(self) -> None:
        """The answer is complete, and nobody is there to have it."""
        if self.permit:
            self.release_permit()
        self.worker.recorder.finished(self, aborted=True)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.over = True
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()
            self._settle("client_abort", "the client left before the answer was complete")
        elif self.resent and not self.responded:
            self._settle("client_abort", "the client left before there was an answer")
        elif not self.responded:
            self._give_back("the client left before its request was forwarded")
        if self.permit:
            self.release_permit()
        if self.id:
            self.worker.recorder.finished(self, aborted=True)

"""Requests that are recorded become spans: one of the request, one of its take, one of the exchange with its upstream.

What a span says is what the access log has, and it is written down when the request is over. A second's requests go
to the exporter's thread at once, which makes spans of them.
"""

import asyncio
from collections.abc import Iterator, Mapping
from time import monotonic_ns, time_ns
from typing import Final, NamedTuple

from common.otlp.export import Export
from common.otlp.settings import Collector
from common.otlp.spans import CLIENT, SERVER, FinishedSpan, encode_span
from common.otlp.wire import Value
from common.telemetry import Line, follow, unfollow
from gateway.http.trace import Recording
from gateway.observe.finished import Finished
from gateway.observe.record import ADMITTED, CLIENT_LEFT, LOCAL, REPLAYED, SHADOW
from gateway.settings.observing import SERVICE

SECONDS: Final = 1.0
AT_ONCE: Final = 512
CLOCK_NS: Final = 1000  # so much may a time that was read as seconds differ
BY_THE_TAKE: Final = frozenset((ADMITTED, REPLAYED, b"exhausted", b"rate_limited", b"not_entitled", b"not_in_plan"))
"""Verdicts that the ledger gives."""


class Take(NamedTuple):
    """Monotonic seconds."""

    sent_at: float
    answered_at: float


class RecordedRequest(NamedTuple):
    """What is known of one when it is over. Times are monotonic nanoseconds, 0 for never."""

    id: bytes
    trace_id: bytes
    parent_id: bytes
    """Of the client's span; empty where there is none."""
    method: bytes
    path: bytes
    route: str | None
    upstream: str | None
    org: str | None
    key: str | None
    correlation: bytes | None
    verdict: bytes
    status: int
    aborted: bool
    charges: Mapping[str, int]
    bytes_in: int
    bytes_out: int
    began_ns: int
    forwarded_ns: int
    headed_ns: int
    ended_ns: int
    resent: bool
    take: Take | None


class SpanLog:
    """Of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Collector, recording: Recording) -> None:
        self._loop = loop
        self._recording = recording
        self._export = Export(settings, "traces", SERVICE, self._encoded)
        self._requests: list[RecordedRequest] = []
        self._timed = False
        follow(self._name_trace)

    @property
    def dropped(self) -> int:
        """Requests whose spans no collector got."""
        return self._export.dropped

    def add(self, exchange: Finished, status: int, now_ns: int, aborted: bool) -> None:
        forwarding, claims, route = exchange.forwarding, exchange.claims, None
        take = self._take(exchange, now_ns)
        if exchange.verdict == LOCAL:
            return
        trace_id, parent_id = self._recording.trace_of(exchange.id, exchange.head.traceparent)
        destination, charge, body = exchange.destination, exchange.charge, exchange.body
        if destination is not None:
            route = destination.route
        charged = charge is not None and exchange.verdict == ADMITTED and not charge.given_back
        self._requests.append(
            RecordedRequest(
                exchange.id,
                trace_id,
                parent_id,
                exchange.method if destination is None else destination.method,
                exchange.raw_target.partition(b"?")[0] if destination is None else destination.path,
                None if route is None else route.name,
                None if forwarding is None or route is None else route.upstream.name,
                None if claims is None else claims.org,
                None if claims is None or claims.record is None else claims.record.id,
                exchange.head.request_id,
                exchange.verdict or b"none",
                status,
                aborted,
                dict(charge.price.charges) if charged and charge is not None else {},
                0 if body is None else body.received_bytes,
                exchange.client.sent_bytes,
                exchange.began_ns or now_ns,
                0 if forwarding is None else forwarding.forwarded_ns,
                0 if forwarding is None else forwarding.headed_ns,
                now_ns,
                forwarding is not None and forwarding.resent,
                take,
            )
        )
        if not self._timed:
            self._timed = True
            self._loop.call_later(SECONDS, self._on_time)
        elif len(self._requests) >= AT_ONCE:
            self.flush()

    def _take(self, exchange: Finished, now_ns: int) -> Take | None:
        """The take of it, if its times are known for sure."""
        recording, forwarding = self._recording, exchange.forwarding
        under_way = recording.under_way.pop(exchange.id, None)
        sent_at, answered_at = (0.0, 0.0) if under_way is None else (under_way.sent_at, under_way.answered_at)
        by_ns = now_ns
        if forwarding is not None:
            by_ns = forwarding.forwarded_ns
        elif exchange.body is None:  # it was answered in the turn of the take's reply
            sent_at, answered_at = recording.takes.answered_sent_at, recording.takes.answered_at
        if exchange.verdict.removeprefix(SHADOW) not in BY_THE_TAKE or not answered_at:
            return None
        in_time = exchange.began_ns <= sent_at * 1e9 + CLOCK_NS and answered_at * 1e9 <= by_ns + CLOCK_NS
        return Take(sent_at, answered_at) if in_time else None

    def _on_time(self) -> None:
        self._timed = False
        self.flush()

    def flush(self) -> None:
        requests, self._requests = self._requests, []
        if requests:
            self._export.put(requests)

    def close(self) -> None:
        self.flush()
        unfollow(self._name_trace)
        self._export.close()

    def _name_trace(self, line: Line) -> None:
        """In a line of the log about a recorded request."""
        request_id = str(line.get("request_id", "")).encode()
        if (under_way := self._recording.under_way.get(request_id)) is not None:
            line["trace_id"] = under_way.trace_id.decode()
            line["span_id"] = self._recording.span_id(self._recording.server, request_id).decode()

    # The exporter's thread

    def _encoded(self, request: RecordedRequest) -> Iterator[bytes]:
        return map(encode_span, spans_of(request, self._recording, time_ns() - monotonic_ns()))


def spans_of(request: RecordedRequest, recording: Recording, clock_ns: int) -> Iterator[FinishedSpan]:
    """`clock_ns`: from monotonic time to that since the epoch. Pure."""
    trace_id = int(request.trace_id, 16)
    span_id = int(recording.span_id(recording.server, request.id), 16)
    parent = request.parent_id
    failed = request.status >= 500
    began_ns, ended_ns = request.began_ns + clock_ns, request.ended_ns + clock_ns
    method = request.method.decode("latin-1")
    yield FinishedSpan(
        method if request.route is None else f"{method} {request.route}",
        SERVER,
        trace_id,
        span_id,
        int(parent, 16) if parent else 0,
        True,
        began_ns,
        ended_ns,
        _attributes(request, method),
        f"answered with {request.status}" if failed else None,
    )
    if (take := request.take) is not None:
        yield FinishedSpan(
            "take",
            CLIENT,
            trace_id,
            int(recording.span_id(recording.take, request.id), 16),
            span_id,
            False,
            max(int(take.sent_at * 1e9) + clock_ns, began_ns),
            int(take.answered_at * 1e9) + clock_ns,
            {
                "db.system.name": "redis",
                "db.operation.name": "take",
                "quotagate.verdict": request.verdict.decode(),
            },
        )
    if request.forwarded_ns:
        attributes: dict[str, Value] = {"http.request.method": method, "quotagate.upstream": request.upstream or ""}
        if request.headed_ns:
            attributes["http.response.status_code"] = request.status
            attributes["quotagate.upstream.first_byte_us"] = (request.headed_ns - request.forwarded_ns) // 1000
        if request.resent:
            attributes["http.request.resend_count"] = 1
        unanswered = "there was no answer" if not request.headed_ns and request.status != CLIENT_LEFT else None
        yield FinishedSpan(
            method,
            CLIENT,
            trace_id,
            int(recording.span_id(recording.upstream, request.id), 16),
            span_id,
            False,
            request.forwarded_ns + clock_ns,
            ended_ns,
            attributes,
            f"the upstream answered with {request.status}" if failed and request.headed_ns else unanswered,
        )


def _attributes(request: RecordedRequest, method: str) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        "http.request.method": method,
        "url.path": request.path.decode("utf-8", "backslashreplace"),
        "http.response.status_code": request.status,
        "http.request.body.size": request.bytes_in,
        "quotagate.bytes_out": request.bytes_out,
        "quotagate.request_id": request.id.decode(),
        "quotagate.verdict": request.verdict.removeprefix(SHADOW).decode(),
    }
    said: dict[str, str | None] = {
        "http.route": request.route,
        "quotagate.org": request.org,
        "quotagate.key": request.key,
        "quotagate.correlation": None if request.correlation is None else request.correlation.decode("latin-1"),
    }
    attributes |= {name: value for name, value in said.items() if value is not None}
    if request.verdict.startswith(SHADOW):
        attributes["quotagate.shadow"] = True
    if request.aborted:
        attributes["quotagate.aborted"] = True
    if request.status >= 500:
        attributes["error.type"] = str(request.status)
    return attributes | {f"quotagate.charged.{meter}": units for meter, units in request.charges.items()}

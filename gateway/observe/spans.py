"""Requests that are recorded become spans: one of the request, one of its take, one of the exchange with its upstream.

What a span says is what the access log has, and it is written down when the request is over. A second's requests go
to the exporter's thread at once, which makes spans of them.
"""

import asyncio
from time import monotonic_ns, time_ns
from typing import Final

from common.otlp.export import Export
from common.otlp.settings import Collector
from common.telemetry import Line, follow, unfollow
from gateway.http.trace import Recording
from gateway.observe.finished import Finished
from gateway.observe.record import ADMITTED, LOCAL, REPLAYED, SHADOW
from gateway.observe.recorded import RecordedRequest, Take, encoded
from gateway.settings.observing import SERVICE

SECONDS: Final = 1.0
AT_ONCE: Final = 512
CLOCK_NS: Final = 1000  # so much may a time that was read as seconds differ
BY_THE_TAKE: Final = frozenset((ADMITTED, REPLAYED, b"exhausted", b"rate_limited", b"not_entitled", b"not_in_plan"))
"""Verdicts that the ledger gives."""


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

    def _encoded(self, request: RecordedRequest) -> list[bytes]:
        return encoded(request, self._recording, time_ns() - monotonic_ns())

"""The last step of the request path: a finished exchange is counted and becomes a line of the access log.

What repeats is made once: what a line says of the client and the token belongs to the head of the request, what it
says of route, verdict and status to their tally.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from time import monotonic_ns, time_ns

from gateway.http.trace import TraceRules
from gateway.observe.access_log import AccessLog
from gateway.observe.finished import Believed, Finished, FinishedRoute, Spans
from gateway.observe.tally import BUCKETS, Tally, histogram
from gateway.settings.root import GatewaySettings
from quota.problems import Problem

TALLIES_MAX = 4096  # beyond it only an upstream that plays with status codes can come; its codes are then one
LOGGED_TARGET_BYTES_MAX = 2048
CLIENT_LEFT = 499  # as nginx has it: the client went before there was an answer
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")

ADMITTED, EXEMPT, FROM_MEMORY, LOCAL = b"admitted", b"exempt", b"refused_from_memory", b"local"
REPLAYED = b"replayed"  # admitted, and not charged: another request with its Idempotency-Key was
DEGRADED = b"degraded"  # forwarded without a take, and journaled
_BY_PROBLEM = {
    "quota-exceeded": b"exhausted",
    "no-entitlement": b"not_entitled",
    "meter-not-in-plan": b"not_in_plan",
    "entitlement-pending": b"pending",
}

_MILLISECONDS = [b"%03d" % number for number in range(1000)]  # formatting one takes three times as long
SHADOW = b"shadow_"  # before the verdict of a refusal that was not carried out


def verdict_of(problem: Problem) -> bytes:
    """The name of a refusal in logs and metrics; the catalogue of problems bounds it."""
    return _BY_PROBLEM.get(problem.slug) or problem.slug.replace("-", "_").encode()


def json_text(text: bytes) -> bytes:
    """Untrusted bytes as they stand between the quotes of a JSON string."""
    if _PLAIN.fullmatch(text):
        return text
    return json.dumps(text.decode("utf-8", "backslashreplace"))[1:-1].encode()


class Recorder:
    def __init__(
        self,
        settings: GatewaySettings,
        access_log: AccessLog | None,
        trust: Believed,
        query_tokens: frozenset[bytes],
        traces: TraceRules | None = None,
        spans: Spans | None = None,
    ) -> None:
        """`query_tokens`: the parameters that hold a token on some route. `spans`: of what `traces` say is recorded."""
        self.latency_by_route: dict[str, list[int]] = {}
        self.finished_count = 0
        self.reports: Counter[tuple[str, str]] = Counter()
        """What upstreams reported of the units used, by route and outcome."""
        self._log = access_log
        self._traces = traces
        self._spans = spans
        self._trust = trust
        self._query_tokens = query_tokens
        self._with_query = settings.access_log.query
        self._tallies: dict[tuple[int, bytes, int, bool], Tally] = {}
        # The wall clock's second, and when it begins and ends by the monotonic clock.
        self._second_text = b""
        self._second_begins_ns = self._second_ends_ns = 0

    def tallies(self) -> Iterator[Tally]:
        return iter(self._tallies.values())

    def finished(self, exchange: Finished, aborted: bool = False) -> None:
        """Once for each exchange that has begun."""
        now_ns = monotonic_ns()
        status = exchange.status or CLIENT_LEFT
        destination, charge, forwarding = exchange.destination, exchange.charge, exchange.forwarding
        route = None if destination is None else destination.route
        given_back = charge is not None and charge.given_back
        if route is not None and exchange.verdict is ADMITTED and not given_back:
            tally = route.tallies.get(status) or self._tally(exchange, route, status, given_back)
        else:
            tally = self._tally(exchange, route, status, given_back)
        tally.count += 1
        self.finished_count += 1
        upstream = b"null"
        if forwarding is not None and forwarding.headed_ns:
            upstream_us = (forwarding.headed_ns - forwarding.forwarded_ns) // 1000
            latency = tally.latency
            latency[upstream_us.bit_length()] += 1
            latency[BUCKETS] += upstream_us
            upstream = b"%d" % upstream_us
        if self._log is None:
            if self._spans is not None:
                self._record_unlogged(self._spans, exchange, now_ns, aborted)
            return
        if now_ns >= self._second_ends_ns:
            self._next_second(now_ns)
        head, claims, body, client = exchange.head, exchange.claims, exchange.body, exchange.client
        principal = b"" if claims is None else claims.log_members
        if (caller := head.log_fields) is None or head.logged_for is not principal:
            caller = self._head_fields(exchange, principal)
        request_id = exchange.id
        if (traces := head.traces) is not None and traces.concerns(request_id):
            caller = caller + traces.members(request_id, head.traceparent, forwarded=forwarding is not None)
            if self._spans is not None and traces.recorded(request_id):
                self._spans.add(exchange, status, now_ns, aborted)
        more = b""
        if aborted or (route is not None and route.pricing is not None):
            more = self._more(exchange, aborted)
        sent_bytes, client.sent_bytes = client.sent_bytes, 0
        began_ns = exchange.began_ns
        self._log.add(
            b'{"time":"%b.%bZ","request_id":"%b",%b,"method":"%b","path":"%b",%b,"bytes_in":%b,"bytes_out":%d,'
            b'"duration_us":%d,"upstream_us":%b%b}\n'
            % (
                self._second_text,
                _MILLISECONDS[(now_ns - self._second_begins_ns) // 1_000_000],
                request_id,
                caller,
                exchange.method if destination is None else destination.method,
                self._asked(exchange) if self._with_query or destination is None else destination.path,
                tally.fields,
                b"0" if body is None else b"%d" % body.received_bytes,
                sent_bytes,
                (now_ns - began_ns) // 1000 if began_ns else 0,
                upstream,
                more,
            )
        )

    def _record_unlogged(self, spans: Spans, exchange: Finished, now_ns: int, aborted: bool) -> None:
        """Without an access log."""
        head = exchange.head
        if head.log_fields is None:
            self._head_fields(exchange, b"")
        if (traces := head.traces) is not None and traces.recorded(exchange.id):
            spans.add(exchange, exchange.status or CLIENT_LEFT, now_ns, aborted)
        exchange.client.sent_bytes = 0

    @staticmethod
    def _more(exchange: Finished, aborted: bool) -> bytes:
        """What only some lines have."""
        more, charge = b',"aborted":true' if aborted else b"", exchange.charge
        priced = exchange.destination is not None and (route := exchange.destination.route) and route.pricing
        if priced and charge is not None and exchange.verdict is ADMITTED and not charge.given_back:
            more += b',"meters":%b' % json.dumps(charge.price.charges).encode()
        return more

    def _next_second(self, now_ns: int) -> None:
        second, since_ns = divmod(time_ns(), 1_000_000_000)
        self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        self._second_begins_ns = now_ns - since_ns
        self._second_ends_ns = self._second_begins_ns + 1_000_000_000

    def _tally(self, exchange: Finished, route: FinishedRoute | None, status: int, given_back: bool) -> Tally:
        verdict = exchange.verdict or b"none"
        key = (id(route), verdict, status, given_back)  # a worker keeps its routes
        if (tally := self._tallies.get(key)) is not None:
            return tally
        if len(self._tallies) >= TALLIES_MAX:
            key = (key[0], key[1], key[2] // 100 * 100, key[3])
            if (tally := self._tallies.get(key)) is not None:
                return tally
        charged = route is not None and verdict in (ADMITTED, DEGRADED) and not given_back
        fields = b'"route":%b,"status":%d,"verdict":"%b"%b%b' % (
            b"null" if route is None else json.dumps(route.name).encode(),
            key[2],
            verdict.removeprefix(SHADOW),
            b',"shadow":true' if verdict.startswith(SHADOW) else b"",
            b',"meters":%b' % json.dumps(route.charges).encode()
            if charged and route is not None and route.pricing is None
            else b"",
        )
        tally = self._tallies[key] = Tally(
            "" if route is None else route.name,
            verdict.decode(),
            key[2],
            self.latency_by_route.setdefault("" if route is None else route.name, histogram()),
            fields,
        )
        if charged and route is not None and verdict == ADMITTED:
            route.tallies[status] = tally
        return tally

    def _head_fields(self, exchange: Finished, principal: bytes) -> bytes:
        """What a line says of the client and its principal. Once for each head: those of a connection repeat."""
        head = exchange.head
        correlation, trace = head.request_id, head.client_trace()
        if self._traces is not None and head.upstream_fields is None:  # it went nowhere
            head.traces = self._traces.found(trace, head.traceparent)
        fields = b'"client":"%b"%b%b%b' % (
            self._trust.client(exchange.client.address, head.forwarded),
            b"" if correlation is None else b',"correlation":"%b"' % correlation,
            b"" if trace is None else b',"trace_id":"%b"' % trace,
            principal,
        )
        head.log_fields, head.logged_for = fields, principal
        return fields

    def _asked(self, exchange: Finished) -> bytes:
        """What was asked for when it is not the canonical path, which is fit for a line as it is."""
        destination = exchange.destination
        target = exchange.raw_target if destination is None else destination.logged
        # A target that was not understood may hold a token, too.
        if not self._with_query or (destination is None and self._query_tokens):
            target = target.partition(b"?")[0]
        return json_text(target[:LOGGED_TARGET_BYTES_MAX])

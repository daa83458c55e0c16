"""The last step of the request path: a finished exchange is counted and becomes a line of the access log.

What repeats is made once: what a line says of the client and the token belongs to the head of the request, what it
says of route, verdict and status to their tally.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from time import monotonic

from gateway.http.trace import trace_id
from gateway.observe.access_log import AccessLog
from gateway.observe.finished import Finished
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
    def __init__(self, settings: GatewaySettings, access_log: AccessLog | None) -> None:
        self.latency_by_route: dict[str, list[int]] = {}
        self.finished_count = 0
        self.reports: Counter[tuple[str, str]] = Counter()
        """What upstreams told of the units used, by route and how it was told."""
        self._log = access_log
        self._with_query = settings.access_log.query
        self._tallies: dict[tuple[int, bytes, int, bool], Tally] = {}
        self._second = 0
        self._second_text = b""
        self._wall_ahead = 0.0  # of the monotonic clock
        self._refresh_at = 0.0

    def tallies(self) -> Iterator[Tally]:
        return iter(self._tallies.values())

    def finished(self, exchange: Finished, aborted: bool = False) -> None:
        """Once for each exchange that has begun."""
        now = monotonic()
        status = exchange.status or CLIENT_LEFT
        route = exchange.route
        if route is not None and exchange.verdict is ADMITTED and not exchange.given_back:
            tally = route.tallies.get(status) or self._tally(exchange, status)
        else:
            tally = self._tally(exchange, status)
        tally.count += 1
        self.finished_count += 1
        upstream_us = -1
        if exchange.headed_at:
            upstream_us = int((exchange.headed_at - exchange.forwarded_at) * 1e6)
            latency = tally.latency
            latency[upstream_us.bit_length()] += 1
            latency[BUCKETS] += upstream_us
        if self._log is None:
            return
        if now >= self._refresh_at:
            self._next_second(now)
        head, claims = exchange.head, exchange.claims
        org = None if claims is None else claims.org
        if (told := head.log_fields) is None or head.logged_org is not org:
            told = self._head_fields(exchange, org)
        if (traces := head.traces) is not None and exchange.forwarded_at:
            told = b'%b,"trace_id":"%b%b"' % (told, traces.id_prefix, exchange.id)
        destination = exchange.destination
        client = exchange.client
        more = b',"aborted":true' if aborted else b""
        if exchange.price is not None and exchange.verdict is ADMITTED and not exchange.given_back:
            more += b',"meters":%b' % json.dumps(exchange.price.charges).encode()
        sent, client.sent_bytes = client.sent_bytes, 0
        self._log.add(
            b'{"time":"%b.%03dZ","request_id":"%b",%b,"method":"%b","path":"%b",%b,"bytes_in":%d,"bytes_out":%d,'
            b'"duration_us":%d,"upstream_us":%b%b}\n'
            % (
                self._second_text,
                (now + self._wall_ahead - self._second) * 1000,
                exchange.id,
                told,
                exchange.method if destination is None else destination.method,
                self._asked(exchange) if self._with_query or destination is None else destination.path,
                tally.fields,
                exchange.body_bytes,
                sent,
                (now - exchange.began) * 1e6 if exchange.began else 0,
                b"null" if upstream_us < 0 else b"%d" % upstream_us,
                more,
            )
        )

    def _next_second(self, now: float) -> None:
        wall = time.time()
        self._wall_ahead = wall - now
        self._second = int(wall)
        self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._second)).encode()
        self._refresh_at = self._second + 1 - self._wall_ahead - 0.0005  # what would be rounded up to 1000 ms

    def _tally(self, exchange: Finished, status: int) -> Tally:
        route, verdict = exchange.route, exchange.verdict or b"none"
        key = (id(route), verdict, status, exchange.given_back)  # a worker keeps its routes
        if (found := self._tallies.get(key)) is not None:
            return found
        if len(self._tallies) >= TALLIES_MAX:
            key = (key[0], key[1], key[2] // 100 * 100, key[3])
            if (found := self._tallies.get(key)) is not None:
                return found
        charged = route is not None and verdict in (ADMITTED, DEGRADED) and not exchange.given_back
        fields = b'"route":%b,"status":%d,"verdict":"%b"%b%b' % (
            b"null" if route is None else json.dumps(route.name).encode(),
            key[2],
            verdict.removeprefix(SHADOW),
            b',"shadow":true' if verdict.startswith(SHADOW) else b"",
            b',"meters":%b' % json.dumps(route.charges).encode()
            if charged and route is not None and route.pricing is None
            else b"",
        )
        found = self._tallies[key] = Tally(
            "" if route is None else route.name,
            verdict.decode(),
            key[2],
            self.latency_by_route.setdefault("" if route is None else route.name, histogram()),
            fields,
        )
        if charged and route is not None and verdict == ADMITTED:
            route.tallies[status] = found
        return found

    def _head_fields(self, exchange: Finished, org: str | None) -> bytes:
        """What a line says of the client and its token. Once for each head: those of a connection repeat."""
        head = exchange.head
        correlation, trace = head.request_id, trace_id(head.fields)
        told = b'"client":"%b"%b%b%b' % (
            exchange.worker.trust.client(exchange.client.address, head.forwarded),
            b"" if correlation is None else b',"correlation":"%b"' % correlation,
            b"" if trace is None else b',"trace_id":"%b"' % trace,
            b"" if org is None else b',"org":%b' % json.dumps(org).encode(),
        )
        head.log_fields, head.logged_org = told, org
        return told

    def _asked(self, exchange: Finished) -> bytes:
        """What was asked for when it is not the canonical path, which is fit for a line as it is."""
        destination = exchange.destination
        target = exchange.raw_target if destination is None else destination.logged
        # A target that was not understood may hold a token, too.
        if not self._with_query or (destination is None and exchange.worker.destinations.query_tokens):
            target = target.partition(b"?")[0]
        return json_text(target[:LOGGED_TARGET_BYTES_MAX])

"""Where a request goes: the canonical target of its request line, and the route that holds it.

Clients repeat themselves, so what a request line meant for a host is remembered, together with all that depends on
nothing else: the line that goes upstream and the words of the access log.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from common.request_target import ENCODED_SLASH, Target, TargetRefused, canonical
from gateway.http.head import RequestHead
from gateway.metering.costs import Pricing, price_of, usual
from gateway.metering.reported import NOTHING, Needs, needs_of
from gateway.metering.tunnel_price import TunnelPrice
from gateway.observe.tally import Tally
from gateway.routing.edits import Edits, Rewriting
from gateway.routing.routes import MethodNotAllowed, Route, RouteTable, is_preflight
from gateway.routing.token_sources import Sources, split_query
from gateway.settings.metering import OnAbort, Refund
from gateway.upstream.balancer import Upstream
from identity.requirements import Requirement

REMEMBERED_MAX = 4096
REMEMBERED_BYTES_MAX = 256  # of a line and a host; 4096 of them: about 6 MiB


_NO_TOKENS: tuple[bytes, ...] = ()


@dataclass(slots=True)
class MeteredRoute:
    """A route with what the hot path needs of it ready to be sent."""

    name: str
    upstream: Upstream
    exempt: bool
    charges: dict[str, int]
    meters: tuple[bytes, ...]
    charge_bulk: bytes
    """RESP words: number of meters, then meter and cost of each."""
    charge_words: int
    """Words of a whole take: request id, organization, and those of `charge_bulk`."""
    refund: Refund
    needs: Needs = NOTHING
    """Of answers, so that what was used can be read from them."""
    tokens: Sources | None = None
    """Where its requests may carry their token; None: Authorization alone."""
    rewriting: Rewriting | None = None
    """Of its requests' fields."""
    sent_as: Needs | Rewriting = NOTHING
    """What the fields that go upstream depend on beside the organization: the same for all routes that change none."""
    sent_by_target: bool = False
    """Whether each target gets a Host of its own."""
    response_edits: Edits | None = None
    pricing: Pricing | None = None
    """Of costs that are no fixed numbers; the charges here are then what is charged when nobody tells."""
    body_bytes_max: int = sys.maxsize
    idempotency: bool = True
    """Whether requests with one Idempotency-Key are charged once."""
    shadow: bool = False
    upgrades: frozenset[bytes] = frozenset()
    """Protocols that a tunnel may be opened for."""
    tunnel_price: TunnelPrice | None = None
    on_abort: OnAbort | None = None
    admitted_at: dict[str, tuple[float, int]] | None = None
    """When each organization was seen admitted last, and in which version, on a route that allows degraded forwarding
    (`degraded.py`)."""
    required: Requirement | None = None
    """What it asks of a token beside its organization."""
    policies: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    """RateLimit lines up to the balance, and the period's end, by the part of take's reply that seldom changes."""
    tallies: dict[int, Tally] = field(default_factory=dict)
    """Of admitted exchanges that stayed charged, by status."""


@dataclass(slots=True)
class Destination:
    """Of a request that some route holds. Shared between requests that are spelt alike: read only."""

    method: bytes
    sent: bytes
    """The target as it goes upstream."""
    path: bytes
    """As it was matched."""
    route: MeteredRoute
    preflight: bool
    request_line: bytes
    """With its CRLF, as it goes upstream."""
    logged: bytes
    """The target as it was asked for, in its canonical spelling and without tokens."""
    tokens: tuple[bytes, ...] = ()
    """Of the query, which goes upstream without them."""


@dataclass(slots=True)
class Unrouted:
    """Of a request that no route holds."""

    method: bytes
    target: bytes
    """In its canonical spelling."""
    path: bytes
    logged: bytes
    """The target as it was asked for, in its canonical spelling and without tokens."""
    allow: bytes | None
    """Of a path that other methods may use."""
    route: None = None


def request_line(method: bytes, raw_target: bytes) -> bytes:
    return b"%b %b HTTP/1.1" % (method, raw_target)


class Destinations:
    """The routes of one worker, and the destinations it remembers."""

    def __init__(self, table: RouteTable, upstreams: Mapping[str, Upstream]) -> None:
        self._table = table
        self._upstreams = upstreams
        self.upgrades = table.upgrades
        self.query_tokens = table.query_tokens
        self.token_fields = table.token_fields
        self._routes: dict[int, MeteredRoute] = {}
        self.known: dict[tuple[bytes, bytes], Destination] = {}
        """By request line and Host field as the client wrote them; requests without a Host are not remembered."""
        self._met: set[tuple[bytes, bytes]] = set()
        """Those that came once. Clients that put an id into each path would fill the memory with them."""

    def routes(self) -> Iterable[MeteredRoute]:
        """Those that are remembered."""
        return self._routes.values()

    def find(self, method: bytes, raw_target: bytes, head: RequestHead) -> Destination | Unrouted:
        """Raises TargetRefused for a target without a single reading."""
        host = head.hosts[0] if head.hosts else None
        line = request_line(method, raw_target)
        preflight = head.requested_method is not None and is_preflight(method, head.origin, head.requested_method)
        if not preflight and host is not None and (known := self.known.get((line, host))) is not None:
            return known
        target = canonical(raw_target, host, method)
        asked = head.requested_method if preflight and head.requested_method is not None else method
        # A preflight asks leave for the request that would follow, so it falls under that one's route.
        match = None if target.path.startswith(b"/-/") else self._table.match(asked, target.authority, target.path)
        route = match if isinstance(match, Route) else None
        path, sent = target.path, target.sent
        logged, tokens = sent, _NO_TOKENS
        if (
            target.encoded_slash
            or target.unmerged is not None
            or self.query_tokens
            or (route is not None and (route.strip_prefix or route.add_prefix))
        ):
            path, sent, logged, tokens = self._respelt(target, match, asked)
        if route is None:
            allow = match.allow if isinstance(match, MethodNotAllowed) else None
            return Unrouted(method, sent, path, logged, allow)
        sent_line = (line if sent is raw_target else request_line(method, sent)) + b"\r\n"
        destination = Destination(method, sent, path, self._metered(route), preflight, sent_line, logged, tokens)
        if not preflight and not tokens and host is not None:
            self._remember(line, host, destination)
        return destination

    def _remember(self, line: bytes, host: bytes, destination: Destination) -> None:
        """When it comes the second time."""
        if len(line) + len(host) > REMEMBERED_BYTES_MAX:
            return
        key, met = (line, host), self._met
        if key not in met:
            if len(met) >= REMEMBERED_MAX:
                met.clear()
            met.add(key)
            return
        if len(self.known) >= REMEMBERED_MAX:
            self.known.clear()
        self.known[key] = destination

    def _respelt(
        self, target: Target, match: Route | MethodNotAllowed | None, method: bytes
    ) -> tuple[bytes, bytes, bytes, tuple[bytes, ...]]:
        """Path, target upstream, target in the log, and the query's tokens, where they are not as the client wrote
        them. Raises TargetRefused."""
        path = target.path
        if target.encoded_slash or target.unmerged is not None:
            path = self._path_of(target, match, method)
        sent = logged = target.sent
        tokens = _NO_TOKENS
        plain = path is target.path and not self.query_tokens
        if not plain:
            logged = _joined(path, self._without_tokens(target.query))
        if isinstance(match, Route) and not (plain and match.keeps_path):
            query = target.query
            if query is not None and match.tokens is not None and match.tokens.query is not None:
                tokens, query = split_query(query, match.tokens.query)
            sent = _joined(match.moved(path), query)
            if sent.startswith(b"//"):
                raise TargetRefused("the path begins with two slashes, which some read as a host")
        return path, sent, logged, tokens

    def _path_of(self, target: Target, match: Route | MethodNotAllowed | None, method: bytes) -> bytes:
        """The path of a target that some routes take in a spelling that others do not. Raises TargetRefused."""
        if target.encoded_slash and not (isinstance(match, Route) and match.encoded_slash):
            raise TargetRefused(ENCODED_SLASH)
        if target.unmerged is None or not isinstance(match, Route) or match.merge_slashes:
            return target.path
        if not target.unmerged:
            raise TargetRefused("the path holds dot segments beside empty ones")
        if self._table.match(method, target.authority, target.unmerged) is not match:
            raise TargetRefused("the path falls under another route where its slashes are merged")
        return target.unmerged

    def _without_tokens(self, query: bytes | None) -> bytes | None:
        """For the log: whatever route it falls under, what some route takes for a token may be one."""
        for name in self.query_tokens:
            if query is not None:
                query = split_query(query, name)[1]
        return query

    def _metered(self, route: Route) -> MeteredRoute:
        if (known := self._routes.get(id(route))) is not None:  # the table keeps its routes
            return known
        price = price_of({meter: usual(cost) for meter, cost in route.costs.items()})
        fixed = all(isinstance(cost, int) for cost in route.costs.values())
        upstream, needs = self._upstreams[route.upstream], needs_of(route.costs.values())
        rewriting = _rewriting(route, upstream)
        metered = self._routes[id(route)] = MeteredRoute(
            route.name,
            upstream,
            route.exempt,
            price.charges,
            tuple(meter.encode() for meter in price.charges),
            price.charge_bulk,
            price.charge_words,
            route.refund,
            needs,
            route.tokens,
            rewriting,
            needs if rewriting is None else rewriting,
            rewriting is not None and rewriting.own_host,
            route.response_edits,
            None if fixed else Pricing(route.costs),
            route.body_bytes_max,
            route.idempotency,
            route.shadow,
            route.upgrades,
            route.tunnel_price,
            route.on_abort,
            {} if route.degraded_allow else None,
            required=route.required,
        )
        return metered


def _joined(path: bytes, query: bytes | None) -> bytes:
    return path if query is None else b"%b?%b" % (path, query)


def _rewriting(route: Route, upstream: Upstream) -> Rewriting | None:
    settings = upstream.settings
    own_host = settings.host != "preserve"
    if route.tokens is None and route.request_edits is None and settings.credential is None and not own_host:
        return None
    return Rewriting(route.tokens, route.request_edits, settings.credential, own_host=own_host)

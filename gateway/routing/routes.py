"""Which rule a request falls under. Pure: settings in, a table out; method, host and canonical path in, a route out."""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.metering.tunnel_price import TunnelPrice
from gateway.routing.edits import Edits
from gateway.routing.token_sources import Sources
from gateway.settings.metering import MeterCost, OnAbort, Refund
from gateway.settings.rewriting import TokenSources
from gateway.settings.root import GatewaySettings
from gateway.settings.route import RouteSettings
from identity.requirements import Requirement

_PARAMETERS: Final = re.compile(rb";[^/]*")
_SLASHES: Final = re.compile(rb"//+")


@dataclass(slots=True)
class Route:
    name: str
    upstream: str  # a name under `upstreams`
    costs: dict[str, MeterCost]  # of one request, by meter; empty when exempt
    refund: Refund
    exempt: bool  # forwarded without a token and without a charge
    body_bytes_max: int = sys.maxsize
    idempotency: bool = True  # requests with one Idempotency-Key are charged once
    shadow: bool = False  # what would be refused is recorded and forwarded
    upgrades: frozenset[bytes] = frozenset()  # protocols that a tunnel may be opened for
    tunnel_price: TunnelPrice | None = None  # what such a tunnel costs beyond its opening
    on_abort: OnAbort | None = None  # how an answer is read on whose client has left
    degraded_allow: bool = False  # forwarded and journaled while Redis is away
    strip_prefix: bytes = b""  # of each path that falls under it; goes before `add_prefix` comes
    add_prefix: bytes = b""
    encoded_slash: bool = False  # `%2F` is a character of the path
    merge_slashes: bool = True
    tokens: Sources | None = None  # beyond Authorization
    required: Requirement | None = None  # of a token, beside its organization
    request_edits: Edits | None = None
    response_edits: Edits | None = None

    @property
    def keeps_path(self) -> bool:
        return not (self.strip_prefix or self.add_prefix)

    def moved(self, path: bytes) -> bytes:
        """A path that falls under this route as the upstream gets it."""
        return self.add_prefix + path.removeprefix(self.strip_prefix) or b"/"


@dataclass(slots=True, frozen=True)
class MethodNotAllowed:
    """The path is routed, but not for this method: 405."""

    allow: bytes  # the value of the Allow field, RFC 9110 section 10.2.1


@dataclass(slots=True)
class _Rule:
    prefix: bytes  # without a trailing slash: the root is empty
    methods: frozenset[bytes] | None
    route: Route


class _Prefixes:
    """Routes of one host and one method by path prefix; the longest that fits wins."""

    def __init__(self, rules: Iterable[_Rule]) -> None:
        self._routes = {rule.prefix: rule.route for rule in rules}
        self._depth = max((prefix.count(b"/") for prefix in self._routes), default=0)

    def longest(self, path: bytes) -> Route | None:
        routes = self._routes
        if self._depth:
            # No deeper than the deepest prefix, so that a path of ten thousand segments costs no more than others.
            prefix = b"/".join(path.split(b"/", self._depth + 1)[: self._depth + 1])
            while prefix:
                if (route := routes.get(prefix)) is not None:
                    return route
                prefix = prefix[: prefix.rindex(b"/")]
        return routes.get(b"")


class _Host:
    """Routes of one host."""

    def __init__(self, rules: list[_Rule]) -> None:
        methods = frozenset(method for rule in rules for method in rule.methods or ())
        self._any = _Prefixes(rule for rule in rules if rule.methods is None)
        self._by_method = {
            method: _Prefixes(rule for rule in rules if rule.methods is None or method in rule.methods)
            for method in methods
        }

    def match(self, method: bytes, path: bytes) -> Route | None:
        return self._by_method.get(method, self._any).longest(path)

    def allowed(self, path: bytes) -> set[bytes]:
        """The methods that some rule allows on the path."""
        return {method for method, routes in self._by_method.items() if routes.longest(path) is not None}


class RouteTable:
    """Compiled routes. Rules with the request's host come before rules without; then the longest prefix wins."""

    def __init__(self, rules: Iterable[tuple[bytes | None, _Rule]]) -> None:
        by_host: dict[bytes | None, list[_Rule]] = {}
        self._upgrades: frozenset[bytes] = frozenset()
        self.query_tokens: frozenset[bytes] = frozenset()
        """Parameters that carry a token on some route."""
        self.token_fields: frozenset[bytes] = frozenset()
        """Fields that carry one on some route, in lower case, beside Authorization and Cookie."""
        for host, rule in rules:
            self._upgrades |= rule.route.upgrades
            if rule.route.tokens is not None and rule.route.tokens.query is not None:
                self.query_tokens |= {rule.route.tokens.query}
            if rule.route.tokens is not None and rule.route.tokens.header is not None:
                self.token_fields |= {rule.route.tokens.header}
            by_host.setdefault(host, []).append(rule)
        self._anywhere = _Host(by_host.pop(None, []))
        self._hosts = {host: _Host(rules_of_host) for host, rules_of_host in by_host.items() if host is not None}

    @property
    def upgrades(self) -> frozenset[bytes]:
        """Protocols that some route allows."""
        return self._upgrades

    def match(self, method: bytes, host: bytes, path: bytes) -> Route | MethodNotAllowed | None:
        """The route of a request; `path` is `Target.path`, `host` the authority (its case and port do not count).

        None when no route holds the path (404); `MethodNotAllowed` when one does, for other methods only (405).
        """
        if path == b"*":
            return None  # OPTIONS * asks about the server as a whole, which is no upstream
        route = self._find(method, host, path)
        if (b";" in path or b"%2F" in path) and self._is_read_otherwise(route, method, host, path):
            return None
        return self._refusal(host, path) if route is None else route

    def _is_read_otherwise(self, route: Route | None, method: bytes, host: bytes, path: bytes) -> bool:
        """`/admin;x/users` is `/admin/users` to upstreams that strip parameters and a path of its own to others, and
        `/admin%2Fusers` to those that decode it. Where two readings fall under different routes, one of them would be
        charged or admitted wrongly."""
        return any(route is not self._find(method, host, other) for other in _other_readings(path))

    def _refusal(self, host: bytes, path: bytes) -> MethodNotAllowed | None:
        allowed = self._anywhere.allowed(path)
        if special := self._hosts.get(_name(host)):
            allowed |= special.allowed(path)
        return MethodNotAllowed(b", ".join(sorted(allowed))) if allowed else None

    def _find(self, method: bytes, host: bytes, path: bytes) -> Route | None:
        if self._hosts:
            special = self._hosts.get(_name(host))
            if special is not None and (route := special.match(method, path)) is not None:
                return route
        return self._anywhere.match(method, path)


def _other_readings(path: bytes) -> Iterator[bytes]:
    decoded = path.replace(b"%2F", b"/")
    for reading in (decoded, _PARAMETERS.sub(b"", path), _PARAMETERS.sub(b"", decoded)):
        yield _SLASHES.sub(b"/", reading)


def _name(authority: bytes) -> bytes:
    """`Example.com:8080` as `example.com`, `[::1]:8080` as `[::1]`."""
    name, colon, port = authority.rpartition(b":")
    return (name if colon and b"]" not in port else authority).lower()


def _rule(settings: RouteSettings, body_bytes_max: int | None, tokens: TokenSources) -> _Rule:
    methods = None
    if settings.methods is not None:
        methods = frozenset(method.encode() for method in settings.methods)
        if b"GET" in methods:
            methods |= {b"HEAD"}
    tunnel = settings.tunnel
    if settings.body_bytes_max is not None:
        body_bytes_max = settings.body_bytes_max
    name = settings.label
    required = settings.require
    route = Route(
        name=name,
        upstream=settings.upstream,
        costs={} if settings.exempt else dict(settings.meters),
        refund=settings.refund,
        exempt=settings.exempt,
        body_bytes_max=sys.maxsize if body_bytes_max is None else body_bytes_max,
        idempotency=settings.idempotency and not settings.exempt,
        shadow=settings.shadow,
        upgrades=frozenset(token.encode() for token in settings.upgrades),
        tunnel_price=None if tunnel is None else TunnelPrice(dict(tunnel.charge), tunnel.per == "message"),
        on_abort=settings.on_abort,
        degraded_allow=settings.degraded == "allow",
        strip_prefix=(settings.strip_prefix or "").encode(),
        add_prefix=(settings.add_prefix or "").encode(),
        encoded_slash=settings.encoded_slash == "keep",
        merge_slashes=settings.merge_slashes,
        tokens=Sources.of(settings.tokens or tokens),
        required=None if required is None else Requirement(name, required.scopes, required.roles, keys=required.keys),
        request_edits=Edits.of(settings.request_headers),
        response_edits=Edits.of(settings.response_headers),
    )
    return _Rule(settings.path.rstrip("/").encode(), methods, route)


def compile_routes(settings: GatewaySettings) -> RouteTable:
    """The table of `settings.routes`."""
    usual = settings.limits.body_bytes_max
    return RouteTable(
        (route.host.encode() if route.host else None, _rule(route, usual, settings.tokens)) for route in settings.routes
    )


def is_preflight(method: bytes, origin: bytes | None, requested_method: bytes | None) -> bool:
    """Whether a browser asks for leave (Fetch, section 3.3): it carries no token, and it is free.

    `origin` and `requested_method` are the Origin and Access-Control-Request-Method fields, None when absent.
    """
    return method == b"OPTIONS" and origin is not None and requested_method is not None

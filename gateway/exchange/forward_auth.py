"""Forward-auth: the decision without the forwarding, for proxies that forward themselves (docs/forward-auth.md).

The endpoint's name says how a proxy tells of the client's request, so that nothing is guessed from fields that a client
could have added. What was asked for is canonicalised, routed, authenticated and charged as if it had come here itself.
The outcome is never seen, so what was charged stays charged.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from common.request_target import TargetRefused
from gateway.decision.charge import Charge
from gateway.decision.refusals import RefusalAnswer
from gateway.exchange import refusals
from gateway.exchange.exchange import Exchange
from gateway.http.head import RequestHead
from gateway.observe import record
from gateway.routing.destinations import Destination, Destinations
from gateway.routing.forwarded import Trust
from quota import problems

ADDRESSES_MAX: Final = 1024  # of which it is remembered whether they are trusted
PREFIX: Final = b"/-/authorize/"
_ENVOY: Final = b"/-/authorize/envoy"
_METHOD: Final = re.compile(rb"[A-Z-]{1,32}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of proxy tells of a request: the names of three fields, in lower case."""

    method: bytes
    target: bytes
    host: bytes
    coarse: bool = False
    """It understands 2xx, 401 and 403 only, and drops the body (nginx, ngx_http_auth_request_module)."""


_FORWARDED: Final = Dialect(b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host")
_DIALECTS: Final = {
    b"/-/authorize/nginx": Dialect(b"x-original-method", b"x-original-uri", b"x-original-host", coarse=True),
    b"/-/authorize/traefik": _FORWARDED,
    b"/-/authorize/caddy": _FORWARDED,
}


@dataclass(slots=True)
class Original:
    """The client's request as its proxy tells it."""

    method: bytes
    target: bytes
    hosts: list[bytes]
    coarse: bool


class Misinformed(Exception):
    """What the proxy tells is no request. The reason is fit for whoever configures the proxy."""


class ForwardAuth:
    """The endpoints, for requests of these proxies. For others there are none."""

    def __init__(self, trusted: Iterable[str], destinations: Destinations) -> None:
        self._trusts = lru_cache(ADDRESSES_MAX)(Trust(trusted, rfc7239=False).trusts)
        self._destinations = destinations

    def decide(self, exchange: Exchange) -> None:
        """Answers a request whose target begins with PREFIX."""
        try:
            original = _original(exchange) if self._trusts(exchange.client.address) else None
        except Misinformed as e:
            exchange.refuse(RefusalAnswer(problems.BAD_REQUEST, str(e)))
            return
        if original is None:
            exchange.verdict = record.LOCAL
            exchange.refuse(RefusalAnswer(problems.NOT_FOUND, "The gateway has no such endpoint."))
            return
        exchange.end_point = Authorization(coarse=original.coarse)
        exchange.raw_target = original.target
        if original.method in (b"TRACE", b"CONNECT"):
            exchange.refuse(RefusalAnswer(problems.NOT_IMPLEMENTED, "Neither TRACE nor CONNECT is served."))
            return
        head = RequestHead()
        head.hosts = original.hosts
        head.origin, head.requested_method = exchange.head.origin, exchange.head.requested_method
        try:
            destination = self._destinations.find(original.method, original.target, head)
        except TargetRefused as e:
            exchange.refuse(RefusalAnswer(problems.BAD_REQUEST, e.reason))
            return
        exchange.destination = destination
        if isinstance(destination, Destination):
            exchange.decide(destination)
        else:
            exchange.refuse(refusals.of_unrouted(destination))


class Authorization:
    """The end point of a request that is not forwarded here: the proxy that asks is answered that it may do so."""

    __slots__ = ("_coarse",)

    def __init__(self, *, coarse: bool) -> None:
        self._coarse = coarse

    def admit(self, exchange: Exchange, destination: Destination, charge: Charge | None) -> None:
        """The request will be forwarded for all we know, so it stays charged."""
        rate_fields = b"" if charge is None else charge.rate_fields
        told = b"" if exchange.claims is None else exchange.claims.upstream_fields
        sources = destination.route.tokens
        more = b"" if sources is None else sources.told_to_proxies(exchange.head)
        exchange.respond(200, b"%b%bX-Quota-Target: %b\r\n%b" % (rate_fields, told, destination.sent, more), b"")

    def spell(self, status: int, fields: bytes, body: bytes) -> tuple[int, bytes]:
        if not self._coarse or status < 400:
            return status, fields
        fields = b"%bX-Quota-Status: %d\r\nX-Quota-Problem: %b\r\n" % (fields, status, body)
        return status if status in (401, 403) else 403, fields


def _original(exchange: Exchange) -> Original | None:
    """None when there is no such endpoint. Raises Misinformed."""
    head, target = exchange.head, exchange.raw_target
    if target.startswith(_ENVOY + b"/"):
        return Original(exchange.method, target[len(_ENVOY) :], head.hosts, coarse=False)
    if (dialect := _DIALECTS.get(target)) is None:
        return None
    method = _value(head, dialect.method)
    if not _METHOD.fullmatch(method):
        raise Misinformed(f"{dialect.method.decode()} holds no method.")
    return Original(method, _value(head, dialect.target), [_value(head, dialect.host)], dialect.coarse)


def _value(head: RequestHead, name: bytes) -> bytes:
    if name == b"x-forwarded-host":
        values = [*head.forwarded_hosts]
    else:
        start, end = len(name) + 2, -2  # `: ` and CRLF
        values = [
            line[start:end] for line in head.fields if line[: start - 2].lower() == name and line[start - 2] == 58
        ]
    if len(values) != 1:
        raise Misinformed(f"The proxy must send exactly one {name.decode()}, not {len(values)}.")
    return values[0]

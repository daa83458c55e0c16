"""Forward-auth: the decision without the forwarding, for proxies that forward themselves (docs/forward-auth.md).

The endpoint's name says how a proxy tells of the client's request, so that nothing is guessed from fields that a client
could have added. What was asked for is canonicalised, routed, authenticated and charged as if it had come here itself.
The outcome is never seen, so what was charged stays charged.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.exchange.exchange import Exchange
from gateway.exchange.verdicts import RefusalAnswer
from gateway.http.head import RequestHead
from gateway.http.target import TargetRefused
from gateway.observe import record
from gateway.routing.forwarded import Trust
from quota import problems

if TYPE_CHECKING:
    from gateway.exchange.verdicts import RefusalText

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

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusts = lru_cache(ADDRESSES_MAX)(Trust(trusted, rfc7239=False).trusts)

    def decide(self, exchange: Exchange) -> None:
        """Answers a request whose target begins with PREFIX."""
        try:
            told = _original(exchange) if self._trusts(exchange.client.address) else None
        except Misinformed as e:
            exchange.refuse(RefusalAnswer(problems.BAD_REQUEST, str(e)))
            return
        if told is None:
            exchange.verdict = record.LOCAL
            exchange.refuse(RefusalAnswer(problems.NOT_FOUND, "The gateway has no such endpoint."))
            return
        authorization = Authorization(exchange, told)
        exchange.client.hand_over(exchange, authorization)
        authorization.start()


def _original(exchange: Exchange) -> Original | None:
    """None when there is no such endpoint. Raises Misinformed."""
    head, asked = exchange.head, exchange.raw_target
    if asked.startswith(_ENVOY + b"/"):
        return Original(exchange.method, asked[len(_ENVOY) :], head.hosts, coarse=False)
    if (dialect := _DIALECTS.get(asked)) is None:
        return None
    method = _told(head, dialect.method)
    if not _METHOD.fullmatch(method):
        raise Misinformed(f"{dialect.method.decode()} holds no method.")
    return Original(method, _told(head, dialect.target), [_told(head, dialect.host)], dialect.coarse)


def _told(head: RequestHead, name: bytes) -> bytes:
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


class Authorization(Exchange):
    """An exchange that ends with the decision: where a request would be forwarded, the proxy is told to do so."""

    __slots__ = ("_original",)

    def __init__(self, exchange: Exchange, original: Original) -> None:
        super().__init__(exchange.worker, exchange.client, exchange.head)
        self.id, self.began = exchange.id, exchange.began
        self.method, self.raw_target = exchange.method, original.target
        self.head_complete, self.request_complete = True, exchange.request_complete
        self.keep_alive, self.body_bytes = exchange.keep_alive, exchange.body_bytes
        self._holding = exchange._holding
        self._original = original

    def start(self) -> None:
        told, head = self._original, RequestHead()
        if told.method in (b"TRACE", b"CONNECT"):
            self.refuse(RefusalAnswer(problems.NOT_IMPLEMENTED, "Neither TRACE nor CONNECT is served."))
            return
        head.hosts = told.hosts
        head.origin, head.requested_method = self.head.origin, self.head.requested_method
        try:
            found = self.worker.destinations.find(told.method, told.target, head)
        except TargetRefused as e:
            self.refuse(RefusalAnswer(problems.BAD_REQUEST, e.reason))
            return
        self.destination = found
        if found.route is not None:
            self._admit(found.route, found.preflight)
        elif found.allow is not None:
            allow = b"Allow: %b\r\n" % found.allow
            self.refuse(RefusalAnswer(problems.METHOD_NOT_ALLOWED, "The path exists for other methods only.", allow))
        else:
            self.refuse(RefusalAnswer(problems.NO_ROUTE, "No route of this gateway holds the path."))

    def _forward(self) -> None:
        assert self.destination is not None  # noqa: S101 - only a routed request is admitted
        self.receipt = None  # it will be forwarded for all we know, so it stays charged
        org = b"" if self.claims is None else self.worker.identity(self.claims.org).upstream_fields
        sources = None if self.route is None else self.route.tokens
        more = b"" if sources is None else sources.told_to_proxies(self.head)
        self.respond(200, b"%b%bX-Quota-Target: %b\r\n%b" % (self.rate_fields, org, self.destination.sent, more), b"")

    def _refuse_again(self, text: "RefusalText") -> None:
        self.refuse(text.refusal)

    def respond(self, status: int, fields: bytes, body: bytes, close: bool = False) -> None:
        if self._original.coarse and status >= 400:
            fields = b"%bX-Quota-Status: %d\r\nX-Quota-Problem: %b\r\n" % (fields, status, body)
            status = status if status in (401, 403) else 403
        super().respond(status, fields, body, close)

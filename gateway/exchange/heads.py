"""The heads of messages as they go on: a request's to the upstream, an answer's to the client. Pure."""

from typing import Protocol

from gateway.http import headers
from gateway.http.codings import readable
from gateway.http.head import RequestHead
from gateway.http.trace import TraceRules
from gateway.routing.destinations import Destination
from gateway.routing.forwarded import Trust
from identity.api_key import hash_of
from identity.claims import Claims
from quota.access import DIGEST_BYTES


class Sender(Protocol):
    """The client's connection."""

    @property
    def address(self) -> bytes: ...
    @property
    def proto(self) -> bytes: ...
    @property
    def certificate_fields(self) -> bytes: ...


class UpstreamHeads:
    """The fields of requests as upstreams get them."""

    __slots__ = ("_certified", "_traces", "_trust")

    def __init__(self, trust: Trust, traces: TraceRules | None, *, certified: bool = False) -> None:
        """`certified`: whether upstreams are told of clients' certificates."""
        self._certified = certified
        self._trust = trust
        self._traces = traces

    def fields(
        self, head: RequestHead, destination: Destination, claims: Claims | None, sender: Sender, protocol: bytes | None
    ) -> bytes:
        """All but X-Request-Id and what each request has of its own. `claims`: whom it speaks for; `protocol`: that of
        the tunnel asked for."""
        route = destination.route
        host = head.hosts[0] if head.hosts else None
        lines = headers.without(head.fields, head.nominated) if head.nominated else head.fields
        if head.upgrade and protocol is None:
            # The Upgrade is ignored, and goes no further: half a handshake must not look like one to the upstream.
            lines = headers.without_handshake(lines)
        if claims is not None and claims.api_key is not None and _carries(head.authorization, claims.api_key):
            # A token says more to the upstream than the gateway does; a key is a secret that it has no use for.
            lines = headers.without_authorization(lines)
        rewriting = route.rewriting
        if rewriting is not None:
            # Who was not believed does not speak with the gateway's voice, and a browser's preflight with nobody's.
            credited = claims is not None or (route.exempt and not destination.preflight)
            lines = rewriting.lines(lines, credited=credited)
        if route.needs.body:
            lines = readable(lines)
        if self._traces is not None:
            head.traces, lines = self._traces.applied(head.client_trace(), head.traceparent, lines)
        if self._certified:
            lines = [sender.certificate_fields, *headers.without_certificate(lines)]
        own_host = rewriting is not None and rewriting.own_host
        return b"".join(
            (
                b"" if own_host else b"Host: %b\r\n" % (host or route.upstream.authority),
                *lines,
                b"" if head.content_length is None else b"Content-Length: %d\r\n" % head.content_length,
                b"Transfer-Encoding: chunked\r\n" if head.chunked else b"",
                _connection_options(head, protocol, needs_trailers=route.needs.trailers),
                self._trust.lines(sender.address, sender.proto, host, head.forwarded),
                b"" if claims is None else claims.upstream_fields,
                b"Via: 1.1 quotagate\r\n",
            )
        )


def _carries(authorization: bytes | None, api_key: bytes) -> bool:
    """Whether it is the key, and not what an upstream asks for beside a key that came in another way."""
    if authorization is None:
        return False
    return hash_of(authorization.strip(b" \t").partition(b" ")[2].lstrip(b" "))[:DIGEST_BYTES] == api_key


def _connection_options(head: RequestHead, protocol: bytes | None, *, needs_trailers: bool) -> bytes:
    if protocol is not None:
        return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
    # Said on behalf of the client, so only if it said so, and to this hop (RFC 9110 section 10.1.4), or for the gateway
    # itself, which reads them.
    if needs_trailers or (head.takes_trailers and head.is_11 and b"te" in head.nominated):
        return b"TE: trailers\r\nConnection: TE\r\n"
    return b""


def connection_field(head: RequestHead, *, keep_alive: bool) -> bytes:
    """Of an answer."""
    if not keep_alive:
        return b"Connection: close\r\n"
    return b"" if head.is_11 else b"Connection: keep-alive\r\n"


def answer_head(status: int, reason: bytes, fields: bytes, more: bytes, request_id: bytes) -> bytes:
    """Of an upstream's answer. `more`: what the gateway adds."""
    return b"HTTP/1.1 %d %b\r\n%b%bX-Request-Id: %b\r\n\r\n" % (status, reason, fields, more, request_id)


def switching_head(reason: bytes, protocol: bytes, fields: bytes, rate_fields: bytes, request_id: bytes) -> bytes:
    """Of an upstream's 101."""
    return b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b%bX-Request-Id: %b\r\n\r\n" % (
        reason,
        protocol,
        fields,
        rate_fields,
        request_id,
    )

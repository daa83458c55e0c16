"""Which fields of a message go on, and what the gateway itself must do with the others. Pure.

One dictionary look-up a field, in whatever case the peer wrote it:

    kind = classify_request(name)       # on_header of the client's parser
    if not kind: forward(name, value)   # FORWARD is 0
    elif kind == HOST: ...

Sources: RFC 9110 sections 5.1, 5.5, 5.6.2 and 7.6.1; RFC 9113 section 3.1 (HTTP2-Settings); RFC 9112 appendix C.2.2.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

FORWARD: Final = 0  # goes on as it is
DROP: Final = 1  # must not go on: hop-by-hop, identity, or another spelling of a protected name
INVALID: Final = 2  # no field name at all: 400 to a client, 502 for an upstream
CONNECTION: Final = 3  # names more fields of this hop only: see `nominated`
CONTENT_LENGTH: Final = 4
TRANSFER_ENCODING: Final = 5
UPGRADE: Final = 6
HOST: Final = 7
AUTHORIZATION: Final = 8
EXPECT: Final = 9
FORWARDED: Final = 10  # what a proxy says of the client: kept from a trusted proxy, replaced for all others
ORIGIN: Final = 11  # goes on; decides whether a refusal is readable in a browser, and what a preflight is
ACCESS_CONTROL_REQUEST_METHOD: Final = 12  # goes on; marks a preflight
REQUEST_ID: Final = 13  # X-Request-Id: continued where it is sane, else made
IDEMPOTENCY_KEY: Final = 14  # goes on; a repeated request is charged once
TE: Final = 15  # of this hop; `trailers` is told anew to the next
RATE_LIMIT: Final = 16  # an upstream's own: goes on unless the gateway tells its own
DATE: Final = 17  # goes on; an answer without one gets the gateway's
ALLOW_ORIGIN: Final = 18  # goes on; who may read the answer may read what the gateway adds to it
KEEP_ALIVE: Final = 19  # of an upstream: how long its connection may be idle
TRACEPARENT: Final = 20  # goes on; the access log names its trace

HOP_BY_HOP: Final[frozenset[bytes]] = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields of one connection. `trailer` is not among them: it announces fields that travel on to the recipient."""

IDENTITY_PREFIX: Final = (
    b"x-quota-"  # what the gateway tells the upstream about the caller: never the caller's own word
)
FORWARDING: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-forwarded-prefix",
        b"x-real-ip",
    }
)

_BOTH: Final = {
    **dict.fromkeys(HOP_BY_HOP, DROP),
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
}
REQUEST: Final = {
    **_BOTH,
    **dict.fromkeys(FORWARDING, FORWARDED),
    b"host": HOST,
    b"authorization": AUTHORIZATION,
    b"expect": EXPECT,
    b"origin": ORIGIN,
    b"access-control-request-method": ACCESS_CONTROL_REQUEST_METHOD,
    b"x-request-id": REQUEST_ID,
    b"idempotency-key": IDEMPOTENCY_KEY,
    b"te": TE,
    b"traceparent": TRACEPARENT,
}
RESPONSE: Final = {
    **_BOTH,
    b"access-control-allow-origin": ALLOW_ORIGIN,
    b"date": DATE,
    b"keep-alive": KEEP_ALIVE,
    b"x-request-id": DROP,  # the gateway's own is the one that logs, problems and the upstream have
    b"ratelimit": RATE_LIMIT,
    b"ratelimit-policy": RATE_LIMIT,
}

# RFC 9110 section 6.5.1: framing, routing, authentication, request modifiers, control data and content format are
# decided by before the body. A recipient that merges trailers into the head must not be able to decide otherwise.
NOT_IN_TRAILERS: Final = (
    HOP_BY_HOP
    | FORWARDING
    | frozenset(
        b"accept accept-charset accept-encoding accept-language age authentication-info authorization cache-control "
        b"content-encoding content-length content-location content-range content-type cookie date early-data expect "
        b"expires host idempotency-key if-match if-modified-since if-none-match if-range if-unmodified-since location "
        b"max-forwards origin pragma range retry-after set-cookie strict-transport-security traceparent tracestate "
        b"trailer vary via warning www-authenticate x-http-method x-http-method-override x-request-id "
        b"client-cert client-cert-chain".split()
    )
)
_NOT_IN_TRAILERS_PREFIXES: Final = (
    IDENTITY_PREFIX,
    b"access-control-",
    b"ratelimit",
    b"sec-",
    b"x-forwarded-",
    b"x-ratelimit-",
)

# A sender may nominate hop-by-hop fields only (RFC 9110 section 7.6.1). Nominating one of these would take from the
# upstream what it decides by, so it is ignored.
NOT_NOMINABLE: Final = FORWARDING | {
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"host",
    b"idempotency-key",
    b"origin",
    b"set-cookie",
    b"transfer-encoding",
    b"via",
}

_CERTIFICATE: Final = frozenset({b"client-cert", b"client-cert-chain"})
_HANDSHAKE_PREFIX: Final = b"sec-websocket-"
_KEEP_ALIVE: Final = re.compile(rb"(?:^|[,;])[ \t]*(timeout|max)[ \t]*=[ \t]*\"?([0-9]{1,9})(?![0-9])", re.IGNORECASE)
_DROPPED_ANYWAY: Final = HOP_BY_HOP | {b"close"}
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CORRELATION_ID: Final = re.compile(rb"[A-Za-z0-9_.:/+=-]{1,128}")
_REMEMBERED_MAX: Final = 1024
_REMEMBERED_BYTES_MAX: Final = 64


class _Kinds(dict[bytes, int]):
    """Field name as spelt -> kind, filled as names are met and emptied when someone sweeps them."""

    def __init__(self, special: dict[bytes, int], *, from_client: bool) -> None:
        super().__init__(special)
        self._special = special
        self._from_client = from_client

    def __missing__(self, name: bytes) -> int:
        kind = self._kind(name)
        if len(name) <= _REMEMBERED_BYTES_MAX:
            if len(self) >= _REMEMBERED_MAX:
                self.clear()
            self[name] = kind
        return kind

    def _kind(self, name: bytes) -> int:
        if not _TOKEN.fullmatch(name):
            return INVALID
        lower = name.lower()
        # To a CGI-like upstream X_Quota_Org and X-Quota-Org are one variable, so the first must not pass as harmless.
        dashed = lower.replace(b"_", b"-")
        if self._from_client and (dashed.startswith(IDENTITY_PREFIX) or (dashed != lower and dashed in self._special)):
            return DROP
        return self._special.get(lower, FORWARD)


classify_request: Final = _Kinds(REQUEST, from_client=True).__getitem__
"""Field name of a request, any case -> kind."""
classify_response: Final = _Kinds(RESPONSE, from_client=False).__getitem__
"""Field name of a response, any case -> kind."""


def trailer_goes_on(name: bytes, tokens: Iterable[bytes] = ()) -> bool:
    """Whether a field of the trailer section is passed on; `tokens` are the options of the head's Connection."""
    dashed = name.lower().replace(b"_", b"-")
    if dashed in NOT_IN_TRAILERS or dashed.startswith(_NOT_IN_TRAILERS_PREFIXES) or not _TOKEN.fullmatch(name):
        return False
    return name.lower() not in nominated(tuple(tokens))


def accepts_trailers(value: bytes) -> bool:
    """Whether a TE field says `trailers`, which takes no weight (RFC 9110 section 10.1.4)."""
    return b"trailers" in connection_tokens(value)


def correlation_id(value: bytes) -> bytes | None:
    """The client's request id if it is fit for logs and for the upstream, else None."""
    return value if _CORRELATION_ID.fullmatch(value) else None


@lru_cache(maxsize=64)  # clients send few different ones; the bound holds against those who do not
def connection_tokens(value: bytes) -> tuple[bytes, ...]:
    """The options of one Connection field, in lower case: `Keep-Alive, X-Foo` is `(b"keep-alive", b"x-foo")`."""
    return tuple(token for part in value.lower().split(b",") if (token := part.strip(b" \t")))


@lru_cache(maxsize=64)
def promised_idle_seconds(value: bytes) -> int | None:
    """For how long the sender of a Keep-Alive field keeps the connection without a request: `timeout=5, max=100` is 5;
    0 if it takes no further request. None if it says nothing of it, or nothing that can be read."""
    parameters = {name.lower(): int(number) for name, number in _KEEP_ALIVE.findall(value)}
    return 0 if parameters.get(b"max") == 0 else parameters.get(b"timeout")


@lru_cache(maxsize=64)
def nominated(tokens: tuple[bytes, ...]) -> frozenset[bytes]:
    """The fields, in lower case, that must not go on since Connection names them; protected ones are left out."""
    named = frozenset(tokens) - _DROPPED_ANYWAY - NOT_NOMINABLE
    return frozenset(name for name in named if not name.startswith(IDENTITY_PREFIX))


def without_authorization(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if line.partition(b":")[0].lower() != b"authorization"]


def without_certificate(lines: list[bytes]) -> list[bytes]:
    """Without what a client says of a certificate (RFC 9440 section 2.4), however a CGI-like upstream would read it."""
    return [line for line in lines if line.partition(b":")[0].lower().replace(b"_", b"-") not in _CERTIFICATE]


def without_handshake(fields: list[bytes]) -> list[bytes]:
    """Header lines without those that mean something only beside `Upgrade: websocket` (RFC 6455 section 11.3)."""
    return [field for field in fields if not field.lower().startswith(_HANDSHAKE_PREFIX)]


def without(fields: list[bytes], tokens: Iterable[bytes]) -> list[bytes]:
    """Header lines (`Name: value` CRLF) without those that the options of the Connection fields nominate."""
    if not (dropped := nominated(tuple(tokens))):
        return fields
    return [field for field in fields if field.partition(b":")[0].lower() not in dropped]

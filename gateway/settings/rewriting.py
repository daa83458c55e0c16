"""What an operator can decide about changes on the way: header fields, and where a request may carry its token."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.settings_file import Location, SettingsConflict, SettingsModel
from gateway.http import headers

VALUE_BYTES_MAX: Final = 4096

_VALUE: Final = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
_COOKIE_NAME: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"  # a token: RFC 6265 section 4.1.1
_PARAMETER: Final = r"^[!-~]{1,64}$"

_ONE_CONNECTION: Final = headers.HOP_BY_HOP | {b"content-length", b"expect", b"trailer"}
_CODING: Final = frozenset((b"content-encoding", b"content-range"))
_TUNNEL_PREFIX: Final = b"sec-websocket-"
_WRITTEN_TO_UPSTREAMS: Final = frozenset(
    b"forwarded x-forwarded-for x-forwarded-host x-forwarded-proto via x-request-id".split()
)
_WRITTEN_TO_CLIENTS: Final = frozenset(b"date ratelimit ratelimit-policy x-request-id".split())
# By these the gateway has decided, or tells what it decided: another value upstream would be another request.
_DECIDED_BY: Final = frozenset(b"access-control-request-method idempotency-key origin traceparent tracestate".split())

_OF_ONE_CONNECTION: Final = "belongs to one connection, or says where a message ends"
_OF_THE_GATEWAY: Final = "is the gateway's own to write"


def dashed(name: str | bytes) -> bytes:
    """A field's name as it is compared: to CGI-like upstreams X_A and X-A are one."""
    return (name.encode() if isinstance(name, str) else name).lower().replace(b"_", b"-")


def _value(value: SecretStr) -> SecretStr:
    if not _VALUE.fullmatch(value.get_secret_value()):
        raise ValueError("must be visible ASCII characters, with blanks only between them")
    if len(value.get_secret_value()) > VALUE_BYTES_MAX:
        raise ValueError(f"must have at most {VALUE_BYTES_MAX} characters")
    return value


FieldValue = Annotated[SecretStr, AfterValidator(_value)]
"""It may be a secret, so it is never shown."""


def _common_fault(name: bytes) -> str | None:
    if headers.classify_response(name) == headers.INVALID:
        return "is no name of a header field"
    compared = dashed(name)
    if compared in _ONE_CONNECTION:
        return _OF_ONE_CONNECTION
    if compared.startswith(_TUNNEL_PREFIX):
        return "belongs to the opening of a tunnel"
    return None


def _request_fault(name: bytes, *, removed: bool) -> str | None:
    compared = dashed(name)
    if fault := _common_fault(name):
        return fault
    if compared == b"host":
        return "is decided by `host` of the upstream"
    if compared.startswith(headers.IDENTITY_PREFIX):
        return "tells the upstream who the caller is, which only the gateway may say"
    if compared in _WRITTEN_TO_UPSTREAMS:
        return _OF_THE_GATEWAY
    if compared == b"authorization" and not removed:
        return "is set by `credential` of the upstream"
    if compared in _CODING:
        return "says how the body is read"
    if compared == b"idempotency-key" or (compared in _DECIDED_BY and not removed):
        return "is what the gateway itself decides by"
    return None


def _answer_fault(name: bytes, *, removed: bool) -> str | None:
    compared = dashed(name)
    if fault := _common_fault(name):
        return fault
    if compared in _WRITTEN_TO_CLIENTS:
        return _OF_THE_GATEWAY
    if compared in _CODING:
        return "says how the body is read"
    if compared.startswith(headers.IDENTITY_PREFIX) and not removed:
        return "tells who the caller is, which only the gateway may say"
    return None


class _Edits(SettingsModel):
    set: dict[str, FieldValue] = Field(default={}, max_length=64)
    """Sent with this value, in place of whatever stands under the name."""
    add: dict[str, FieldValue] = Field(default={}, max_length=64)
    """Sent in addition to what stands under the name."""
    remove: tuple[str, ...] = Field(default=(), max_length=64)

    @property
    def any(self) -> bool:
        return bool(self.set or self.add or self.remove)

    @property
    def names(self) -> Iterator[tuple[Location, str]]:
        for part in ("set", "add"):
            for name in getattr(self, part):
                yield (part, name), name
        for index, name in enumerate(self.remove):
            yield ("remove", index), name

    @model_validator(mode="after")
    def _changes_what_it_may(self) -> Self:
        faults: list[tuple[Location, str]] = []
        first: dict[bytes, Location] = {}
        for at, name in self.names:
            if fault := self._fault(name.encode(), removed=at[0] == "remove"):
                faults.append((at, fault))
            elif (other := first.setdefault(dashed(name), at)) is not at:
                faults.append((at, f"is named under {other[0]}, too"))
        if faults:
            raise SettingsConflict(faults)
        return self

    def _fault(self, name: bytes, *, removed: bool) -> str | None:
        raise NotImplementedError


class RequestHeaders(_Edits):
    """Fields of the request as the upstream gets it. Names are compared without case, and `_` is as good as `-`."""

    def _fault(self, name: bytes, *, removed: bool) -> str | None:
        return _request_fault(name, removed=removed)


class ResponseHeaders(_Edits):
    """Fields of the upstream's answer as the client gets it; the gateway's own answers stay as they are."""

    def _fault(self, name: bytes, *, removed: bool) -> str | None:
        return _answer_fault(name, removed=removed)


def _credential_field(name: str) -> str:
    fault = None if dashed(name) == b"authorization" else _request_fault(name.encode(), removed=False)
    if fault:
        raise ValueError(fault)
    return name


class Credential(SettingsModel):
    """What the gateway shows an upstream in place of the client's token: `Authorization` of the client does not go on.

    It goes with requests whose token is believed, and with those of exempt routes, which ask for none."""

    header: Annotated[str, AfterValidator(_credential_field)] = "Authorization"
    value: FieldValue
    """The whole value, such as "Bearer ${UPSTREAM_KEY}"."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.value.get_secret_value():
            raise SettingsConflict([(("value",), "must not be empty")])
        return self


def _token_field(name: str) -> str:
    if headers.classify_request(name.encode()) != headers.FORWARD or dashed(name) in (
        b"cookie",
        b"sec-websocket-protocol",
    ):
        raise ValueError("must name a field of its own, which clients may send")
    return name


class TokenSources(SettingsModel):
    """Where a request may carry its token. What is named here does not go upstream. Of several tokens none counts
    (401), but for a cookie, which counts where nothing else carries one."""

    authorization: bool = True
    """`Authorization: Bearer …`, which goes upstream all the same, unless the upstream has a `credential`. false: the
    field is the upstream's, and is not looked at."""
    header: Annotated[str, AfterValidator(_token_field)] | None = None
    """A field with the token, bare or after `Bearer`."""
    cookie: Annotated[str, Field(pattern=_COOKIE_NAME)] | None = None
    """Browsers send cookies with requests of other sites, too: set it with SameSite."""

    @property
    def _carriers(self) -> Mapping[str, object]:
        return {name: value for name in type(self).model_fields if (value := getattr(self, name))}

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self._carriers:
            raise SettingsConflict([(("authorization",), "is false, and nothing else may carry a token")])
        return self


class RouteTokenSources(TokenSources):
    """Of one route, in place of the general `tokens`. A query stands in browsers' histories and in other logs, so it is
    for what cannot send fields: EventSource, and WebSocket in browsers."""

    query: Annotated[str, Field(pattern=_PARAMETER)] | None = None
    """A parameter of the query, by its decoded name."""
    subprotocol: Annotated[str, Field(pattern=_COOKIE_NAME)] | None = None
    """The entry of Sec-WebSocket-Protocol whose next entry is the token: with `bearer`, a page opens
    `new WebSocket(url, ["chat", "bearer", token])`."""

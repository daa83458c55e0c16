"""A token as text: three segments of base64url, and what JSON is in them. Pure.

Sources: RFC 7515 (JWS), RFC 8725 (best practice). Nothing here is verified yet.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any, Final

from identity.refusals import Reason, TokenRefused

TIME_SECONDS_END: Final = 10**15  # since the epoch

_TOKEN: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
UNFIT: Final = re.compile(
    r"[\x00-\x1f\x7f\ud800-\udfff]"
)  # not for a field or a log: control characters, and what has no encoding
_ABSENT: Final = object()
_MEDIA: Final = "application/"
_ACCESS_TOKEN: Final = "at+jwt"  # RFC 9068  # noqa: S105  a media type
_OTHER_KIND: Final = "+jwt"  # RFC 8725 section 3.11: secevent+jwt, logout+jwt, dpop+jwt, ...


@dataclass(slots=True)
class Compact:
    """A token whose signature nobody has looked at."""

    header: dict[str, Any]
    payload: dict[str, Any]
    signed: bytes
    """What the signature is of."""
    signature: bytes


def parse(token: bytes) -> Compact:
    """Raises TokenRefused: malformed, of another kind, or with extensions that are not supported."""
    if not (segments := _TOKEN.fullmatch(token)):
        raise TokenRefused(Reason.MALFORMED)
    header, payload, signature = [_base64url(segment) for segment in segments.groups()]
    members = _json_object(header)
    if "crit" in members or members.get("b64", True) is not True:
        raise TokenRefused(Reason.UNSUPPORTED)
    # A token within a token: what is signed would not be the claims.
    if kind_of(members, "cty") == "jwt":
        raise TokenRefused(Reason.UNSUPPORTED)
    kind = kind_of(members, "typ")
    if kind is not None and kind.endswith(_OTHER_KIND) and kind != _ACCESS_TOKEN:
        raise TokenRefused(Reason.WRONG_TYPE)
    return Compact(members, _json_object(payload), token[: segments.end(2)], signature)


def kind_of(header: dict[str, Any], name: str) -> str | None:
    """A media type of the header, in lower case and without `application/` (RFC 7515 section 4.1.9)."""
    named = text_of(header, name)
    return None if named is None else named.lower().removeprefix(_MEDIA)


def _base64url(segment: bytes) -> bytes:
    """Refuses a segment whose unused bits are set: one token would have two spellings."""
    try:
        decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except Base64Error:
        raise TokenRefused(Reason.MALFORMED) from None
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise TokenRefused(Reason.MALFORMED)
    return decoded


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        members = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenRefused(Reason.MALFORMED) from None
    if not isinstance(members, dict):
        raise TokenRefused(Reason.MALFORMED)
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member occurs twice, and parsers differ on which one counts")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# A registered member that is null has none of the types of RFC 7515 and RFC 7519: it is refused, and is not absent.


def text_of(members: dict[str, Any], name: str) -> str | None:
    """A string; None when it is absent."""
    value = members.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    if not isinstance(value, str):
        raise TokenRefused(Reason.MALFORMED)
    return value


def time_of(payload: dict[str, Any], claim: str) -> float | None:
    """A NumericDate (RFC 7519 section 2) in seconds; None when it is absent."""
    value = payload.get(claim, _ABSENT)
    if value is _ABSENT:
        return None
    if isinstance(value, float):
        if -TIME_SECONDS_END < value < TIME_SECONDS_END:
            return value
    # Compared as an integer, since it may have more digits than a float can.
    elif isinstance(value, int) and not isinstance(value, bool) and -TIME_SECONDS_END < value < TIME_SECONDS_END:
        return float(value)
    raise TokenRefused(Reason.MALFORMED)

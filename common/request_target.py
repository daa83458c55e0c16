"""The canonical request target: the one spelling of a path that is both matched against the routes and sent upstream.

A rule that is checked on one spelling and enforced on another is no rule, so a target either has one canonical
form or is refused. Sources: RFC 9112 section 3.2 (forms), RFC 3986 sections 2.3, 3.3 and 6.2.2 (normalisation).
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class TargetRefused(Exception):
    """The request target has no single reading: the request is answered 400. `reason` is fit for the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Target:
    path: bytes
    query: bytes | None  # as the client wrote it; None without a `?`
    authority: (
        bytes  # of the absolute form, else the Host field; lower case; empty when an HTTP/1.0 client named no host
    )
    sent: bytes  # the request line that goes upstream has this, where no route changes it
    encoded_slash: bool = field(default=False, compare=False)  # the path holds `%2F`, as a character like others
    unmerged: bytes | None = field(
        default=None, compare=False
    )  # the path with its empty segments; empty where dot segments make it two paths


# Percent-escapes of a canonical path: upper-case hex; no unreserved character, since that is spelt plainly; no control,
# slash or backslash, since upstreams disagree on whether those are data or structure.
_ESCAPES: Final = sorted(
    f"{octet:02X}" for octet in range(0x20, 0x100) if octet not in UNRESERVED and octet not in (0x2F, 0x5C, 0x7F)
)
_ESCAPE: Final = (
    rb"%(?:"
    + b"|".join(
        high.encode() + b"[" + b"".join(e[1:].encode() for e in _ESCAPES if e[0] == high) + b"]"
        for high in sorted({escape[0] for escape in _ESCAPES})
    )
    + b")"
)
_PLAIN: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@]*+"
# `..;x` is a dot segment to servers that strip parameters before they resolve dots, and a name to all others.
_DOTS: Final = rb"\.\.?(?:[/?]|;|%3B|\Z)"
_SEGMENT: Final = rb"/(?!/|" + _DOTS + rb")" + _PLAIN + rb"(?>(?:" + _ESCAPE + _PLAIN + rb")*)"
CANONICAL: Final = re.compile(rb"((?>(?:" + _SEGMENT + rb")+))(?:\?([!\"$-~]*+))?")
"""An origin-form target that is its own canonical form: most of all requests are decided by this one match."""

# Narrower than RFC 3986's reg-name: no name in use holds escapes or commas, two joined Host fields do.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_QUERY: Final = re.compile(rb"[!\"$-~]*")
_BAD_PATH_OCTET: Final = re.compile(rb"[\x00-\x20\x7f-\xff\\#]")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_TO_ENCODE: Final = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]")
_DOT_WITH_PARAMETER: Final = re.compile(rb"/\.\.?(?:;|%3B)")
_DOT_BESIDE_SLASH: Final = re.compile(rb"(?:/|%2F)\.\.?%2F|%2F\.\.?(?:/|%2F|;|%3B|\Z)")
_DOT_SEGMENT: Final = re.compile(rb"/\.\.?(?:/|\Z)")
ENCODED_SLASH: Final = "the path holds an encoded slash, backslash or control"


def canonical(target: bytes, host: bytes | None, method: bytes = b"GET") -> Target:
    """The canonical form of a request target. `host` is the Host field (None: an HTTP/1.0 request without one).

    Raises TargetRefused for a target or a host with no single reading.
    """
    authority = b"" if host is None else _authority(host)
    if match := CANONICAL.fullmatch(target):
        return Target(match[1], match[2], authority, target)
    if target.startswith(b"/"):
        return _origin_form(target, authority)
    if absolute := _ABSOLUTE.fullmatch(target):
        return _absolute_form(absolute, host, authority, method)
    if target == b"*":
        if method != b"OPTIONS":
            raise TargetRefused("the target * is for OPTIONS only")
        return Target(b"*", None, authority, b"*")
    raise TargetRefused("the request target is neither a path nor an http URL")


def _origin_form(target: bytes, authority: bytes) -> Target:
    raw_path, mark, query = target.partition(b"?")
    path = canonical_path(raw_path, keep_slashes=True)
    if mark and not _QUERY.fullmatch(query):
        raise TargetRefused("the query holds a blank, a control, `#` or a character beyond ASCII")
    sent = b"%b?%b" % (path, query) if mark else path
    unmerged = _unmerged(raw_path) if b"//" in raw_path else None
    return Target(path, query if mark else None, authority, sent, b"%2F" in path, unmerged)


def _absolute_form(match: re.Match[bytes], host: bytes | None, authority: bytes, method: bytes) -> Target:
    scheme, named, path = match.groups()
    named = _authority(named)
    # RFC 9112 section 3.2.2 lets a proxy prefer the target's authority. Two different hosts in one request are an
    # attempt to be routed as the one and served as the other, so they are refused.
    port = b":443" if scheme.lower() == b"https" else b":80"
    if host is not None and _without_port(named, port) != _without_port(authority, port):
        raise TargetRefused("the Host field differs from the host of the request target")
    if not path and method == b"OPTIONS":
        return Target(b"*", None, named, b"*")
    return _origin_form(path if path.startswith(b"/") else b"/" + path, named)


def _without_port(authority: bytes, port: bytes) -> bytes:
    return authority.removesuffix(port).removesuffix(b":")


def canonical_path(path: bytes, *, keep_slashes: bool = False) -> bytes:
    """The canonical spelling of an absolute path without query. Raises TargetRefused. Idempotent.

    `keep_slashes`: `%2F` is a character like others, but for one that would make dots beside it a dot segment."""
    path = _respelt(path)
    if b"%2F" in path and (not keep_slashes or _DOT_BESIDE_SLASH.search(path)):
        raise TargetRefused(ENCODED_SLASH)
    resolved: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not resolved:
                raise TargetRefused("the path leaves the root")
            resolved.pop()
        elif segment not in (b"", b"."):
            resolved.append(segment)
    directory = resolved and segments[-1] in (b"", b".", b"..")
    return b"/" + b"/".join(resolved) + (b"/" if directory else b"")


def _unmerged(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4 has `..` remove an empty segment, and whoever merges slashes a full one."""
    path = _respelt(path)
    return b"" if _DOT_SEGMENT.search(path) else path


def _respelt(path: bytes) -> bytes:
    """One spelling of each character. Raises TargetRefused."""
    if _BAD_PATH_OCTET.search(path):
        raise TargetRefused("the path holds a blank, a control, a backslash, `#` or a character beyond ASCII")
    if _BAD_ESCAPE.search(path):
        raise TargetRefused("the path holds a `%` that is not followed by two hex digits")
    path = _TO_ENCODE.sub(lambda match: b"%%%02X" % match[0][0], _ENCODED.sub(_decoded, path))
    if _DOT_WITH_PARAMETER.search(path):
        raise TargetRefused("the path holds a dot segment with a parameter")
    return path


def _decoded(match: re.Match[bytes]) -> bytes:
    octet = int(match[1], 16)
    if octet in UNRESERVED:
        return bytes((octet,))
    if octet < 0x20 or octet in (0x5C, 0x7F):
        raise TargetRefused(ENCODED_SLASH)
    return match[0].upper()


def is_host(text: bytes) -> bool:
    """Whether this is `uri-host [":" port]` (RFC 9110 section 7.2)."""
    return _HOST.fullmatch(text) is not None


def _authority(host: bytes) -> bytes:
    """What a Host field names: in lower case, without an empty port. Raises TargetRefused where `is_host` is false."""
    return _known_authority(host) if len(host) <= _REMEMBERED_BYTES_MAX else _read_authority(host)


def _read_authority(host: bytes) -> bytes:
    if not _HOST.fullmatch(host):
        raise TargetRefused("the host is not a name or an address with an optional port")
    return host.lower().removesuffix(b":")  # an empty port is none: RFC 3986 section 6.2.3


_REMEMBERED_BYTES_MAX: Final = 128
_known_authority: Final = lru_cache(maxsize=1024)(_read_authority)

"""Which pages may read what (Fetch, section 3.3, the CORS protocol). Pure.

An upstream decides who may read its answers; what the gateway adds to them is made readable for the same pages. On its
refusals the settings decide.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

ADDED: Final = (b"RateLimit", b"RateLimit-Policy", b"Retry-After", b"WWW-Authenticate", b"X-Request-Id")
"""What the gateway says in fields of its own, and no page reads without leave."""
REFUSED: Final = (*ADDED, b"Allow", b"Link")
ALLOW_ORIGIN: Final = b"access-control-allow-origin"
_EXPOSE_HEADERS: Final = b"access-control-expose-headers"
_VARY: Final = b"Vary: Origin\r\n"
_ORIGINS_MAX: Final = 1024  # of which it is remembered what they are told
_ORIGIN_BYTES_MAX: Final = 300  # a host has 253; what is longer is nobody's

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_ORIGIN: Final = re.compile(rf"(https?)://(\*\.)?({_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def checked_origin(origin: str) -> str:
    """The origin of a setting, as it is. Raises ValueError for one that no browser sends, and why."""
    if origin == "*":
        return origin
    if origin == "null":
        raise ValueError("null is any page in a sandbox and any file, so it names nobody")
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        if (lower := origin.lower()) != origin and _ORIGIN.fullmatch(lower):
            raise ValueError(f"browsers send it in lower case, so this fits nothing: write {lower}")
        if "*" in origin:
            raise ValueError(
                "a wildcard stands for one or more labels before the rest of the host: https://*.example.com"
            )
        if not origin.isascii():
            raise ValueError("browsers send such a host as xn--…: write it so")
        raise ValueError("an origin is https or http, host and port, without a trailing slash")
    scheme, wildcard, host, port = match.groups()
    if port is not None and (port == _DEFAULT_PORTS[scheme] or port[0] == "0" or int(port) > 65535):
        raise ValueError("browsers leave the scheme's own port out, and others are from 1 to 65535")
    if wildcard and host != "localhost" and ("." not in host or host.rpartition(".")[2].isdigit() or host[0] == "["):
        raise ValueError("a wildcard stands before a domain such as example.com: what is left here is no one's own")
    return origin


class Cors:
    """What a refusal tells the pages of an origin."""

    def __init__(self, allowed_origins: Iterable[str], *, credentials: bool) -> None:
        allowed = frozenset(allowed_origins)
        self._everybody = "*" in allowed
        self._exact = frozenset(origin.encode() for origin in allowed)
        self._patterns = [_pattern(origin) for origin in allowed if "*." in origin]
        self._credentials = b"Access-Control-Allow-Credentials: true\r\n" if credentials else b""
        self.unasked = _VARY if allowed and not self._everybody else b""
        """Lines of a refusal that nobody of another origin asked for: a cache must not give it to one who does."""
        self._remembered = lru_cache(_ORIGINS_MAX)(self._lines)

    def lines(self, origin: bytes) -> bytes:
        """Of a refusal, by the request's Origin."""
        return self._remembered(origin if len(origin) <= _ORIGIN_BYTES_MAX else b"")

    def _lines(self, origin: bytes) -> bytes:
        allowed = origin in self._exact or any(pattern.fullmatch(origin) for pattern in self._patterns)
        if not allowed and not self._everybody:
            return _VARY
        return b"Access-Control-Allow-Origin: %b\r\n%bAccess-Control-Expose-Headers: %b\r\n%b" % (
            b"*" if self._everybody else origin,
            self._credentials,
            b", ".join(REFUSED),
            _VARY,
        )


def _pattern(origin: str) -> re.Pattern[bytes]:
    start, _, end = origin.partition("*.")
    return re.compile(rf"{re.escape(start)}(?:{_LABEL}\.)+{re.escape(end)}".encode())


def exposing(lines: list[bytes]) -> list[bytes]:
    """Lines of an upstream's answer. Where they let pages of other origins read it, they let them read what the gateway
    adds, too. That hangs on nothing in the request, so it needs no Vary."""
    fields = [(line.partition(b":")[0].lower(), line) for line in lines]
    if not any(name == ALLOW_ORIGIN for name, _ in fields):
        return lines
    exposed = [line.partition(b":")[2] for name, line in fields if name == _EXPOSE_HEADERS]
    names = [part for value in exposed for each in value.split(b",") if (part := each.strip())]
    listed = {name.lower() for name in names}
    names += [name for name in ADDED if name.lower() not in listed]
    others = [line for name, line in fields if name != _EXPOSE_HEADERS]
    return [*others, b"Access-Control-Expose-Headers: %b\r\n" % b", ".join(names)]

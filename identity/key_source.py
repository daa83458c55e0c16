"""Where a key set is read from: a file, or an address that answers with it.

Sources: RFC 9110 section 8.4 (content codings), RFC 9111 section 5.2.2 (Cache-Control).
"""

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from identity.jwk import KeySetUnavailable

BODY_BYTES_MAX: Final = 256 * 1024
CODINGS_MAX: Final = 2  # one over the other; nobody has more
FETCH_TIMEOUT_SECONDS: Final = 5

_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's names for forms of one coding
_MAX_AGE: Final = re.compile(r'max-age="?([0-9]{1,10})"?')


@dataclass(slots=True, frozen=True)
class KeyDocument:
    body: bytes
    max_age_seconds: float | None = None
    """How long its source says that it is good; None: it does not say."""


Read = Callable[[], Awaitable[KeyDocument]]


async def read_file(path: Path) -> KeyDocument:
    """The content of a key file. Raises KeySetUnavailable."""
    try:
        body = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise KeySetUnavailable(f"it cannot be read: {error.strerror}") from None
    return KeyDocument(_bounded(body))


async def fetch(client: httpx.AsyncClient, url: str) -> KeyDocument:
    """The key set's answer. Raises KeySetUnavailable, for a redirect too: elsewhere is another issuer."""
    try:
        async with (
            asyncio.timeout(FETCH_TIMEOUT_SECONDS),
            client.stream("GET", url, headers={"accept-encoding": "gzip, deflate"}, follow_redirects=False) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise KeySetUnavailable(f"its address answered {answer.status_code}")
            body = b""
            # Raw, since a small compressed body could be a large one.
            async for part in answer.aiter_raw():
                body = _bounded(body + part)
            return KeyDocument(decoded(body, answer.headers.get("content-encoding", "")), _max_age(answer.headers))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # TimeoutError is an OSError
        raise KeySetUnavailable(f"it cannot be fetched: {type(error).__name__}") from error


def decoded(body: bytes, codings: str) -> bytes:
    """What the body is without its content codings. Raises KeySetUnavailable, also for what is too long then."""
    named = [name for name in (part.strip().lower() for part in codings.split(",")) if name not in ("", "identity")]
    if len(named) > CODINGS_MAX:
        raise KeySetUnavailable(f"it has more than {CODINGS_MAX} content codings")
    for coding in reversed(named):
        if coding in ("gzip", "x-gzip"):
            body = _inflated(body, _GZIP)
        elif coding == "deflate":
            # Named so, and meant by some without the zlib header that belongs to it.
            body = _inflated(body, _ZLIB if body[:1] and body[0] & 0x0F == 8 else _RAW)
        else:
            raise KeySetUnavailable("it has a content coding that was not asked for: only gzip and deflate are read")
    return body


def _inflated(body: bytes, form: int) -> bytes:
    found = b""
    try:
        while body:  # a gzip body is one member after the other
            member = zlib.decompressobj(form)
            found = _bounded(found + member.decompress(body, BODY_BYTES_MAX + 1 - len(found)))
            if not member.eof:
                raise KeySetUnavailable("its compressed body ends too early")
            body = member.unused_data
    except zlib.error:
        raise KeySetUnavailable("its compressed body is damaged") from None
    return found


def _bounded(body: bytes) -> bytes:
    if len(body) > BODY_BYTES_MAX:
        raise KeySetUnavailable(f"it is longer than {BODY_BYTES_MAX} bytes")
    return body


def _max_age(headers: httpx.Headers) -> float | None:
    """What is left of how long the answer is good; 0 where it must not be kept."""
    directives = [part.strip().lower() for part in headers.get("cache-control", "").split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    ages = [int(found[1]) for found in map(_MAX_AGE.fullmatch, directives) if found]
    if not ages:
        return None
    age = headers.get("age", "")
    return float(max(0, min(ages) - (int(age) if age.isdecimal() and len(age) <= 10 else 0)))

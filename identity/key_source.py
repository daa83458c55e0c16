"""Reads a key set from a file or from a URL.

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
CODINGS_MAX: Final = 2  # applied one after the other; no server uses more
FETCH_TIMEOUT_SECONDS: Final = 5

_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's names for the forms of one coding
_MAX_AGE: Final = re.compile(r'max-age="?([0-9]{1,10})"?')


@dataclass(slots=True, frozen=True)
class KeyDocument:
    body: bytes
    max_age_seconds: float | None = None
    """How long it is valid according to its source; None: the source does not say."""


Read = Callable[[], Awaitable[KeyDocument]]


async def read_file(path: Path) -> KeyDocument:
    """The content of a key file. Raises KeySetUnavailable."""
    try:
        body = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise KeySetUnavailable(f"it cannot be read: {error.strerror}") from None
    return KeyDocument(_bounded(body))


async def fetch(client: httpx.AsyncClient, url: str, *, timeout_seconds: float = FETCH_TIMEOUT_SECONDS) -> KeyDocument:
    """The document at the URL. Raises KeySetUnavailable, also for a redirect: another address may be another issuer."""
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            client.stream("GET", url, headers={"accept-encoding": "gzip, deflate"}, follow_redirects=False) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise KeySetUnavailable(f"its address answered {answer.status_code}")
            body = b""
            # Raw bytes, since a small compressed body may expand to a large one.
            async for part in answer.aiter_raw():
                body = _bounded(body + part)
            return KeyDocument(decoded(body, answer.headers.get("content-encoding", "")), _max_age(answer.headers))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # TimeoutError is an OSError
        raise KeySetUnavailable(f"it cannot be fetched: {type(error).__name__}") from error


def decoded(body: bytes, codings: str) -> bytes:
    """The body without its content codings. Raises KeySetUnavailable, also when the decoded body is too long."""
    named = [name for name in (part.strip().lower() for part in codings.split(",")) if name not in ("", "identity")]
    if len(named) > CODINGS_MAX:
        raise KeySetUnavailable(f"it has more than {CODINGS_MAX} content codings")
    for coding in reversed(named):
        if coding in ("gzip", "x-gzip"):
            body = _inflated(body, _GZIP)
        elif coding == "deflate":
            # Some servers send this coding without the zlib header that belongs to it.
            body = _inflated(body, _ZLIB if body[:1] and body[0] & 0x0F == 8 else _RAW)
        else:
            raise KeySetUnavailable("it has an unsupported content coding: only gzip and deflate are supported")
    return body


def _inflated(body: bytes, form: int) -> bytes:
    inflated = b""
    try:
        while body:  # a gzip body is a sequence of members
            member = zlib.decompressobj(form)
            inflated = _bounded(inflated + member.decompress(body, BODY_BYTES_MAX + 1 - len(inflated)))
            if not member.eof:
                raise KeySetUnavailable("its compressed body ends too early")
            body = member.unused_data
    except zlib.error:
        raise KeySetUnavailable("its compressed body is damaged") from None
    return inflated


def _bounded(body: bytes) -> bytes:
    if len(body) > BODY_BYTES_MAX:
        raise KeySetUnavailable(f"it is longer than {BODY_BYTES_MAX} bytes")
    return body


def _max_age(headers: httpx.Headers) -> float | None:
    """The seconds for which the answer is still valid; 0: it must not be stored; None: it does not say."""
    directives = [part.strip().lower() for part in headers.get("cache-control", "").split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    ages = [int(match[1]) for match in map(_MAX_AGE.fullmatch, directives) if match]
    if not ages:
        return None
    age = headers.get("age", "")
    return float(max(0, min(ages) - (int(age) if age.isdecimal() and len(age) <= 10 else 0)))

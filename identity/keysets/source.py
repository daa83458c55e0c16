"""Reads a key set from a file, and undoes the content codings of one from a URL (RFC 9110 section 8.4)."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from identity.keysets.jwk import KeySetUnavailable

BODY_BYTES_MAX: Final = 256 * 1024
CODINGS_MAX: Final = 2  # applied one after the other; no server uses more

_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's names for the forms of one coding


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
    return KeyDocument(bounded(body))


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
            inflated = bounded(inflated + member.decompress(body, BODY_BYTES_MAX + 1 - len(inflated)))
            if not member.eof:
                raise KeySetUnavailable("its compressed body ends too early")
            body = member.unused_data
    except zlib.error:
        raise KeySetUnavailable("its compressed body is damaged") from None
    return inflated


def bounded(body: bytes) -> bytes:
    """The body itself. Raises KeySetUnavailable for one that is too long."""
    if len(body) > BODY_BYTES_MAX:
        raise KeySetUnavailable(f"it is longer than {BODY_BYTES_MAX} bytes")
    return body

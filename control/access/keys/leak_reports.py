"""Keys that a scanner has found in public, in the format of GitHub's secret scanning.

https://docs.github.com/en/code-security/tutorials/secret-scanning-partner-program
"""

import asyncio
import json
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from control.settings.control_plane import LeakReports
from identity.keysets.fetch import client, fetch
from identity.keysets.jwk import KeySetUnavailable
from identity.keysets.source import read_file

log = structlog.get_logger()

FETCH_EVERY_SECONDS: Final = 30.0  # made-up identifiers cost no more than that
REPORTS_MAX: Final = 1_000  # of one request
TOKEN_CHARACTERS_MAX: Final = 512
TEXT_CHARACTERS_MAX: Final = 500


class ReportRefused(Exception):
    """The request is not signed by a key of the scanner, or is no list of what it found. The message says why."""


@dataclass(frozen=True, slots=True)
class Leak:
    token: str
    token_type: str
    url: str | None
    """Where it was found."""
    source: str | None
    """In what: `content`, `commit`, …"""

    def __repr__(self) -> str:
        return f"Leak(type={self.token_type!r})"  # the token is a secret


class PublicKeys:
    """Those of the scanner, by their identifiers; read again when an unknown one is named."""

    def __init__(self, source: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._keys: Mapping[str, EllipticCurvePublicKey] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    async def find(self, identifier: str) -> EllipticCurvePublicKey | None:
        """Raises KeySetUnavailable where none could be read at all."""
        async with self._reading:
            due = self._read_at is None or self._clock() - self._read_at >= FETCH_EVERY_SECONDS
            if identifier not in self._keys and due:
                self._read_at = self._clock()
                try:
                    self._keys = _public_keys(await self._read())
                except KeySetUnavailable as e:
                    log.warning("the scanner's public keys could not be read", reason=str(e))
        if not self._keys:
            raise KeySetUnavailable("no public key of the scanner is known")
        return self._keys.get(identifier)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _read(self) -> bytes:
        if "://" not in self._source:
            return (await read_file(Path(self._source))).body
        self._client = self._client or client()
        return (await fetch(self._client, self._source)).body


class LeakReporting:
    """Who may report leaked keys, and what is done with these."""

    def __init__(self, settings: LeakReports) -> None:
        self.revokes = settings.revoke_leaked
        self.public_keys = PublicKeys(settings.public_keys)

    async def read(self, identifier: str, signature: str, payload: bytes) -> Sequence[Leak]:
        """What is reported. Raises ReportRefused, KeySetUnavailable."""
        key = await self.public_keys.find(identifier)
        if key is None:
            raise ReportRefused("no public key of the scanner has this identifier")
        check_signature(key, signature, payload)
        return leaks_of(payload)


def _public_keys(document: bytes) -> dict[str, EllipticCurvePublicKey]:
    """Raises KeySetUnavailable."""
    try:
        listed = json.loads(document)["public_keys"]
        keys = {str(each["key_identifier"]): load_pem_public_key(each["key"].encode()) for each in listed}
    except (UnsupportedAlgorithm, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KeySetUnavailable("it holds no list of public keys") from e
    return {
        name: key
        for name, key in keys.items()
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    }


def check_signature(key: EllipticCurvePublicKey, signature: str, payload: bytes) -> None:
    """ECDSA over P-256 with SHA-256, in base64. Raises ReportRefused."""
    try:
        key.verify(b64decode(signature, validate=True), payload, ECDSA(SHA256()))
    except (InvalidSignature, Base64Error, ValueError) as e:
        raise ReportRefused("the signature is wrong") from e


def leaks_of(payload: bytes) -> Sequence[Leak]:
    """Raises ReportRefused."""
    try:
        listed = json.loads(payload)
    except (ValueError, RecursionError) as e:
        raise ReportRefused("the body is not JSON") from e
    if not isinstance(listed, list) or len(listed) > REPORTS_MAX:
        raise ReportRefused(f"the body must be a list of at most {REPORTS_MAX} objects")
    return [_leak(each) for each in listed]


def _leak(content: Any) -> Leak:
    token = content.get("token") if isinstance(content, dict) else None
    if not isinstance(token, str) or not 1 <= len(token) <= TOKEN_CHARACTERS_MAX or not token.isascii():
        raise ReportRefused(f"each object must have a token of 1 to {TOKEN_CHARACTERS_MAX} ASCII characters")
    return Leak(token, _text(content.get("type")) or "unknown", _text(content.get("url")), _text(content.get("source")))


def _text(value: object) -> str | None:
    """What can be stored and shown of a text from outside."""
    if not isinstance(value, str):
        return None
    return "".join(character for character in value[:TEXT_CHARACTERS_MAX] if character.isprintable()) or None

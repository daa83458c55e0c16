"""API keys as texts: `qg_live_<random>_<checksum>`. Pure.

The checksum is the CRC-32 of everything before its underscore, as GitHub's tokens have one: a key that is mistyped or
cut off, or a text that only looks like a key, is refused without a look-up. It proves nothing, since anyone can compute
it. No step takes longer for a text that is nearly a key: texts are bounded, and what is secret is only hashed.
"""

import re
import secrets
from binascii import crc32
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from identity.refusals import Reason, TokenRefused
from identity.settings import ApiKeySettings
from quota.access import DIGEST_BYTES

RANDOM_CHARACTERS: Final = 28  # 166 bits
CHECKSUM_CHARACTERS: Final = 6  # 62 ** 6 is more than 2 ** 32
KEY_BYTES_MAX: Final = 96  # 32 of prefix, 16 of environment, the rest
IMPORTED_BYTES_MIN: Final = 16  # shorter ones can be guessed
IMPORTED_BYTES_MAX: Final = 512

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_REST: Final = re.compile(rb"([a-z][a-z0-9]{0,15})_([0-9A-Za-z]{28})_([0-9A-Za-z]{6})")


@dataclass(slots=True)
class ParsedKey:
    """A text of a key's form whose checksum is right. Whether there is such a key only its hash can tell."""

    environment: str
    sha256: bytes
    """Of the whole text: what is stored of a key. The first 16 bytes name it in Redis (`digest16`)."""


def generate(prefix: str, environment: str) -> str:
    """A new key. It is shown once, and only `hash_of` it is stored."""
    body = f"{prefix}_{environment}_" + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return f"{body}_{checksum(body.encode())}"


def checksum(body: bytes) -> str:
    """Of the key's text up to, and without, its last underscore."""
    number, characters = crc32(body), ""
    for _ in range(CHECKSUM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        characters = _ALPHABET[digit] + characters
    return characters


def hash_of(key: bytes) -> bytes:
    """What is stored of a key, also of an imported one: SHA-256, 32 bytes. The key is random, so no salt is needed."""
    return sha256(key).digest()


def parse(key: bytes, prefix: bytes) -> ParsedKey | None:
    """None unless it has a key's form, this prefix, and the right checksum."""
    if len(key) > KEY_BYTES_MAX or not key.startswith(prefix + b"_"):
        return None
    parts = _REST.fullmatch(key, len(prefix) + 1)
    if parts is None or checksum(key[: parts.end(2)]).encode() != parts[3]:
        return None
    return ParsedKey(parts[1].decode(), hash_of(key))


class ApiKeys:
    """Which texts are API keys here, by the settings."""

    def __init__(self, settings: ApiKeySettings) -> None:
        self._enabled = settings.enabled
        self._prefix = settings.prefix.encode()
        self._start = self._prefix + b"_"
        self._environments = frozenset(settings.environments)
        self._imported = settings.imported

    def digest16(self, token: bytes) -> bytes | None:
        """The first 16 bytes of the key's SHA-256; None: the text is no API key, but may be a token.

        Raises TokenRefused for a key that needs no look-up to be refused."""
        if not self._enabled or token.count(b".") == 2:  # the compact form of a JWS
            return None
        if token.startswith(self._start):
            parsed = parse(token, self._prefix)
            if parsed is None:
                raise TokenRefused(Reason.KEY_CHECKSUM)
            if parsed.environment not in self._environments:
                raise TokenRefused(Reason.KEY_ENVIRONMENT)
            return parsed.sha256[:DIGEST_BYTES]
        if self._imported and IMPORTED_BYTES_MIN <= len(token) <= IMPORTED_BYTES_MAX:
            return hash_of(token)[:DIGEST_BYTES]
        return None

"""Refresh tokens: their form, and how one follows another. Pure.

    qgr_<family>_<generation>_<secret>_<tag>

A **family** is all refresh tokens of one life of a site; its current one has the highest **generation**.

- The **secret** of a token is derived from that of its parent and a random salt: HMAC-SHA256(parent's secret, salt).
  The database holds the current salt only, and SHA-256 of the current secret. So whoever shows the parent can be given
  the same successor again, which is stored nowhere, and nobody else can compute it: no client knows the salt, and a
  stolen database has no secret. No key of the server's is involved, so none must be kept, and replaced.
- The **tag** proves that the family once had this token: HMAC-SHA256(family's tag key, generation and secret). So every
  earlier token is recognized for as long as the family lives, in one row, and a made-up one revokes nothing. With a
  stolen tag key one could have families revoked, and use none.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Final

PREFIX: Final = "qgr"
TAG_BYTES: Final = 16
FAMILY_CHARACTERS: Final = 20
TEXT_CHARACTERS_MAX: Final = 200

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(
    rf"{PREFIX}_([0-9A-Za-z]{{{FAMILY_CHARACTERS}}})_([1-9][0-9]{{0,17}})_([A-Za-z0-9_-]{{43}})_([A-Za-z0-9_-]{{22}})"
)


class TokenMalformed(ValueError):
    """The text has not the form of a refresh token."""


@dataclass(frozen=True, slots=True, repr=False)
class RefreshToken:
    family: str
    generation: int
    secret: bytes
    tag: bytes

    @property
    def text(self) -> str:
        return f"{PREFIX}_{self.family}_{self.generation}_{_encoded(self.secret)}_{_encoded(self.tag)}"


def read(text: str) -> RefreshToken:
    """Raises TokenMalformed."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise TokenMalformed
    return RefreshToken(match[1], int(match[2]), _decoded(match[3]), _decoded(match[4]))


class Standing(Enum):
    """What a token is in its family."""

    CURRENT = "current"
    REPEATED = "repeated"
    """The parent of the current one, and the reply that had the current one may be lost."""
    REUSED = "reused"
    """An earlier one: somebody else may have it, too."""
    FOREIGN = "foreign"
    """The family never had it."""


@dataclass(frozen=True, slots=True)
class Family:
    """What is stored of a family."""

    id: str
    tag_key: bytes
    generation: int
    digest: bytes
    """SHA-256 of the current secret."""
    salt: bytes
    """With the parent's secret it makes the current one."""
    attempt: bytes | None
    """SHA-256 of what the client called the request for the current token; None: it did not say."""
    rotated_at: float
    """When the current token was made."""

    def judge(self, token: RefreshToken, attempt: str | None, now: float, grace_seconds: float) -> Standing:
        if not hmac.compare_digest(_tag(self.tag_key, token.generation, token.secret), token.tag):
            return Standing.FOREIGN
        if token.generation == self.generation:
            return Standing.CURRENT if self._is_current(token.secret) else Standing.FOREIGN
        if token.generation == self.generation - 1 and self._is_retry(token.secret, attempt, now, grace_seconds):
            return Standing.REPEATED
        return Standing.REUSED if token.generation < self.generation else Standing.FOREIGN

    def born_of(self, parent: bytes, attempt: str | None, now: float, grace_seconds: float) -> bool:
        """Whether this secret, a code's or one of another family's, made the first token, and nothing came after it
        but perhaps the loss of the reply."""
        return self.generation == 1 and self._is_retry(parent, attempt, now, grace_seconds)

    def _is_retry(self, parent: bytes, attempt: str | None, now: float, grace_seconds: float) -> bool:
        if not self._is_current(_derived(parent, self.salt)):
            return False
        # The client wrote the attempt down before it asked. Whoever names it again repeats that request, however late.
        named = attempt is not None and self.attempt is not None and _digest_of(attempt) == self.attempt
        return named or now - self.rotated_at <= grace_seconds

    def current(self, parent: bytes) -> RefreshToken:
        """The current token, for who showed what it was made of."""
        return _token(self.id, self.tag_key, self.generation, _derived(parent, self.salt))

    def rotate(self, token: RefreshToken, attempt: str | None, now: float) -> "Family":
        """The family with a successor of its current token."""
        salt = secrets.token_bytes(32)
        return replace(
            self,
            generation=self.generation + 1,
            digest=sha256(_derived(token.secret, salt)).digest(),
            salt=salt,
            attempt=None if attempt is None else _digest_of(attempt),
            rotated_at=now,
        )

    def _is_current(self, secret: bytes) -> bool:
        return hmac.compare_digest(sha256(secret).digest(), self.digest)


def begin(parent: bytes, attempt: str | None, now: float) -> Family:
    """A new family, whose first token is made of this secret."""
    salt = secrets.token_bytes(32)
    return Family(
        id="".join(secrets.choice(_ALPHABET) for _ in range(FAMILY_CHARACTERS)),
        tag_key=secrets.token_bytes(32),
        generation=1,
        digest=sha256(_derived(parent, salt)).digest(),
        salt=salt,
        attempt=None if attempt is None else _digest_of(attempt),
        rotated_at=now,
    )


def _token(family: str, tag_key: bytes, generation: int, secret: bytes) -> RefreshToken:
    return RefreshToken(family, generation, secret, _tag(tag_key, generation, secret))


def _derived(parent: bytes, salt: bytes) -> bytes:
    return hmac.digest(parent, b"quotagate refresh" + salt, "sha256")


def _tag(tag_key: bytes, generation: int, secret: bytes) -> bytes:
    return hmac.digest(tag_key, b"%d:" % generation + secret, "sha256")[:TAG_BYTES]


def _digest_of(attempt: str) -> bytes:
    return sha256(attempt.encode()).digest()


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))

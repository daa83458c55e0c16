"""A site's key, and how the site proves that it has it. Pure.

Two kinds, so that a client of any language has one:

- `ed25519:<base64url of the public key>`: the private key never leaves the site. The better one.
- `hmac-sha256:<base64url of 32 bytes>`: what HMAC of every standard library can do. The site keeps a random secret, and
  its key is SHA-256 of that. Whoever steals the database has this key, and still no refresh token.

The proof signs what is asked, with the secret that is shown and the domain, so it cannot be moved to another request.
It has no time: the secret in it is used once, and a time would lock out each site whose clock is wrong.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KEY_BYTES: Final = 32
PROOF_CHARACTERS_MAX: Final = 100


class KeyInvalid(ValueError):
    """The text is no site key."""


class KeyKind(Enum):
    ED25519 = "ed25519"
    HMAC = "hmac-sha256"


class Purpose(Enum):
    """What a proof is for, as it is signed."""

    ACTIVATE = "activate"
    REFRESH = "refresh"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, repr=False)
class SiteKey:
    kind: KeyKind
    data: bytes

    @property
    def text(self) -> str:
        return f"{self.kind.value}:{urlsafe_b64encode(self.data).rstrip(b'=').decode()}"

    def proves(self, proof: str, purpose: Purpose, secret: str, domain: str) -> bool:
        """Whether the proof was made with this key. `secret` and `domain` as the request has them."""
        try:
            signature = _decoded(proof)
        except KeyInvalid:
            return False
        message = signed_text(purpose, secret, domain)
        if self.kind is KeyKind.HMAC:
            return hmac.compare_digest(hmac.digest(self.data, message, "sha256"), signature)
        try:
            Ed25519PublicKey.from_public_bytes(self.data).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def signed_text(purpose: Purpose, secret: str, domain: str) -> bytes:
    return f"quotagate {purpose.value}\n{secret}\n{domain}".encode()


def read_key(text: str) -> SiteKey:
    """Raises KeyInvalid."""
    kind, _, data = text.partition(":")
    try:
        key = SiteKey(KeyKind(kind), _decoded(data))
    except ValueError as e:
        raise KeyInvalid("must be ed25519:… or hmac-sha256:… with 32 bytes in base64url") from e
    if len(key.data) != KEY_BYTES:
        raise KeyInvalid("must have 32 bytes")
    return key


def _decoded(text: str) -> bytes:
    if len(text) > PROOF_CHARACTERS_MAX:
        raise KeyInvalid("is too long")
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError) as e:
        raise KeyInvalid("is no base64url") from e

"""One try to sign in, bound to the browser that began it. Pure.

A random secret in a cookie is all that is kept of it: state, nonce and PKCE verifier are derived from it, each by a
hash of its own. So nothing is stored here for strangers, and an answer of the provider counts only in the browser that
asked for it (RFC 9700 section 4.7).
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

SECRET_BYTES: Final = 32
ATTEMPT_SECONDS: Final = 600
RETURN_CHARACTERS_MAX: Final = 512
START: Final = "/console"
# No `//` and no backslash, which browsers take for another host; no `..`, which leads out of our pages.
_REST: Final = re.compile(r"(?:/[A-Za-z0-9_-]+)*(?:\?[A-Za-z0-9_.~=&%:,+-]*)?")


def own_path(given: str | None, start: str = START) -> str:
    """Where to go after the sign-in: only to pages of ours, which begin with `start`."""
    if given is None or len(given) > RETURN_CHARACTERS_MAX or not given.startswith(start):
        return start
    return start if _REST.fullmatch(given, len(start)) is None else given


@dataclass(frozen=True, slots=True, repr=False)
class Attempt:
    provider: str
    """By its name in the settings."""
    return_to: str
    secret: bytes
    organization: str = ""
    """That a customer has chosen, of several; empty: none."""

    @classmethod
    def begin(cls, provider: str, return_to: str | None, start: str = START, organization: str = "") -> Self:
        return cls(provider, own_path(return_to, start), secrets.token_bytes(SECRET_BYTES), organization)

    @property
    def state(self) -> str:
        return self._derived(b"state")

    @property
    def nonce(self) -> str:
        return self._derived(b"nonce")

    @property
    def verifier(self) -> str:
        """RFC 7636 section 4.1."""
        return self._derived(b"verifier")

    def is_answered_by(self, state: str) -> bool:
        return hmac.compare_digest(self.state.encode(), state.encode())

    def to_cookie(self) -> str:
        texts = (self.return_to, self.organization)
        return ".".join((_encoded(self.secret), self.provider, *(_encoded(text.encode()) for text in texts)))

    @classmethod
    def from_cookie(cls, value: str, start: str = START) -> Self | None:
        """None where it is none of ours."""
        try:
            secret, provider, *texts = value.split(".")
            raw = _decoded(secret)
            return_to, organization = (_decoded(text).decode() for text in texts)
            if len(raw) != SECRET_BYTES:
                return None
            return cls(provider, own_path(return_to, start), raw, organization)
        except ValueError:  # UnicodeDecodeError and Base64Error are, too
            return None

    def _derived(self, purpose: bytes) -> str:
        return _encoded(hmac.digest(self.secret, purpose, sha256))


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    if not text.isascii():
        raise Base64Error
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))

"""An organization's own token -> the organization. The gateway believes the same tokens, by the same settings.

PyJWT verifies signature, `exp`, `nbf`, `iat`, `iss` and `aud`. Nothing is fetched on a token's word, and a header
that would have to be understood (`crit`) refuses it (RFC 7515 section 4.1.11).
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import jwt

from control.settings import Auth
from quota.clock import Clock, system_clock
from quota.keys import is_org

REMEMBERED_MAX = 20_000  # tokens; each takes about 200 bytes

# PyJWT also takes padding and what is no base64 at all: two spellings of one token.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class TokenRefused(Exception):
    """The token is not believed; the message is fit for the client."""


class OrganizationTokens:
    """Verified tokens are remembered by digest until they expire."""

    def __init__(self, settings: Auth, clock: Clock = system_clock) -> None:
        self._settings = settings
        self._secret = settings.secret.get_secret_value()
        self._clock = clock
        # A full young generation becomes the old one, and what that one still held unused is forgotten.
        self._young: dict[bytes, tuple[str, int]] = {}
        self._old: dict[bytes, tuple[str, int]] = {}

    def organization(self, token: str) -> str:
        """The organization that the token speaks for. Raises TokenRefused."""
        # Not the text itself: no token lies in memory for long.
        digest = sha256(token.encode()).digest()
        found = self._young.get(digest)
        if found is None:
            found = self._old.pop(digest, None) or self._verified(token)
            if len(self._young) >= REMEMBERED_MAX // 2:
                self._old, self._young = self._young, {}
            self._young[digest] = found
        org, expires_at = found
        if expires_at <= self._clock() - self._settings.leeway_seconds:
            raise TokenRefused("the token has expired")
        return org

    def _verified(self, token: str) -> tuple[str, int]:
        s = self._settings
        if not _COMPACT.fullmatch(token):
            raise TokenRefused("the token is malformed")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=list(s.algorithms),
                issuer=s.issuer,
                audience=s.audience,
                leeway=s.leeway_seconds,
                options={"require": ["exp", "iss"]},
            )
        except jwt.ExpiredSignatureError as e:
            raise TokenRefused("the token has expired") from e
        except jwt.ImmatureSignatureError as e:
            raise TokenRefused("the token is not yet valid") from e
        except jwt.InvalidIssuerError as e:
            raise TokenRefused("the token is from another issuer") from e
        except jwt.InvalidAudienceError as e:
            raise TokenRefused("the token is for another audience") from e
        except (jwt.PyJWTError, ValueError, TypeError) as e:  # the latter two: odd claims that PyJWT trips over
            raise TokenRefused("the token is not valid") from e
        org = claim_of(claims, s.org_claim)
        if isinstance(org, int) and not isinstance(org, bool):
            org = str(org)
        if not isinstance(org, str) or not is_org(org):
            raise TokenRefused("the token names no organization")
        return org, int(claims["exp"])


def claim_of(claims: Mapping[str, Any], name: str | tuple[str, ...]) -> object:
    """The claim of just this name, else what the dotted path, or the list of its steps, leads to; None: nothing."""
    if isinstance(name, str) and name in claims:
        return claims[name]
    found: object = claims
    for step in name.split(".") if isinstance(name, str) else name:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found

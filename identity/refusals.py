"""Why a token is refused: for the log and the metrics a reason, for the client a sentence and a challenge.

Sources: RFC 6750 (bearer tokens, WWW-Authenticate).
"""

from enum import StrEnum
from typing import Final

REALM: Final = "quotagate"


class Reason(StrEnum):
    """Why a token is refused, for logs and metrics. The set is closed, so a label of it is bounded."""

    MISSING = "missing"
    INVALID_REQUEST = "invalid_request"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    WRONG_ALGORITHM = "wrong_algorithm"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    NO_EXPIRY = "no_expiry"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_PARTY = "wrong_party"
    NO_ORGANIZATION = "no_organization"


DESCRIPTIONS: Final = {
    Reason.MISSING: "a bearer token is required",
    Reason.INVALID_REQUEST: "the request does not carry exactly one bearer token of at most 8 KiB",
    Reason.MALFORMED: "the token is malformed",
    Reason.UNSUPPORTED: "the token requires an extension that is not supported",
    Reason.WRONG_ALGORITHM: "the token is signed with an algorithm that is not accepted",
    Reason.UNKNOWN_KEY: "the token is signed with an unknown key",
    Reason.BAD_SIGNATURE: "the token's signature is wrong",
    Reason.NO_EXPIRY: "the token has no expiry",
    Reason.EXPIRED: "the token has expired",
    Reason.NOT_YET_VALID: "the token is not yet valid",
    Reason.WRONG_ISSUER: "the token is from another issuer",
    Reason.WRONG_AUDIENCE: "the token is for another audience",
    Reason.WRONG_PARTY: "the token was issued to another party",
    Reason.NO_ORGANIZATION: "the token names no organization",
}
"""What the client reads: characters of RFC 6750 section 3 only, and nothing of the token or of the settings."""


def _challenge(reason: Reason) -> bytes:
    challenge = f'Bearer realm="{REALM}"'
    if reason is not Reason.MISSING:  # RFC 6750 section 3.1: no error for a request that tried no token
        error = "invalid_request" if reason is Reason.INVALID_REQUEST else "invalid_token"
        challenge += f', error="{error}", error_description="{DESCRIPTIONS[reason]}"'
    return challenge.encode()


CHALLENGES: Final = {reason: _challenge(reason) for reason in Reason}


class TokenRefused(Exception):
    """The request carries no token that is trusted: 401."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(DESCRIPTIONS[reason])
        self.reason = reason

    @property
    def detail(self) -> str:
        """A sentence for the problem document."""
        description = DESCRIPTIONS[self.reason]
        return f"{description[:1].upper()}{description[1:]}."

    @property
    def challenge(self) -> bytes:
        """The value of the WWW-Authenticate field."""
        return CHALLENGES[self.reason]


class KeyRefreshDue(TokenRefused):
    """None of the known keys verifies the token, and the key set may be read again: call `KeySet.refresh_if_due()`,
    then verify once more."""

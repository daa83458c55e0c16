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
    WRONG_TYPE = "wrong_type"
    NO_KEYS = "no_keys"
    """The keys of its issuer could not be read, so it may be good: 503. A client that gets a 401 throws it away."""
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    NO_EXPIRY = "no_expiry"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_PARTY = "wrong_party"
    NO_ORGANIZATION = "no_organization"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105  the name of a reason
    SESSION_REVOKED = "session_revoked"
    USER_REVOKED = "user_revoked"
    SITE_REVOKED = "site_revoked"
    ORGANIZATION_REVOKED = "organization_revoked"
    SERVICE_TOKEN_UNKNOWN = "service_token_unknown"  # noqa: S105  the name of a reason
    KEY_UNKNOWN = "key_unknown"
    KEY_CHECKSUM = "key_checksum"
    KEY_ENVIRONMENT = "key_environment"
    KEY_DISABLED = "key_disabled"
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    KEY_ADDRESS = "key_address"
    KEY_SCOPE = "key_scope"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    INSUFFICIENT_ROLE = "insufficient_role"


FORBIDDING: Final = frozenset(
    {Reason.KEY_ADDRESS, Reason.KEY_SCOPE, Reason.INSUFFICIENT_SCOPE, Reason.INSUFFICIENT_ROLE}
)
"""403: the token or key is good, so that another one of the same caller helps no more. All others are 401."""

DESCRIPTIONS: Final = {
    Reason.MISSING: "a bearer token is required",
    Reason.INVALID_REQUEST: "the request does not carry exactly one bearer token of at most 8 KiB",
    Reason.MALFORMED: "the token is malformed",
    Reason.UNSUPPORTED: "the token requires an extension that is not supported",
    Reason.WRONG_ALGORITHM: "the token is signed with an algorithm that is not accepted",
    Reason.WRONG_TYPE: "the token is of another kind than an access token",
    Reason.NO_KEYS: "the keys of the token's issuer could not be read",
    Reason.UNKNOWN_KEY: "the token is signed with an unknown key",
    Reason.BAD_SIGNATURE: "the token's signature is wrong",
    Reason.NO_EXPIRY: "the token has no expiry",
    Reason.EXPIRED: "the token has expired",
    Reason.NOT_YET_VALID: "the token is not yet valid",
    Reason.WRONG_ISSUER: "the token is from another issuer",
    Reason.WRONG_AUDIENCE: "the token is for another audience",
    Reason.WRONG_PARTY: "the token was issued to another party",
    Reason.NO_ORGANIZATION: "the token names no organization",
    Reason.TOKEN_REVOKED: "the token has been revoked",
    Reason.SESSION_REVOKED: "the token's session has been revoked",
    Reason.USER_REVOKED: "the access of the token's user has been revoked",
    Reason.SITE_REVOKED: "the access of the token's site has been revoked",
    Reason.ORGANIZATION_REVOKED: "the tokens of the organization have been revoked",
    Reason.SERVICE_TOKEN_UNKNOWN: "the service token is unknown or has been revoked",
    Reason.KEY_UNKNOWN: "the API key is unknown",
    Reason.KEY_CHECKSUM: "the API key is mistyped or incomplete: its checksum is wrong",
    Reason.KEY_ENVIRONMENT: "the API key is for another environment",
    Reason.KEY_DISABLED: "the API key is disabled",
    Reason.KEY_REVOKED: "the API key has been revoked",
    Reason.KEY_EXPIRED: "the API key has expired",
    Reason.KEY_ADDRESS: "the API key must not be used from this address",
    Reason.KEY_SCOPE: "the API key does not allow this request",
    Reason.INSUFFICIENT_SCOPE: "the token lacks a scope that this request needs",
    Reason.INSUFFICIENT_ROLE: "the token has none of the roles that may send this request",
}
"""What the client reads: characters of RFC 6750 section 3 only, and nothing of the token or of the settings."""


def _challenge(reason: Reason) -> bytes:
    challenge = f'Bearer realm="{REALM}"'
    if reason is not Reason.MISSING:  # RFC 6750 section 3.1: no error for a request that tried no token
        error = "insufficient_scope" if reason in FORBIDDING else "invalid_token"
        if reason is Reason.INVALID_REQUEST:
            error = "invalid_request"
        challenge += f', error="{error}", error_description="{DESCRIPTIONS[reason]}"'
    return challenge.encode()


CHALLENGES: Final = {reason: _challenge(reason) for reason in Reason}


class TokenRefused(Exception):
    """The request carries no token that is trusted: 401; or one that does not allow it: 403, where `forbidden`."""

    def __init__(self, reason: Reason, scopes: str = "") -> None:
        """`scopes`: those that the request needs, separated by blanks. RFC 6750 section 3.1 has a place for them."""
        super().__init__(DESCRIPTIONS[reason])
        self.reason = reason
        self.scopes = scopes
        self.challenge = b'%b, scope="%b"' % (CHALLENGES[reason], scopes.encode()) if scopes else CHALLENGES[reason]
        """The value of the WWW-Authenticate field."""

    @property
    def forbidden(self) -> bool:
        """Whether the token is good and does not allow this: 403."""
        return self.reason in FORBIDDING

    @property
    def detail(self) -> str:
        """A sentence for the problem document."""
        description = DESCRIPTIONS[self.reason]
        needed = f": it needs {self.scopes}" if self.scopes else ""
        return f"{description[:1].upper()}{description[1:]}{needed}."


class KeyRefreshDue(TokenRefused):
    """None of the known keys of the issuer verifies the token, and its key set may be read again: call
    `Issuers.refresh_if_due(refused.issuer)`, then verify once more."""

    def __init__(self, reason: Reason, issuer: str) -> None:
        super().__init__(reason)
        self.issuer = issuer


class ApiKeyPresented(TokenRefused):
    """The request carries an API key that is not remembered: look it up, then call `TokenVerifier.remember` with what
    it speaks for. Whoever looks up no keys refuses it as unknown."""

    def __init__(self, digest16: bytes, remembered_as: bytes) -> None:
        super().__init__(Reason.KEY_UNKNOWN)
        self.digest16 = digest16
        """The first 16 bytes of the key's SHA-256: its name in Redis."""
        self.remembered_as = remembered_as
        """For `remember`."""

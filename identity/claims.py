"""Who a verified token, or a key that was looked up, speaks for."""

from dataclasses import dataclass
from typing import Final

NONE: Final[frozenset[str]] = frozenset()


@dataclass(slots=True)
class Claims:
    """The result of one verification. All requests with the token or key share it, so only its owner changes it."""

    org: str
    """The organization that is charged; matches `quota.keys.ORG_PATTERN`."""
    subject: str | None
    """`sub`: the user or client, free of control characters; None when the token names none."""
    expires_at: float
    """Seconds since the epoch after which the token is refused: `exp` and the allowed leeway."""
    signed_by: str
    """The key that signed: an id of its issuer and material. The issuer may give a `kid` to another key, so that is not
    used. Empty for an API key."""
    user: str | None = None
    """The user, from the claim that the settings name; of an API key, the one that it belongs to."""
    issued_at: float | None = None
    """`iat`, in seconds since the epoch."""
    issuer: str | None = None
    """`iss`; None for an API key."""
    token_id: str | None = None
    """`jti`."""
    session: str | None = None
    """`sid`."""
    site: str | None = None
    """The activated site, of a token that an activation was answered with."""
    roles: frozenset[str] = NONE
    scopes: frozenset[str] = NONE
    """Of a token, what its issuer let it do. Those of an API key are in its record (`quota.access`)."""
    api_key: bytes | None = None
    """The first 16 bytes of the SHA-256 of an API key; None for a token."""

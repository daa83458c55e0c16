"""Who a verified token, or a key that was looked up, speaks for."""

from dataclasses import dataclass
from typing import Final

from quota.access import KeyRecord

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

    # What a gateway keeps with it (gateway/decision/).
    path: str = ""
    """Organization, user and key, as events name them. Empty until it is named."""
    upstream_fields: bytes = b""
    """Header lines that name it to upstreams; another object whenever the path is another one."""
    log_members: bytes = b""
    """Members of a line of the access log, likewise."""
    keys_words: bytes = b""
    """Of a take, in RESP: the organization's keys."""
    take_words: bytes = b""
    """Of a take, in RESP: path and version word. Empty while it must be looked at before the next take."""
    words: bytes = b""
    """The same, where nothing but the take decides on a request; else empty."""
    version: int = 0
    """Of the organization, as it was when the principal was looked at."""
    shadow: bool = False
    """Whether its organization was in shadow mode then."""
    record: KeyRecord | None = None
    """Of an API key, as it was then."""

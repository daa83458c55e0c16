"""Who a verified token speaks for."""

from dataclasses import dataclass


@dataclass(slots=True)
class Claims:
    """The outcome of one verification, shared by all requests that carry the token: read only."""

    org: str
    """The organization that is charged; matches `quota.keys.ORG_PATTERN`."""
    subject: str | None
    """`sub`: the user or client, free of control characters; None when the token names none."""
    expires_at: float
    """Seconds since the epoch after which the token is refused: `exp` and the allowed leeway."""
    key_id: str
    """Which key signed: an id of the key's material, not the issuer's `kid`, which can be given to another key."""

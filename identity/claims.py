"""Who a verified token speaks for."""

from dataclasses import dataclass


@dataclass(slots=True)
class Claims:
    """The result of one verification. All requests with the token share it, so nobody changes it."""

    org: str
    """The organization that is charged; matches `quota.keys.ORG_PATTERN`."""
    subject: str | None
    """`sub`: the user or client, free of control characters; None when the token names none."""
    expires_at: float
    """Seconds since the epoch after which the token is refused: `exp` and the allowed leeway."""
    key_id: str
    """The key that signed: an id of its material. The issuer may give a `kid` to another key, so that is not used."""

"""Access tokens as an identity provider would issue them, signed with a shared secret."""

from datetime import timedelta

import jwt

ALGORITHM = "HS256"
ISSUER = "quotagate-dev"
AUDIENCE = "quotagate"
ORG_CLAIM = "org_id"


def mint(
    org: str,
    secret: str,
    *,
    now: float,
    ttl: timedelta,
    issuer: str = ISSUER,
    audience: str = AUDIENCE,
    org_claim: str = ORG_CLAIM,
) -> str:
    """A token for the organization, valid from `now` (seconds since the epoch) for `ttl`."""
    issued_at = int(now)
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": f"demo@{org}",
        "iat": issued_at,
        "exp": issued_at + int(ttl.total_seconds()),
        org_claim: org,
    }
    return jwt.encode(claims, secret, ALGORITHM)

"""Tokens of persons, as an organization's issuer signs them."""

import time
from typing import Any

import jwt

from devstack import token_mint
from tests.control.plane import JWT_SECRET


def token_of_person(org: str, user: str | None = None, *roles: str, **claims: Any) -> dict[str, str]:
    """The header with a token of `user` in `org`."""
    now = int(time.time())
    content = {
        "iss": token_mint.ISSUER,
        "aud": token_mint.AUDIENCE,
        "sub": user,
        "iat": now,
        "exp": now + 3600,
        token_mint.ORG_CLAIM: org,
        "roles": list(roles) or None,
        **claims,
    }
    token = jwt.encode({k: v for k, v in content.items() if v is not None}, JWT_SECRET, token_mint.ALGORITHM)
    return {"authorization": f"Bearer {token}"}

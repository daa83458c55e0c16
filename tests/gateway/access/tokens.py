"""Access tokens with the claims that a test wants."""

import time
from typing import Any

import jwt

from devstack.token_mint import AUDIENCE, ISSUER, ORG_CLAIM
from tests.gateway.rig import SECRET


def bearer(org: str = "acme", **claims: Any) -> bytes:
    """An Authorization field."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "7", "iat": now - 10, "exp": now + 3600, ORG_CLAIM: org}
    token = jwt.encode({name: value for name, value in (usual | claims).items() if value is not None}, SECRET, "HS256")
    return b"Authorization: Bearer %b\r\n" % token.encode()

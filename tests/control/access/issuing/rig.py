"""A control plane that issues tokens, and who verifies them."""

import json
import secrets
from base64 import b64encode
from typing import Any

import jwt
import pytest
from httpx import AsyncClient

from control.access.issuing.issuer import Issuer
from control.access.issuing.rotation import Rotation
from control.http.context import Context
from control.settings.control_plane import Settings
from control.settings.issuing import Issuing
from devstack import postgres

ISSUER = "https://quotagate.example.com"
MAX_AGE_SECONDS, TOKEN_SECONDS = 300, 900
MASTER_KEY = b64encode(b"m" * 32).decode()


def new_master_key() -> str:
    return b64encode(secrets.token_bytes(32)).decode()


def issuing(master_key: str = MASTER_KEY, **other: Any) -> Issuing:
    return Issuing.model_validate({"master_key": master_key, "issuer": ISSUER, **other})


@pytest.fixture
def settings(settings: Settings, postgres_dsn: str) -> Settings:
    """Each test begins without a signing key."""
    postgres.execute(postgres_dsn, "DELETE FROM signing_key")
    return settings.model_copy(update={"issuing": issuing()})


def issuer_of(context: Context) -> Issuer:
    assert context.issuer is not None
    return context.issuer


def rotation_of(context: Context) -> Rotation:
    return Rotation(context.db, issuer_of(context), context.host_clock)


async def published(client: AsyncClient) -> bytes:
    """The body of the key set."""
    answer = await client.get("/.well-known/jwks.json")
    assert answer.status_code == 200, answer.text
    return answer.content


class Refused(Exception):
    """A verifier that has this key set does not believe the token."""


def verified(token: str, key_set: bytes, now: float) -> dict[str, Any]:
    """The claims, by PyJWT alone. Raises Refused."""
    kid = jwt.get_unverified_header(token)["kid"]
    keys = {jwk["kid"]: jwk for jwk in json.loads(key_set)["keys"]}
    if kid not in keys:
        raise Refused(f"no key {kid}")
    key = jwt.PyJWK(keys[kid])
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "iat", "exp", "jti"]}
    claims = jwt.decode(token, key, algorithms=[keys[kid]["alg"]], audience="quotagate", issuer=ISSUER, options=options)
    if claims["exp"] <= now:
        raise Refused("expired")
    return claims

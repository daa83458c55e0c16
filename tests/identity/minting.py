"""Tokens and keys of a test, and verifiers that know them."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from identity.issuers import Issuers
from identity.keysets.jwk import parse_key_set
from identity.keysets.keyset import KeySet
from identity.keysets.source import KeyDocument
from identity.refusals import Reason, TokenRefused
from identity.settings import Algorithm, Auth
from identity.tokens import TokenVerifier

NOW = 1_800_000_000.0
SECRET = "a-secret-of-at-least-32-bytes-for-tests"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PUBLIC: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA")


def segment(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def payload(**changes: Any) -> dict[str, Any]:
    members = {"iss": "issuer", "aud": "quotagate", "exp": NOW + 60, "org_id": "acme", "sub": "u1", **changes}
    return {claim: value for claim, value in members.items() if value is not None}


def token(claims: dict[str, Any] | bytes | None = None, **header: Any) -> str:
    """Signed with the secret, whatever header and payload are."""
    body = payload() if claims is None else claims
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return jwt.PyJWS().encode(raw, SECRET.encode(), "HS256", headers=header or None)


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


def auth(**changes: Any) -> Auth:
    settings = {"algorithms": ("HS256",), "secret": SecretStr(SECRET), "issuer": "issuer", "audience": "quotagate"}
    return Auth(**{**settings, **changes})


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def verifier(clock: Callable[[], float] = lambda: NOW, **changes: Any) -> TokenVerifier:
    settings = auth(**changes)
    return TokenVerifier(settings, Issuers(settings).key_sets, clock)


def jwk(private: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    by_type = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm: Any = next((a for kind, a in by_type.items() if isinstance(private, kind)), OKPAlgorithm)
    made = {**algorithm.to_jwk(private.public_key(), as_dict=True), **members}
    made.pop("key_ops", None) if "key_ops" not in members else None
    return made if kid is None else {**made, "kid": kid}


def key_set(*jwks: dict[str, Any]) -> KeySet:
    async def unread() -> KeyDocument:
        raise AssertionError("a token made the gateway read keys")

    keys = KeySet(unread, auth(algorithms=PUBLIC, secret=None, jwks="https://issuer.example/keys").trusted[0])
    keys._install(parse_key_set(json.dumps({"keys": jwks}).encode(), PUBLIC))
    return keys


def public_verifier(*jwks: dict[str, Any]) -> TokenVerifier:
    settings = auth(algorithms=PUBLIC, secret=None, jwks="https://issuer.example/keys")
    return TokenVerifier(settings, {"issuer": key_set(*jwks)}, lambda: NOW)


def refusal(checker: TokenVerifier, authorization: bytes | None) -> Reason:
    with pytest.raises(TokenRefused) as refused:
        checker.verify_field(authorization)
    return refused.value.reason

"""Key pairs that sign tokens: Ed25519 or P-256. Pure, but for the randomness of a new one.

Sources: RFC 7517 (JWK), RFC 7518 section 3.4 (ES256), RFC 8037 (EdDSA), RFC 7638 (thumbprints).
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

Algorithm = Literal["EdDSA", "ES256"]
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_THUMBPRINT_MEMBERS: Final = ("crv", "kty", "x", "y")


@dataclass(frozen=True, slots=True)
class KeyPair:
    id: str
    """The thumbprint of the public key: what is published under this id is this key and no other."""
    algorithm: Algorithm
    public_jwk: dict[str, Any]
    private_key: bytes = field(repr=False)
    """PKCS #8, DER."""


def generate(algorithm: Algorithm) -> KeyPair:
    private = Ed25519PrivateKey.generate() if algorithm == "EdDSA" else ec.generate_private_key(ec.SECP256R1())
    jwk = public_jwk_of(private)
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(jwk["kid"], algorithm, jwk, der)


def algorithm_of(private: PrivateKey) -> Algorithm:
    return "EdDSA" if isinstance(private, Ed25519PrivateKey) else "ES256"


def public_jwk_of(private: PrivateKey) -> dict[str, Any]:
    public = private.public_key()
    members: Mapping[str, Any] = (
        OKPAlgorithm.to_jwk(public, as_dict=True)
        if isinstance(public, Ed25519PublicKey)
        else ECAlgorithm.to_jwk(public, as_dict=True)
    )
    material: dict[str, Any] = {name: members[name] for name in _THUMBPRINT_MEMBERS if name in members}
    return {**material, "kid": _thumbprint(material), "use": "sig", "alg": algorithm_of(private)}


def private_key_of(der: bytes) -> PrivateKey:
    """Raises ValueError for what is no such key."""
    key = serialization.load_der_private_key(der, password=None)
    if not isinstance(key, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError("it is a key of another kind")
    return key


def _thumbprint(public: dict[str, Any]) -> str:
    canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()
    return urlsafe_b64encode(sha256(canonical).digest()).rstrip(b"=").decode()

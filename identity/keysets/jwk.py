"""A JWK set -> the keys that may verify tokens here. The log says what is wrong with the others.

Sources: RFC 7517 (JWK sets), RFC 7518 (key sizes), RFC 7638 (thumbprints). PyJWT builds the keys and accepts any
`use` and `key_ops`, so this module checks what a key may be used for.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from identity.keysets.weak_keys import weakness_of_ed25519, weakness_of_rsa

# What a key may verify when its own `alg` does not say, by type and curve.
ALGORITHMS: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC P-256": ("ES256",),
    "EC P-384": ("ES384",),
    "EC P-521": ("ES512",),
    "OKP Ed25519": ("EdDSA",),
}
THUMBPRINT_MEMBERS: Final = ("crv", "e", "kty", "n", "x", "y")

log = structlog.get_logger()


class KeySetUnavailable(Exception):
    """The key set cannot be read, or holds no usable key."""


class KeyUnusable(ValueError):
    """One key of the set cannot verify tokens here; the others are not affected."""


@dataclass(slots=True, frozen=True)
class Key:
    id: str  # of the material and the algorithms, so that a key that was replaced under its `kid` has another id
    kid: str | None
    algorithms: frozenset[str]  # those that the key fits and the settings accept
    material: Any  # the argument of PyJWT's algorithm classes


def usable_key(jwk: Any, accepted: Collection[str]) -> Key:
    """A public key of a set as a verifier of the accepted algorithms. Raises KeyUnusable."""
    if not isinstance(jwk, dict):
        raise KeyUnusable("it is not a JSON object")
    kid, kty, crv, use, key_ops = (jwk.get(member) for member in ("kid", "kty", "crv", "use", "key_ops"))
    if not isinstance(kid, str | None):
        raise KeyUnusable("its kid is not a string")
    if use not in (None, "sig"):
        raise KeyUnusable("its use is not sig")
    if key_ops is not None and not (isinstance(key_ops, list) and "verify" in key_ops):
        raise KeyUnusable("its key_ops do not include verify")
    if "d" in jwk or "k" in jwk:
        raise KeyUnusable("it is a private or a symmetric key: whoever can read it can sign")
    fitting = ALGORITHMS.get("RSA" if kty == "RSA" else f"{kty} {crv}", ())
    algorithms = frozenset(name for name in fitting if name in accepted and jwk.get("alg") in (None, name))
    if not algorithms:
        raise KeyUnusable("it fits none of the accepted algorithms")
    try:
        material = PyJWK(jwk, algorithm=min(algorithms)).key
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise KeyUnusable(f"its members do not make a key ({type(error).__name__})") from None
    if (weakness := _weakness(material)) is not None:
        raise KeyUnusable(weakness)
    identity = [kid, sorted(algorithms), {member: jwk[member] for member in THUMBPRINT_MEMBERS if member in jwk}]
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Key(digest, kid, algorithms, material)


def _weakness(material: Any) -> str | None:
    """No weakness is known of keys on P-256, P-384 and P-521: cryptography accepts only points on the curve, and all of
    these have its one large order."""
    if isinstance(material, RSAPublicKey):
        numbers = material.public_numbers()
        return weakness_of_rsa(numbers.n, numbers.e)
    if isinstance(material, Ed25519PublicKey):
        return weakness_of_ed25519(material.public_bytes_raw())
    return None


def parse_key_set(body: bytes, accepted: Collection[str]) -> list[Key]:
    """The usable keys of a JWK set; the log names the others. Raises KeySetUnavailable when none is usable."""
    try:
        entries = json.loads(body)["keys"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise KeySetUnavailable('it is not a JWK set: {"keys": [...]}') from None
    keys = list(_usable_keys(entries, accepted))
    if not keys:
        raise KeySetUnavailable(f"it has no key for {', '.join(sorted(accepted))}")
    return keys


def _usable_keys(entries: list[Any], accepted: Collection[str]) -> Iterator[Key]:
    for position, jwk in enumerate(entries):
        try:
            yield usable_key(jwk, accepted)
        except KeyUnusable as reason:
            log.warning("key skipped", position=position, reason=str(reason))

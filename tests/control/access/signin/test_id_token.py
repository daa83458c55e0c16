import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from control.access.signin import id_token
from control.access.signin.id_token import AuthenticationTooWeak, IdTokenRefused, SignatureUnknown
from control.settings.signin import Provider
from identity.keysets.jwk import Key, parse_key_set

SIGNER = rsa.generate_private_key(65537, 2048)
STRANGER = rsa.generate_private_key(65537, 2048)
NOW = int(time.time())
CLAIMS: dict[str, Any] = {
    "iss": "https://issuer.example.com",
    "aud": "console",
    "sub": "ada",
    "nonce": "n",
    "iat": NOW,
    "exp": NOW + 300,
}


def provider(**other: Any) -> Provider:
    return Provider.model_validate(
        {"name": "example", "issuer": CLAIMS["iss"], "client_id": CLAIMS["aud"], "leeway_seconds": 0, **other}
    )


def public(key: rsa.RSAPrivateKey, kid: str) -> dict[str, Any]:
    return {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "key_ops": ["verify"]}


def keys() -> list[Key]:
    return parse_key_set(json.dumps({"keys": [public(SIGNER, "one")]}).encode(), ["RS256"])


def signed(key: Any = SIGNER, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> str:
    content = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(content, key, algorithm, {"kid": kid} if kid else None)


def read(token: str, settings: Provider | None = None, **other: Any) -> Any:
    asked: dict[str, Any] = {"nonce": "n", "access_token": None, "now": NOW, **other}
    return id_token.read(token, keys(), settings or provider(), **asked)


def test_a_token_of_the_provider_is_read() -> None:
    assert read(signed())["sub"] == "ada"
    assert read(signed(kid=None))["sub"] == "ada"
    assert read(signed(aud=["console"]))["sub"] == "ada"
    assert read(signed(aud=["console", "other"], azp="console"))["sub"] == "ada"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": "https://issuer.example.com/"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": ["console", "other"]},
        {"azp": "another"},
        {"nonce": "of another attempt"},
        {"nonce": None},
        {"exp": NOW - 1},
        {"exp": None},
        {"exp": "soon"},
        {"iat": None},
        {"iat": NOW + 600},
        {"nbf": NOW + 600},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "\x00"},
        {"sub": "x" * 256},
    ],
)
def test_a_claim_that_is_not_ours_refuses_the_token(claims: dict[str, Any]) -> None:
    with pytest.raises(IdTokenRefused):
        read(signed(**claims))


def test_a_signature_of_another_key_is_unknown() -> None:
    for token in (signed(STRANGER), signed(kid="two"), signed()[:-4] + "AAAA"):
        with pytest.raises(SignatureUnknown):
            read(token)


def test_only_the_algorithms_of_the_settings_are_believed() -> None:
    forged = (
        signed(None, "none"),
        signed(None, "none", kid=None),
        signed("a secret of at least thirty-two bytes", "HS256"),
        signed(algorithm="RS512"),
    )
    for token in forged:
        with pytest.raises(IdTokenRefused):
            read(token)


@pytest.mark.parametrize("token", ["", "a.b.c", "a.b", "ü", "e30.e30.", "e30.e30.e30.e30.e30"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(IdTokenRefused):
        read(token)


def test_a_token_that_belongs_to_another_access_token_is_refused() -> None:
    with pytest.raises(IdTokenRefused):
        read(signed(at_hash="AAAAAAAAAAAAAAAAAAAAAA"), access_token="access")


def test_a_second_factor_that_the_settings_ask_for_must_be_in_the_token() -> None:
    strict = provider(require_amr=["otp"], require_acr=["urn:mfa"])
    assert read(signed(amr=["pwd", "otp"], acr="urn:mfa"), strict)["sub"] == "ada"
    for claims in (
        {"amr": ["pwd"], "acr": "urn:mfa"},
        {"amr": ["otp"], "acr": "urn:password"},
        {"amr": ["otp"]},
        {"acr": "urn:mfa"},
        {},
    ):
        with pytest.raises(AuthenticationTooWeak):
            read(signed(**claims), strict)


def test_a_password_that_was_given_too_long_ago_is_not_enough() -> None:
    recent = provider(max_age_seconds=60)
    assert read(signed(auth_time=NOW - 60), recent)["sub"] == "ada"
    for claims in ({"auth_time": NOW - 61}, {"auth_time": "now"}, {}):
        with pytest.raises(IdTokenRefused):
            read(signed(**claims), recent)

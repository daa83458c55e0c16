"""Which key and which algorithm verify a token, and that no other does."""

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from identity.refusals import KeyRefreshDue, Reason
from tests.identity.minting import (
    EC_KEY,
    ED_KEY,
    RSA_KEY,
    bearer,
    jwk,
    payload,
    public_verifier,
    refusal,
    segment,
    verifier,
)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 1, ["HS256"]])
def test_a_token_without_a_real_algorithm_is_refused(algorithm: Any) -> None:
    unsigned = f"{segment({'alg': algorithm})}.{segment(payload())}."
    assert refusal(verifier(), bearer(unsigned)) == Reason.MALFORMED
    assert refusal(verifier(), bearer(unsigned + "AA")) == Reason.WRONG_ALGORITHM


def test_a_public_key_never_passes_as_a_secret() -> None:
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    text = f"{segment({'alg': 'HS256', 'kid': 'k'})}.{segment(payload())}"
    forged = f"{text}.{segment(signing.sign(text.encode(), pem))}"
    assert refusal(public_verifier(jwk(RSA_KEY, "k")), bearer(forged)) == Reason.WRONG_ALGORITHM


@pytest.mark.parametrize(
    ("private", "algorithm"), [(RSA_KEY, "RS256"), (RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")]
)
def test_each_algorithm_verifies_with_its_own_key_and_no_other(private: Any, algorithm: str) -> None:
    signed = bearer(jwt.encode(payload(), private, algorithm, headers={"kid": "k"}))
    assert public_verifier(jwk(private, "k")).verify_field(signed).org == "acme"
    for other in (RSA_KEY, EC_KEY, ED_KEY):
        if other is not private:
            assert refusal(public_verifier(jwk(other, "k")), signed) == Reason.WRONG_ALGORITHM


PUBLIC_VERIFIER = public_verifier(jwk(RSA_KEY, "rsa"), jwk(EC_KEY, "ec"), jwk(ED_KEY, "ed"))


@given(
    st.sampled_from([("RS256", "rsa"), ("PS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")]),
    st.one_of(
        st.binary(min_size=1, max_size=80), st.binary(min_size=64, max_size=64), st.binary(min_size=256, max_size=256)
    ),
)
def test_no_made_up_signature_is_believed(key: tuple[str, str], signature: bytes) -> None:
    forged = f"{segment({'alg': key[0], 'kid': key[1]})}.{segment(payload())}.{segment(signature)}"
    assert refusal(PUBLIC_VERIFIER, bearer(forged)) == Reason.BAD_SIGNATURE


def test_a_key_that_names_its_algorithm_verifies_no_other() -> None:
    signed = bearer(jwt.encode(payload(), RSA_KEY, "PS256", headers={"kid": "k"}))
    assert refusal(public_verifier(jwk(RSA_KEY, "k", alg="RS256")), signed) == Reason.WRONG_ALGORITHM


def test_a_token_without_a_key_id_is_tried_with_the_keys_that_fit() -> None:
    signed = bearer(jwt.encode(payload(), EC_KEY, "ES256"))
    assert public_verifier(jwk(RSA_KEY, "a"), jwk(EC_KEY, "b")).verify_field(signed).org == "acme"
    other = ec.generate_private_key(ec.SECP256R1())
    assert refusal(public_verifier(jwk(other, "b")), signed) == Reason.BAD_SIGNATURE


def test_keys_that_a_token_brings_along_are_not_believed_and_not_fetched() -> None:
    attacker = rsa.generate_private_key(65537, 2048)
    brought = {
        "jwk": jwk(attacker, "k"),
        "jku": "http://127.0.0.1:1/keys",
        "x5u": "http://127.0.0.1:1/cert",
        "x5c": [segment(b"certificate")],
    }
    for kid in ({}, {"kid": "k"}):
        signed = jwt.encode(payload(), attacker, "RS256", headers={**brought, **kid})
        assert refusal(public_verifier(jwk(RSA_KEY, "k")), bearer(signed)) == Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "/dev/null", "file:///etc/passwd", "http://127.0.0.1:1/", "' OR 1=1", "k\x00"]
)
def test_a_key_id_is_only_ever_compared(kid: str) -> None:
    signed = bearer(jwt.encode(payload(), RSA_KEY, "RS256", headers={"kid": kid}))
    with pytest.raises(KeyRefreshDue) as refused:
        public_verifier(jwk(RSA_KEY, "k")).verify_field(signed)
    assert refused.value.reason == Reason.UNKNOWN_KEY
    assert kid.encode() not in refused.value.challenge

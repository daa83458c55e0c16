"""A key that must not verify tokens here is skipped, and the others are kept."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from identity.keysets.jwk import KeyUnusable, parse_key_set, usable_key
from tests.identity.keysets.issuing import ACCEPTED, NEW_KEY, OLD_KEY, RSA_KEY, key_set, public


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        (public(RSA_KEY, use="enc"), "use"),
        (public(RSA_KEY, key_ops=["encrypt"]), "key_ops"),
        (public(RSA_KEY, key_ops="verify"), "key_ops"),
        (public(RSA_KEY, alg="RS512"), "fits none"),
        (public(RSA_KEY, alg="ES256"), "fits none"),
        ({**public(RSA_KEY), "kid": 7}, "kid"),
        (public(OLD_KEY, crv="P-384"), "fits none"),
        (public(OLD_KEY, x="AAAA"), "do not make a key"),
        (public(OLD_KEY, y=None), "do not make a key"),
        (public(RSA_KEY, n=5), "do not make a key"),
        (public(RSA_KEY, d="AQAB"), "private"),
        (public(rsa.generate_private_key(65537, 1024)), "2048 bits"),  # noqa: S505  that is the point
        ({"kty": "oct", "k": "c2VjcmV0"}, "symmetric"),
        ({"kty": ["RSA"]}, "fits none"),
        ({}, "fits none"),
        ([], "not a JSON object"),
        (None, "not a JSON object"),
    ],
)
def test_a_key_that_must_not_verify_tokens_here_is_skipped_and_the_others_are_kept(jwk: Any, reason: str) -> None:
    with pytest.raises(KeyUnusable, match=reason):
        usable_key(jwk, ACCEPTED)
    kept = parse_key_set(key_set(jwk, public(NEW_KEY, "new")), ACCEPTED)
    assert [key.kid for key in kept] == ["new"]


def test_a_key_keeps_only_the_algorithms_that_are_accepted_and_that_it_names() -> None:
    assert usable_key(public(RSA_KEY, use="sig"), ("RS256", "RS512", "ES256")).algorithms == {"RS256", "RS512"}
    assert usable_key(public(RSA_KEY, alg="RS512"), ("RS256", "RS512")).algorithms == {"RS512"}


MEMBERS = st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d"])
VALUES = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=3), max_size=2)


@given(st.sampled_from([public(RSA_KEY), public(OLD_KEY)]), st.dictionaries(MEMBERS, VALUES, max_size=3))
def test_a_damaged_key_is_told_and_never_more_than_that(jwk: dict[str, Any], damage: dict[str, Any]) -> None:
    try:
        key = usable_key({**jwk, **damage}, ACCEPTED)
    except KeyUnusable:
        return
    assert key.algorithms <= set(ACCEPTED)

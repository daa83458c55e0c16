"""What is no token by its form is refused, whatever its bytes are."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.refusals import Reason, TokenRefused
from quota.access import marks_of
from tests.identity.minting import bearer, payload, refusal, segment, token, verifier


@pytest.mark.parametrize("kid", [7, ["k"], {"k": 1}, None])
def test_a_key_id_that_is_no_text_is_malformed(kid: Any) -> None:
    text = f"{segment({'alg': 'HS256', 'kid': kid})}.{segment(payload())}.AAAA"
    assert refusal(verifier(), bearer(text)) == Reason.MALFORMED


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": 0}]
)
def test_extensions_that_a_token_calls_critical_are_refused(header: dict[str, Any]) -> None:
    text = f"{segment({'alg': 'HS256', **header})}.{segment(payload())}.AAAA"
    assert refusal(verifier(), bearer(text)) == Reason.UNSUPPORTED


def test_a_header_member_given_twice_is_malformed() -> None:
    header = b'{"alg": "none", "alg": "HS256"}'
    text = f"{segment(header)}.{segment(payload())}.AAAA"
    assert refusal(verifier(), bearer(text)) == Reason.MALFORMED


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text + "=",
        lambda text: text.replace(".", "=.", 1),
        lambda text: text + ".x",
        lambda text: text.rpartition(".")[0],
        lambda text: text.rpartition(".")[0] + ".",
        lambda text: "." + text,
        lambda text: text.replace(".", "..", 1),
        lambda text: text[:-1] + "!",
        lambda text: text[:-1] + "\xe9",
        lambda text: text.replace("-", "+").replace("_", "/") + "+",
        lambda text: text + "\t",
        lambda text: text + "\n",
        lambda text: text + "\x00",
    ],
)
def test_a_token_that_is_not_strict_base64url_is_malformed(damage: Callable[[str], str]) -> None:
    authorization = b"Bearer " + damage(token()).encode("latin-1")
    if authorization.endswith(b"\t"):
        assert verifier().verify_field(authorization).org == "acme"  # blanks around a field's value are no part of it
    else:
        assert refusal(verifier(), authorization) == Reason.MALFORMED


def test_a_second_spelling_of_the_same_signature_is_malformed() -> None:
    text = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 32 bytes are 42 characters and 4 bits of a 43rd, whose last 2 bits are unused.
    respelt = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    assert base64.urlsafe_b64decode(respelt.rpartition(".")[2] + "=") == base64.urlsafe_b64decode(
        text.rpartition(".")[2] + "="
    )
    assert refusal(verifier(), bearer(respelt)) == Reason.MALFORMED


SIGNED = token()


@given(st.integers(0, len(SIGNED) - 1), st.sampled_from("ABCxyz019-_.="))
def test_a_token_with_any_character_changed_is_refused(position: int, character: str) -> None:
    changed = SIGNED[:position] + character + SIGNED[position + 1 :]
    if changed != SIGNED:
        refusal(verifier(), bearer(changed))


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda raw: b"Bearer " + raw)))
def test_no_bytes_make_the_check_fail_otherwise_than_by_refusing(authorization: bytes) -> None:
    refusal(verifier(), authorization)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CLAIM_NAMES = st.sampled_from(
    ["iss", "aud", "exp", "nbf", "iat", "sub", "org_id", "jti", "sid", "site", "roles", "scope", "scp", "azp"]
)


@given(st.dictionaries(CLAIM_NAMES, JSON))
def test_no_claims_make_the_check_fail_otherwise_than_by_refusing(changes: dict[str, Any]) -> None:
    try:
        claims = verifier().verify_field(bearer(token({**payload(), **changes})))
    except TokenRefused:
        return
    assert claims.org
    texts = (claims.user, claims.token_id, claims.session, claims.site, *claims.roles, *claims.scopes)
    assert all(text is None or isinstance(text, str) for text in texts)


@pytest.mark.parametrize("claim", ["sub", "user", "jti", "sid", "site"])
def test_what_a_mark_could_name_can_be_asked_of_redis_whatever_an_issuer_lets_people_write(claim: str) -> None:
    signed = token({**payload(), claim: "\ud800"})
    try:
        claims = verifier().verify_field(bearer(signed))
    except TokenRefused:
        return
    for mark in marks_of(claims.token_id, claims.session, claims.user, claims.site):
        assert mark.field

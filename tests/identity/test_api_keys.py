"""API keys as texts: what is one, what is refused without a look-up, and that none is taken for a token."""

import random
import string
from binascii import crc32
from hashlib import sha256
from typing import Any

import pytest

from identity.api_key import ApiKeys, checksum, generate, hash_of, parse
from identity.claims import Claims
from identity.refusals import ApiKeyPresented, Reason, TokenRefused
from identity.settings import ApiKeySettings
from tests.identity.minting import NOW, bearer, refusal, token, verifier

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def keys(**changes: Any) -> ApiKeys:
    return ApiKeys(ApiKeySettings(**changes))


def key_refusal(text: str, **changes: Any) -> Reason:
    with pytest.raises(TokenRefused) as refused:
        keys(**changes).digest16(text.encode())
    return refused.value.reason


def test_a_key_says_its_environment_and_has_at_least_160_random_bits() -> None:
    made = {generate("qg", "live") for _ in range(1000)}
    assert len(made) == 1000
    for key in made:
        prefix, environment, chosen, check = key.split("_")
        assert (prefix, environment, len(check)) == ("qg", "live", 6)
        assert 62 ** len(chosen) > 2**160
        assert set(chosen + check) <= set(BASE62)


def test_the_checksum_is_the_crc_of_what_is_before_it() -> None:
    body = b"qg_live_0123456789ABCDEFGHIJabcdefgh"
    assert sum(BASE62.index(c) * 62**n for n, c in enumerate(reversed(checksum(body)))) == crc32(body)
    assert checksum(b"") == "000000"


def test_a_key_is_named_by_the_first_half_of_its_hash() -> None:
    key = generate("qg", "live").encode()
    assert hash_of(key) == sha256(key).digest()
    assert keys().digest16(key) == sha256(key).digest()[:16]
    parsed = parse(key, b"qg")
    assert parsed is not None
    assert (parsed.environment, parsed.sha256) == ("live", hash_of(key))


def test_a_mistyped_or_cut_key_is_refused_by_its_checksum() -> None:
    key, chance = generate("qg", "live"), random.Random(1)
    for at in range(3, len(key)):
        other = chance.choice([c for c in BASE62 if c != key[at]])
        assert key_refusal(key[:at] + other + key[at + 1 :]) == Reason.KEY_CHECKSUM
        assert key_refusal(key[:at]) == Reason.KEY_CHECKSUM
    for near in (key + "0", key + "\n", key.upper().replace("QG_", "qg_", 1), key + "_" + key, "qg_" + "a" * 8000):
        assert key_refusal(near) == Reason.KEY_CHECKSUM


def test_a_key_of_another_environment_is_refused_as_such() -> None:
    assert key_refusal(generate("qg", "test")) == Reason.KEY_ENVIRONMENT
    assert keys(environments=("live", "test")).digest16(generate("qg", "test").encode())


def test_the_prefix_is_that_of_the_settings() -> None:
    assert keys(prefix="acme_api").digest16(generate("acme_api", "live").encode())
    assert keys(prefix="acme").digest16(generate("qg", "live").encode()) is None


@pytest.mark.parametrize("text", ["", "abc", "qg", "qgs_live_x", "QG_live_x", " qg_live_x", "sk_live_0123456789abcdef"])
def test_another_text_is_no_key_unless_keys_are_imported(text: str) -> None:
    assert keys().digest16(text.encode()) is None
    imported = keys(imported=True).digest16(text.encode())
    assert imported == (sha256(text.encode()).digest()[:16] if len(text) >= 16 else None)


def test_an_imported_key_is_bounded_and_never_has_the_form_of_a_token() -> None:
    assert keys(imported=True).digest16(b"k" * 513) is None
    assert keys(imported=True).digest16(token().encode()) is None
    assert keys(imported=True).digest16(b"qg_live_abcdefgh.ijklmnop.qrstuvwx") is None


def test_keys_can_be_turned_off() -> None:
    assert refusal(verifier(keys={"enabled": False}), bearer(generate("qg", "live"))) == Reason.MALFORMED


def test_a_key_asks_for_a_look_up_until_it_is_remembered() -> None:
    checker, key = verifier(), generate("qg", "live")
    with pytest.raises(ApiKeyPresented) as presented:
        checker.verify_field(bearer(key))
    assert presented.value.reason == Reason.KEY_UNKNOWN, "who looks up no keys refuses it"
    assert presented.value.digest16 == hash_of(key.encode())[:16]
    claims = Claims("acme", None, NOW + 1, "", api_key=presented.value.digest16)
    checker.remember(presented.value.remembered_as, claims)
    assert checker.verify_field(bearer(key)) is claims
    with pytest.raises(ApiKeyPresented) as bare:
        checker.verify(key.encode())
    checker.remember(bare.value.remembered_as, claims)
    assert checker.verify(key.encode()) is claims


def test_a_key_that_is_remembered_and_has_expired_is_to_be_looked_up_again() -> None:
    """Its expiry may have been put off since."""
    checker, key = verifier(), generate("qg", "live")
    with pytest.raises(ApiKeyPresented) as presented:
        checker.verify_field(bearer(key))
    checker.remember(presented.value.remembered_as, Claims("acme", None, NOW, "", api_key=b"k" * 16))
    with pytest.raises(ApiKeyPresented) as again:
        checker.verify_field(bearer(key))
    assert again.value.digest16 == b"k" * 16

"""A key that is new or replaced is believed soon, and one that is withdrawn no more."""

import jwt
import pytest

from identity.keysets.keyset import RETRY_SECONDS, KeySet
from identity.refusals import KeyRefreshDue, Reason, TokenRefused
from tests.identity.keysets.issuing import (
    NEW_KEY,
    NOW,
    OLD_KEY,
    RSA_KEY,
    Issuer,
    Time,
    key_set,
    public,
    settings,
    signed,
    verified,
    verifier_with,
)


async def test_a_new_key_is_found_when_the_first_token_signed_with_it_comes(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    verifier = verifier_with(issuer.url, keys)
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    time.now = 100
    with pytest.raises(KeyRefreshDue):
        verifier.verify(signed(NEW_KEY, "new"))
    await keys.refresh_if_due()
    assert verifier.verify(signed(NEW_KEY, "new")).org == "acme"


async def test_a_key_that_is_replaced_under_its_kid_is_believed_within_thirty_seconds(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    verifier = verifier_with(issuer.url, keys)
    old, new = signed(OLD_KEY, "old"), signed(NEW_KEY, "old")
    assert verified(verifier, old) == "acme"
    issuer.body = key_set(public(NEW_KEY, "old"))
    time.now = RETRY_SECONDS - 0.1
    assert verified(verifier, new) == Reason.BAD_SIGNATURE
    await keys.refresh_if_due()
    assert issuer.asked == 1, "the last read is not 30 seconds old"
    time.now = RETRY_SECONDS
    with pytest.raises(KeyRefreshDue):
        verifier.verify(new)
    epoch = verifier.epoch
    await keys.refresh_if_due()
    assert verified(verifier, new) == "acme"
    assert verified(verifier, old) == Reason.BAD_SIGNATURE, "remembered or not, the old key is not believed any more"
    assert verifier.epoch > epoch, "what others remember of it is out of date"


async def test_a_key_without_a_kid_that_is_replaced_is_believed_within_thirty_seconds(
    issuer: Issuer, time: Time
) -> None:
    issuer.body = key_set(public(OLD_KEY))
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    verifier = verifier_with(issuer.url, keys)
    old, new = signed(OLD_KEY, None), signed(NEW_KEY, None)
    assert verified(verifier, old) == "acme"
    issuer.body = key_set(public(NEW_KEY))
    time.now = RETRY_SECONDS
    with pytest.raises(KeyRefreshDue):
        verifier.verify(new)
    await keys.refresh_if_due()
    assert (verified(verifier, new), verified(verifier, old)) == ("acme", Reason.BAD_SIGNATURE)
    await keys.close()


async def test_a_key_of_another_type_under_the_same_kid_is_believed_within_thirty_seconds(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    verifier = verifier_with(issuer.url, keys)
    claims = {"iss": "issuer", "exp": NOW + 3600, "org_id": "acme"}
    new = jwt.encode(claims, RSA_KEY, "RS256", headers={"kid": "old"}).encode()
    issuer.body = key_set(public(RSA_KEY, "old"))
    time.now = RETRY_SECONDS
    with pytest.raises(KeyRefreshDue) as refused:
        verifier.verify(new)
    assert refused.value.reason == Reason.WRONG_ALGORITHM
    await keys.refresh_if_due()
    assert verified(verifier, new) == "acme"
    assert verified(verifier, signed(OLD_KEY, "old")) == Reason.WRONG_ALGORITHM


async def test_a_key_that_is_withdrawn_takes_its_remembered_tokens_along(keys: KeySet, issuer: Issuer) -> None:
    verifier = verifier_with(issuer.url, keys)
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    assert await keys.refresh()
    for token in (signed(OLD_KEY, "old"), signed(NEW_KEY, "new")):
        verifier.verify(token)
    issuer.body = key_set(public(NEW_KEY, "new"))
    assert await keys.refresh()
    assert len(verifier._young) == 1
    with pytest.raises(TokenRefused) as refused:
        verifier.verify(signed(OLD_KEY, "old"))
    assert refused.value.reason == Reason.UNKNOWN_KEY


async def test_another_key_under_the_same_id_is_another_key(keys: KeySet, issuer: Issuer) -> None:
    verifier = verifier_with(issuer.url, keys)
    token = signed(OLD_KEY, "old")
    verifier.verify(token)
    issuer.body = key_set(public(NEW_KEY, "old"))
    assert await keys.refresh()
    with pytest.raises(TokenRefused) as refused:
        verifier.verify(token)
    assert refused.value.reason == Reason.BAD_SIGNATURE

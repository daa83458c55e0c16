from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import digest

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from control.access.activation.site_keys import KeyInvalid, KeyKind, Purpose, SiteKey, read_key, signed_text

SECRET, DOMAIN = "qgr_a_1_b_c", "https://example.com"
TEXT = signed_text(Purpose.REFRESH, SECRET, DOMAIN)
PRIVATE = Ed25519PrivateKey.generate()
OF_HMAC = SiteKey(KeyKind.HMAC, sha256(b"a secret of the site").digest())
OF_PAIR = SiteKey(KeyKind.ED25519, PRIVATE.public_key().public_bytes_raw())


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


PROOFS = {OF_HMAC: base64url(digest(OF_HMAC.data, TEXT, "sha256")), OF_PAIR: base64url(PRIVATE.sign(TEXT))}


@pytest.mark.parametrize("key", PROOFS)
def test_a_proof_is_for_one_purpose_one_secret_and_one_domain(key: SiteKey) -> None:
    proof = PROOFS[key]
    assert key.proves(proof, Purpose.REFRESH, SECRET, DOMAIN)
    assert read_key(key.text) == key
    assert not key.proves(proof, Purpose.RELEASE, SECRET, DOMAIN)
    assert not key.proves(proof, Purpose.REFRESH, SECRET + "x", DOMAIN)
    assert not key.proves(proof, Purpose.REFRESH, SECRET, "https://other.example.com")
    other = OF_PAIR if key is OF_HMAC else OF_HMAC
    assert not other.proves(proof, Purpose.REFRESH, SECRET, DOMAIN)


@pytest.mark.parametrize("key", PROOFS)
@given(st.text(max_size=120))
def test_a_proof_that_is_none_proves_nothing_and_is_no_fault(key: SiteKey, proof: str) -> None:
    assert not key.proves(proof, Purpose.REFRESH, SECRET, DOMAIN)


@pytest.mark.parametrize(
    "text",
    ["", "ed25519", "ed25519:", "rsa:AAAA", f"ed25519:{base64url(b'x' * 31)}", f"hmac-sha256:{base64url(b'x' * 33)}",
     "hmac-sha256:!!!", "ed25519:" + "A" * 5000, "ed25519:ä"],
)  # fmt: skip
def test_what_is_no_site_key_is_refused(text: str) -> None:
    with pytest.raises(KeyInvalid):
        read_key(text)

"""Which tokens are believed. One test a token, each refused for the reason that is told."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from identity.bearer import TOKEN_BYTES_MAX
from identity.claims import Claims
from identity.jwk import Key, parse_key_set
from identity.key_source import KeyDocument
from identity.keysets import KeySet
from identity.refusals import CHALLENGES, KeyRefreshDue, Reason, TokenRefused
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
    told = {"iss": "issuer", "aud": "quotagate", "exp": NOW + 60, "org_id": "acme", "sub": "u1", **changes}
    return {claim: value for claim, value in told.items() if value is not None}


def token(claims: dict[str, Any] | bytes | None = None, **header: Any) -> str:
    """Signed with the secret, whatever header and payload are."""
    body = payload() if claims is None else claims
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return jwt.PyJWS().encode(raw, SECRET.encode(), "HS256", headers=header or None)


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


def auth(**changes: Any) -> Auth:
    told = {"algorithms": ("HS256",), "secret": SecretStr(SECRET), "issuer": "issuer", "audience": "quotagate"}
    return Auth(**{**told, **changes})


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class FieldVerifier(TokenVerifier):
    """Of the value of an Authorization field."""

    def verify(self, authorization: bytes | None) -> Claims:
        return self.verify_field(authorization)


def verifier(clock: Callable[[], float] = lambda: NOW, **changes: Any) -> FieldVerifier:
    settings = auth(**changes)
    return FieldVerifier(settings, KeySet.of(settings), clock)


def jwk(private: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    by_type = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm: Any = next((a for kind, a in by_type.items() if isinstance(private, kind)), OKPAlgorithm)
    told = {**algorithm.to_jwk(private.public_key(), as_dict=True), **members}
    told.pop("key_ops", None) if "key_ops" not in members else None
    return told if kid is None else {**told, "kid": kid}


def key_set(*jwks: dict[str, Any]) -> KeySet:
    async def unread() -> KeyDocument:
        raise AssertionError("a token made the gateway read keys")

    keys = KeySet(unread, auth(algorithms=PUBLIC, secret=None, jwks="https://issuer.example/keys"))
    keys._install(parse_key_set(json.dumps({"keys": jwks}).encode(), PUBLIC))
    return keys


def public_verifier(*jwks: dict[str, Any]) -> FieldVerifier:
    settings = auth(algorithms=PUBLIC, secret=None, jwks="https://issuer.example/keys")
    return FieldVerifier(settings, key_set(*jwks), lambda: NOW)


def refusal(checker: FieldVerifier, authorization: bytes | None) -> Reason:
    with pytest.raises(TokenRefused) as refused:
        checker.verify(authorization)
    return refused.value.reason


def test_a_valid_token_speaks_for_its_organization_until_it_expires() -> None:
    claims = verifier(leeway_seconds=5).verify(bearer(token()))
    assert (claims.org, claims.subject, claims.expires_at) == ("acme", "u1", NOW + 65)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer ", "Bearer  "])
def test_the_scheme_is_compared_without_case(scheme: str) -> None:
    assert verifier().verify(f"{scheme} {token()}".encode()).org == "acme"


def test_a_token_without_its_scheme_is_refused_also_when_it_was_met_elsewhere() -> None:
    checker = TokenVerifier(auth(), KeySet.of(auth()), lambda: NOW)
    told = token().encode()
    assert checker.verify(told) == checker.verify_field(bearer(token()))
    with pytest.raises(TokenRefused) as refused:
        checker.verify_field(told)
    assert refused.value.reason is Reason.MISSING


@pytest.mark.parametrize("authorization", [None, b"", b"Basic dTpw", b"Bearertoken", b"Digest x"])
def test_a_request_without_a_bearer_token_is_asked_for_one_and_told_no_error(authorization: bytes | None) -> None:
    assert refusal(verifier(), authorization) == Reason.MISSING
    assert CHALLENGES[Reason.MISSING] == b'Bearer realm="quotagate"'


@pytest.mark.parametrize("authorization", [b"Bearer", b"Bearer ", b"Bearer a b", b"Bearer a,Bearer b"])
def test_a_damaged_authorization_field_is_an_invalid_request(authorization: bytes) -> None:
    assert refusal(verifier(), authorization) == Reason.INVALID_REQUEST


def test_a_token_over_8_kib_is_an_invalid_request() -> None:
    assert refusal(verifier(), b"Bearer " + b"a" * 8193) == Reason.INVALID_REQUEST
    assert refusal(verifier(), b"Bearer " + b"a" * 8192) == Reason.MALFORMED
    assert refusal(verifier(), b"Bearer " + b" " * 100_000) == Reason.INVALID_REQUEST
    assert TOKEN_BYTES_MAX == 8192


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (payload(exp=None), Reason.NO_EXPIRY),
        (payload(exp=NOW - 60), Reason.EXPIRED),
        (payload(exp=str(NOW + 60)), Reason.MALFORMED),
        (payload(exp=True), Reason.MALFORMED),
        (payload(exp=10**400), Reason.MALFORMED),
        (payload(exp=1e300), Reason.MALFORMED),
        (payload(exp=1e15), Reason.MALFORMED),
        (payload(exp=-1), Reason.EXPIRED),
        (payload(exp=-1e300), Reason.MALFORMED),
        (payload(exp=[NOW + 60]), Reason.MALFORMED),
        ({**payload(), "exp": None}, Reason.MALFORMED),
        ({**payload(), "nbf": None}, Reason.MALFORMED),
        ({**payload(), "iat": None}, Reason.MALFORMED),
        ({**payload(), "iss": None}, Reason.WRONG_ISSUER),
        ({**payload(), "aud": None}, Reason.WRONG_AUDIENCE),
        ({**payload(), "sub": None}, Reason.MALFORMED),
        (payload(nbf=True), Reason.MALFORMED),
        (payload(iat=1e300), Reason.MALFORMED),
        (payload(iat={}), Reason.MALFORMED),
        (payload(nbf=NOW + 60), Reason.NOT_YET_VALID),
        (payload(iat=NOW + 60), Reason.NOT_YET_VALID),
        (payload(nbf="now"), Reason.MALFORMED),
        (payload(iss=None), Reason.WRONG_ISSUER),
        (payload(iss="other"), Reason.WRONG_ISSUER),
        (payload(iss=["issuer"]), Reason.WRONG_ISSUER),
        (payload(aud=None), Reason.WRONG_AUDIENCE),
        (payload(aud="other"), Reason.WRONG_AUDIENCE),
        (payload(aud=["other"]), Reason.WRONG_AUDIENCE),
        (payload(aud={"quotagate": 1}), Reason.WRONG_AUDIENCE),
        (payload(aud=["quotagate", 1]), Reason.WRONG_AUDIENCE),
        (payload(org_id=None), Reason.NO_ORGANIZATION),
        (payload(org_id=""), Reason.NO_ORGANIZATION),
        (payload(org_id="a b"), Reason.NO_ORGANIZATION),
        (payload(org_id="a\r\nX-Quota-Org: b"), Reason.NO_ORGANIZATION),
        (payload(org_id="a" * 129), Reason.NO_ORGANIZATION),
        (payload(org_id=True), Reason.NO_ORGANIZATION),
        (payload(org_id=1.5), Reason.NO_ORGANIZATION),
        (payload(org_id=-1), Reason.NO_ORGANIZATION),
        (payload(org_id={"id": "acme"}), Reason.NO_ORGANIZATION),
        (payload(sub=7), Reason.MALFORMED),
        (payload(sub="a\nb"), Reason.MALFORMED),
        (payload(sub="\ud800"), Reason.MALFORMED),
        (b"[]", Reason.MALFORMED),
        (b"acme", Reason.MALFORMED),
        (b'{"exp": 1', Reason.MALFORMED),
        (b'{"exp": NaN}', Reason.MALFORMED),
        (b'{"exp": Infinity}', Reason.MALFORMED),
        (b'{"org_id": "tiny", "org_id": "acme"}', Reason.MALFORMED),
        (b'{"org_id": "tiny", "org\\u005fid": "acme"}', Reason.MALFORMED),
        (b'{"a": [{"b": 1, "b": 2}]}', Reason.MALFORMED),
        (b"\xef\xbb\xbf{}", Reason.MALFORMED),
        (b"{}{}", Reason.MALFORMED),
        (b'{"exp": 01}', Reason.MALFORMED),
        (b'{"exp": ' + b"9" * 5000 + b"}", Reason.MALFORMED),
        (b'{"o": ' + 3000 * b"[", Reason.MALFORMED),
        ('{"iss": "issuer"}'.encode("utf-16"), Reason.MALFORMED),
        (b"\xff", Reason.MALFORMED),
    ],
)
def test_a_signed_token_with_unusable_claims_is_refused_with_the_reason(
    claims: dict[str, Any] | bytes, reason: Reason
) -> None:
    assert refusal(verifier(), bearer(token(claims))) == reason
    assert b'error="invalid_token", error_description="' in CHALLENGES[reason]


def test_every_reason_is_told_in_the_characters_that_the_field_allows() -> None:
    for reason in Reason:
        description = CHALLENGES[reason].partition(b'error_description="')[2].removesuffix(b'"')
        assert not set(description) - set(range(0x20, 0x7F)) | set(description) & set(b'"\\')


def test_the_leeway_holds_for_exp_and_nbf() -> None:
    checker = verifier(leeway_seconds=5)
    assert checker.verify(bearer(token(payload(exp=NOW - 4.5)))).org == "acme"
    assert refusal(checker, bearer(token(payload(exp=NOW - 5)))) == Reason.EXPIRED
    assert checker.verify(bearer(token(payload(nbf=NOW + 5)))).org == "acme"
    assert refusal(checker, bearer(token(payload(nbf=NOW + 5.5)))) == Reason.NOT_YET_VALID


@pytest.mark.parametrize("audience", ["quotagate", ["other", "quotagate"]])
def test_one_common_audience_is_enough(audience: str | list[str]) -> None:
    assert verifier(audience=("quotagate", "api")).verify(bearer(token(payload(aud=audience)))).org == "acme"


def test_without_a_configured_audience_a_token_for_someone_is_refused() -> None:
    assert verifier(audience=None).verify(bearer(token(payload(aud=None)))).org == "acme"
    assert verifier(audience=None).verify(bearer(token(payload(aud=[])))).org == "acme"
    audiences: tuple[Any, ...] = ("quotagate", ["quotagate"], "", {}, 0, False)
    for audience in audiences:
        assert refusal(verifier(audience=None), bearer(token(payload(aud=audience)))) == Reason.WRONG_AUDIENCE
    assert refusal(verifier(audience=None), bearer(token({**payload(), "aud": None}))) == Reason.WRONG_AUDIENCE


def test_a_session_token_of_clerk_is_believed_from_the_pages_that_the_settings_name() -> None:
    session = {
        "azp": "https://app.example.com",
        "exp": NOW + 60,
        "fva": [5, -1],
        "iat": NOW,
        "iss": "https://clerk.example.com",
        "jti": "1234567890",
        "nbf": NOW - 10,
        "o": {"id": "org_123", "rol": "admin", "slg": "acme"},
        "pla": "u:free,o:pro",
        "sid": "sess_123",
        "sts": "active",
        "sub": "user_123",
        "v": 2,
    }
    clerk: dict[str, Any] = {"issuer": "https://clerk.example.com", "audience": None, "org_claim": "o.id"}
    anywhere = verifier(**clerk)
    assert (anywhere.verify(bearer(token(session))).org) == "org_123"
    from_pages = verifier(**clerk, authorized_parties=("https://app.example.com", "https://www.example.com"))
    assert from_pages.verify(bearer(token(session))).org == "org_123"
    unnamed = {name: value for name, value in session.items() if name != "azp"}
    assert from_pages.verify(bearer(token(unnamed))).org == "org_123", "as Clerk's own SDKs have it"
    for azp in ("https://evil.example.com", "https://app.example.com/", ""):
        assert refusal(from_pages, bearer(token({**session, "azp": azp}))) == Reason.WRONG_PARTY
    assert refusal(from_pages, bearer(token({**session, "azp": None}))) == Reason.MALFORMED
    personal = {name: value for name, value in session.items() if name != "o"}
    assert refusal(from_pages, bearer(token(personal))) == Reason.NO_ORGANIZATION


@pytest.mark.parametrize(
    ("org_claim", "claims"),
    [
        ("o.id", {"o": {"id": "acme", "rol": "admin"}}),
        ("o.id", {"o.id": "acme", "o": {"id": "other"}}),
        (("o", "id"), {"o.id": "other", "o": {"id": "acme"}}),
        ("https://issuer.example/org", {"https://issuer.example/org": "acme"}),
    ],
)
def test_the_organization_is_found_where_the_settings_say(org_claim: Any, claims: dict[str, Any]) -> None:
    assert verifier(org_claim=org_claim).verify(bearer(token({**payload(org_id=None), **claims}))).org == "acme"


@pytest.mark.parametrize("claims", [{}, {"o": None}, {"o": "id"}, {"o": []}, {"o": {}}])
def test_a_path_that_leads_nowhere_names_no_organization(claims: dict[str, Any]) -> None:
    checker = verifier(org_claim="o.id")
    assert refusal(checker, bearer(token({**payload(), **claims}))) == Reason.NO_ORGANIZATION


def test_an_organization_may_be_a_number() -> None:
    assert verifier().verify(bearer(token(payload(org_id=42)))).org == "42"


def test_a_token_may_name_no_subject() -> None:
    assert verifier().verify(bearer(token(payload(sub=None)))).subject is None


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
    assert public_verifier(jwk(private, "k")).verify(signed).org == "acme"
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
    assert public_verifier(jwk(RSA_KEY, "a"), jwk(EC_KEY, "b")).verify(signed).org == "acme"
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
        public_verifier(jwk(RSA_KEY, "k")).verify(signed)
    assert refused.value.reason == Reason.UNKNOWN_KEY
    assert kid.encode() not in refused.value.challenge


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
        assert verifier().verify(authorization).org == "acme"  # blanks around a field's value are no part of it
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
CLAIM_NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "org_id"])


@given(st.dictionaries(CLAIM_NAMES, JSON))
def test_no_claims_make_the_check_fail_otherwise_than_by_refusing(changes: dict[str, Any]) -> None:
    try:
        claims = verifier().verify(bearer(token({**payload(), **changes})))
    except TokenRefused:
        return
    assert claims.org


class Counting:
    """Keys that count how often a signature was about to be checked."""

    def __init__(self) -> None:
        self.asked = 0

    due = False

    def find(self, kid: str | None) -> tuple[Key, ...]:
        self.asked += 1
        return (Key("secret", None, frozenset({"HS256"}), SECRET.encode()),)

    def on_removed(self, callback: Callable[[Any], None]) -> None:
        self.forget = callback


def test_a_token_is_verified_once_until_it_expires() -> None:
    clock, keys = Clock(), Counting()
    checker = FieldVerifier(auth(leeway_seconds=5), keys, clock)
    signed = bearer(token(payload(exp=NOW + 60)))
    for _ in range(3):
        checker.verify(signed)
    clock.now = NOW + 64.9
    checker.verify(signed)
    assert keys.asked == 1
    clock.now = NOW + 65
    assert refusal(checker, signed) == Reason.EXPIRED


def test_a_refused_token_is_not_remembered_as_good() -> None:
    clock, keys = Clock(), Counting()
    checker = FieldVerifier(auth(), keys, clock)
    early = bearer(token(payload(nbf=NOW + 30)))
    assert refusal(checker, early) == Reason.NOT_YET_VALID
    clock.now = NOW + 30
    assert checker.verify(early).org == "acme"


def test_the_cache_is_bounded_and_keeps_what_is_in_use() -> None:
    keys = Counting()
    checker = FieldVerifier(auth(cache_entries_max=8), keys, lambda: NOW)
    busy = bearer(token())
    for number in range(50):
        checker.verify(bearer(token(payload(sub=str(number)))))
        checker.verify(busy)
    assert len(checker._young) + len(checker._old) <= 8
    assert keys.asked == 51


def test_tokens_of_a_removed_key_are_examined_again() -> None:
    keys = Counting()
    checker = FieldVerifier(auth(), keys, lambda: NOW)
    checker.verify(bearer(token()))
    keys.forget({"another key"})
    checker.verify(bearer(token()))
    assert keys.asked == 1
    keys.forget({"secret"})
    checker.verify(bearer(token()))
    assert keys.asked == 2

"""What a token must say to be believed. One test a claim, each refused for the reason that is told."""

from typing import Any

import pytest

from identity.bearer import TOKEN_BYTES_MAX
from identity.refusals import CHALLENGES, Reason, TokenRefused
from tests.identity.minting import NOW, bearer, payload, refusal, token, verifier


def test_a_valid_token_speaks_for_its_organization_until_it_expires() -> None:
    claims = verifier(leeway_seconds=5).verify_field(bearer(token()))
    assert (claims.org, claims.subject, claims.expires_at) == ("acme", "u1", NOW + 65)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer ", "Bearer  "])
def test_the_scheme_is_compared_without_case(scheme: str) -> None:
    assert verifier().verify_field(f"{scheme} {token()}".encode()).org == "acme"


def test_a_token_without_its_scheme_is_refused_also_when_it_was_met_elsewhere() -> None:
    checker = verifier()
    encoded = token().encode()
    assert checker.verify(encoded) == checker.verify_field(bearer(token()))
    with pytest.raises(TokenRefused) as refused:
        checker.verify_field(encoded)
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
    assert checker.verify_field(bearer(token(payload(exp=NOW - 4.5)))).org == "acme"
    assert refusal(checker, bearer(token(payload(exp=NOW - 5)))) == Reason.EXPIRED
    assert checker.verify_field(bearer(token(payload(nbf=NOW + 5)))).org == "acme"
    assert refusal(checker, bearer(token(payload(nbf=NOW + 5.5)))) == Reason.NOT_YET_VALID


@pytest.mark.parametrize("audience", ["quotagate", ["other", "quotagate"]])
def test_one_common_audience_is_enough(audience: str | list[str]) -> None:
    assert verifier(audience=("quotagate", "api")).verify_field(bearer(token(payload(aud=audience)))).org == "acme"


def test_without_a_configured_audience_a_token_for_someone_is_refused() -> None:
    assert verifier(audience=None).verify_field(bearer(token(payload(aud=None)))).org == "acme"
    assert verifier(audience=None).verify_field(bearer(token(payload(aud=[])))).org == "acme"
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
    assert (anywhere.verify_field(bearer(token(session))).org) == "org_123"
    from_pages = verifier(**clerk, authorized_parties=("https://app.example.com", "https://www.example.com"))
    assert from_pages.verify_field(bearer(token(session))).org == "org_123"
    unnamed = {name: value for name, value in session.items() if name != "azp"}
    assert from_pages.verify_field(bearer(token(unnamed))).org == "org_123", "as Clerk's own SDKs have it"
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
    assert verifier(org_claim=org_claim).verify_field(bearer(token({**payload(org_id=None), **claims}))).org == "acme"


@pytest.mark.parametrize("claims", [{}, {"o": None}, {"o": "id"}, {"o": []}, {"o": {}}])
def test_a_path_that_leads_nowhere_names_no_organization(claims: dict[str, Any]) -> None:
    checker = verifier(org_claim="o.id")
    assert refusal(checker, bearer(token({**payload(), **claims}))) == Reason.NO_ORGANIZATION


def test_an_organization_may_be_a_number() -> None:
    assert verifier().verify_field(bearer(token(payload(org_id=42)))).org == "42"


def test_a_token_may_name_no_subject() -> None:
    assert verifier().verify_field(bearer(token(payload(sub=None)))).subject is None

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from httpx import AsyncClient

from control.access.callers import Caller, Callers
from control.access.tokens import OrganizationTokens, TokenRefused, claim_of
from control.settings import Auth
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET

AUTH: dict[str, Any] = {
    "algorithms": ["HS256"],
    "secret": JWT_SECRET,
    "issuer": "quotagate-dev",
    "audience": "quotagate",
}


def auth(**other: Any) -> OrganizationTokens:
    return OrganizationTokens(Auth.model_validate({**AUTH, **other}))


def signed(
    secret: str = JWT_SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any
) -> str:
    now = int(time.time())
    content = {"iss": "quotagate-dev", "aud": "quotagate", "exp": now + 86_400, "org_id": "acme", **claims}
    return jwt.encode({k: v for k, v in content.items() if v is not None}, secret, algorithm, headers)


def test_a_believed_token_names_its_organization() -> None:
    assert auth().organization(signed()) == "acme"
    assert auth().organization(signed(org_id=42)) == "42"
    assert auth(org_claim="o.id").organization(signed(o={"id": "globex"})) == "globex"
    assert auth(audience=None).organization(signed(aud=None)) == "acme"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (signed(secret="x" * 40), "not valid"),
        (signed(exp=int(time.time()) - 60), "expired"),
        (signed(exp=None), "not valid"),
        (signed(nbf=int(time.time()) + 86_400), "not yet valid"),
        (signed(iat=int(time.time()) + 86_400), "not yet valid"),
        (signed(iss="somebody"), "another issuer"),
        (signed(iss=None), "not valid"),
        (signed(aud="something"), "another audience"),
        (signed(aud=None), "not valid"),
        (signed(org_id=None), "no organization"),
        (signed(org_id="../acme"), "no organization"),
        (signed(org_id=["acme"]), "no organization"),
        (signed(org_id=True), "no organization"),
        (signed(secret=JWT_SECRET * 2, algorithm="HS512"), "not valid"),
        (signed(headers={"crit": ["exp"]}), "not valid"),
        ("", "malformed"),
        ("a.b", "malformed"),
        ("a.b.c", "not valid"),
        (signed() + "=", "malformed"),
        (" " + signed(), "malformed"),
    ],
)
def test_any_other_token_is_refused_with_the_reason(token: str, why: str) -> None:
    with pytest.raises(TokenRefused, match=why):
        auth().organization(token)


def test_an_unsigned_token_is_refused() -> None:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    claims = {"iss": "quotagate-dev", "aud": "quotagate", "exp": int(time.time()) + 60, "org_id": "acme"}
    for algorithm in ("none", "None", "nOnE"):
        with pytest.raises(TokenRefused):
            auth().organization(f"{part({'alg': algorithm})}.{part(claims)}.")


@pytest.mark.parametrize(
    ("claims", "name", "found"),
    [
        ({"org_id": "a"}, "org_id", "a"),
        ({"o": {"id": "a"}}, "o.id", "a"),
        ({"o.id": "a", "o": {"id": "b"}}, "o.id", "a"),
        ({"https://x.example/org": {"id": "a"}}, ("https://x.example/org", "id"), "a"),
        ({"o": "text"}, "o.id", None),
        ({}, "o.id", None),
    ],
)
def test_the_organization_claim_is_found_by_name_path_or_steps(
    claims: dict[str, Any], name: str | tuple[str, ...], found: object
) -> None:
    assert claim_of(claims, name) == found


def test_the_admin_token_speaks_for_all_and_nothing_near_it_does() -> None:
    callers = Callers(ADMIN_TOKEN, auth())
    assert callers.identify(ADMIN_TOKEN) == Caller("admin", None)
    for wrong in (ADMIN_TOKEN[:-1], ADMIN_TOKEN + "x", ADMIN_TOKEN.upper(), "", "ü"):
        with pytest.raises(TokenRefused):
            callers.identify(wrong)
    with pytest.raises(TokenRefused):
        Callers(ADMIN_TOKEN, None).identify(signed())


async def documented(client: AsyncClient) -> list[tuple[str, str]]:
    document = (await client.get("/openapi.json")).json()
    some_id = "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"
    fill = {"{org}": "acme", "{grant}": some_id, "{incident}": some_id}
    found = []
    for path, methods in document["paths"].items():
        for name, value in fill.items():
            path = path.replace(name, value)
        assert "{" not in path
        found += [(method.upper(), path) for method in methods]
    return found


async def test_every_documented_endpoint_refuses_who_has_no_token(nobody: AsyncClient) -> None:
    guarded = [(m, p) for m, p in await documented(nobody) if not p.startswith("/-/")]
    assert len(guarded) >= 11
    for method, path in guarded:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {ADMIN_TOKEN}"}):
            response = await nobody.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"].startswith('Bearer realm="quotagate"')
            assert response.json()["type"] == "urn:quotagate:problem:token-refused"


async def test_an_organizations_token_reads_its_own_and_changes_nothing(
    nobody: AsyncClient, token_of: Callable[..., str]
) -> None:
    headers = {"authorization": f"Bearer {token_of('acme')}"}
    own = {
        ("GET", "/v1/entitlements/acme"),
        ("GET", "/v1/organizations/acme"),
        ("GET", "/v1/organizations/acme/grants"),
        ("GET", "/v1/organizations/acme/invoices"),
        ("GET", "/v1/organizations/acme/billing-entries"),
        ("GET", "/v1/usage"),
    }
    for method, path in await documented(nobody):
        if path.startswith("/-/") or path == "/v1/plans":
            continue
        bodies = [None, {"name": "Acme"}, {"plan": "bulk"}]
        for body in bodies:
            response = await nobody.request(method, path, headers=headers, json=body)
            # It may report usage, but none of these is a record of it.
            assert response.status_code in ({200, 404} if (method, path) in own else {403, 415, 422}), (method, path)
        other = path.replace("acme", "globex") if "acme" in path else f"{path}?org=globex"
        assert (await nobody.request(method, other, headers=headers, json=None)).status_code == 403, (method, other)


async def test_an_expired_token_is_refused_with_the_reason(nobody: AsyncClient, token_of: Callable[..., str]) -> None:
    token = token_of("acme", now=time.time() - 7200, ttl=timedelta(hours=1))
    response = await nobody.get("/v1/entitlements/acme", headers={"authorization": f"Bearer {token}"})
    assert response.status_code == 401
    assert 'error="invalid_token", error_description="the token has expired"' in response.headers["www-authenticate"]


def test_a_token_that_was_verified_once_is_refused_when_it_has_expired_and_stays_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, now = Auth.model_validate(AUTH), time.time()
    verifier, token = OrganizationTokens(settings, lambda: now), signed()
    assert [verifier.organization(token) for _ in range(2)] == ["acme", "acme"]
    now += 86_400 + settings.leeway_seconds + 1
    with pytest.raises(TokenRefused, match="expired"):
        verifier.organization(token)
    now = time.time()
    monkeypatch.setattr("control.access.tokens.REMEMBERED_MAX", 4)
    for n in range(20):
        assert verifier.organization(signed(org_id=f"org-{n}")) == f"org-{n}"
    assert len(verifier._young) + len(verifier._old) <= 4
    assert verifier.organization(token) == "acme"
    with pytest.raises(TokenRefused):
        verifier.organization(f"{token}x")

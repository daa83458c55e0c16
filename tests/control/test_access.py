import re
import time
from datetime import timedelta
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from httpx import ASGITransport, AsyncClient

from control.access.callers import Caller, Callers, Kind
from control.access.guesses import Guesses
from control.access.organization_tokens import OrganizationTokens
from control.access.people import members
from control.access.people.service_tokens import ServiceTokens
from control.access.permissions import ALL
from control.access.standing import Standings
from control.app import build, opened
from control.http.context import Context
from control.http.guards import PUBLIC
from control.settings.control_plane import Settings
from devstack.ports import free_port
from identity.refusals import TokenRefused
from identity.settings import Auth
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET, TokenOf

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


async def test_the_admin_token_speaks_for_all_and_nothing_near_it_does(context: Context) -> None:
    service_tokens = ServiceTokens(context.db, ADMIN_TOKEN, context.host_clock)
    role_of = partial(members.role_of, context.db)
    standings = Standings(context.db, context.ledger)
    callers = Callers(service_tokens, auth(), Guesses(), role_of, standings)
    assert await callers.identify(ADMIN_TOKEN.encode(), "203.0.113.1") == Caller("admin", None, ALL, Kind.SERVICE_TOKEN)
    for wrong in (ADMIN_TOKEN[:-1], ADMIN_TOKEN + "x", ADMIN_TOKEN.upper(), "", "ü"):
        with pytest.raises(TokenRefused):
            await callers.identify(wrong.encode(), "203.0.113.1")
    with pytest.raises(TokenRefused):
        await Callers(service_tokens, None, Guesses(), role_of, standings).identify(signed().encode(), "203.0.113.1")


async def documented(client: AsyncClient) -> list[tuple[str, str]]:
    document = (await client.get("/openapi.json")).json()
    some_id = "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"
    fill = {"{org}": "acme", "{signing_key}": "k" * 43}
    operations = []
    for path, methods in document["paths"].items():
        for name, value in fill.items():
            path = path.replace(name, value)
        path = re.sub(r"\{\w+\}", some_id, path)
        operations += [(method.upper(), path) for method in methods if (method.upper(), path) not in PUBLIC]
    return operations


async def test_every_documented_endpoint_refuses_who_has_no_token(nobody: AsyncClient) -> None:
    guarded = [(m, p) for m, p in await documented(nobody) if not p.startswith("/-/")]
    assert len(guarded) >= 11
    for method, path in guarded:
        for headers in ({}, {"authorization": "Bearer a.b.c"}, {"authorization": f"Basic {ADMIN_TOKEN}"}):
            response = await nobody.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"].startswith('Bearer realm="quotagate"')
            assert response.json()["type"] == "urn:quotagate:problem:token-refused"


async def test_an_organizations_token_reads_its_own_and_changes_nothing(nobody: AsyncClient, token_of: TokenOf) -> None:
    headers = {"authorization": f"Bearer {token_of('acme')}"}
    own = {
        ("GET", "/v1/decisions"),
        ("GET", "/v1/decisions/01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"),
        ("GET", "/v1/entitlements/acme"),
        ("GET", "/v1/entitlements/acme/history"),
        ("GET", "/v1/organizations/acme"),
        ("GET", "/v1/organizations/acme/caps"),
        ("GET", "/v1/organizations/acme/forecast"),
        ("GET", "/v1/organizations/acme/grants"),
        ("GET", "/v1/organizations/acme/invoices"),
        ("GET", "/v1/organizations/acme/billing-entries"),
        ("POST", "/v1/organizations/acme/portal-sessions"),
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
        status = (await nobody.request(method, other, headers=headers, json=None)).status_code
        assert status == 403 or (status == 422 and other.endswith("?org=globex")), (method, other)


async def test_an_expired_token_is_refused_with_the_reason(nobody: AsyncClient, token_of: TokenOf) -> None:
    token = token_of("acme", now=time.time() - 7200, ttl=timedelta(hours=1))
    response = await nobody.get("/v1/entitlements/acme", headers={"authorization": f"Bearer {token}"})
    assert response.status_code == 401
    assert 'error="invalid_token", error_description="the token has expired"' in response.headers["www-authenticate"]


async def test_while_no_key_can_be_read_a_client_is_told_to_come_back(settings: Settings) -> None:
    keys = {**AUTH, "algorithms": ["RS256"], "jwks": f"http://127.0.0.1:{free_port()}/keys", "secret": None}
    changed = settings.model_copy(update={"auth": Auth.model_validate(keys)})
    async with opened(changed) as context:
        transport = ASGITransport(build(context))
        async with AsyncClient(transport=transport, base_url="http://control") as client:
            for method, path in (("GET", "/v1/organizations/acme"), ("POST", "/v1/usage")):
                answer = await client.request(method, path, headers={"authorization": f"Bearer {unread()}"})
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
                assert answer.json()["type"] == "urn:quotagate:problem:keys-unavailable"
            admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            assert (await client.get("/v1/plans", headers=admin)).status_code == 200


def unread() -> str:
    """A token whose key nobody has read."""
    key = rsa.generate_private_key(65537, 2048)
    return jwt.encode(
        {"iss": AUTH["issuer"], "org_id": "acme", "exp": int(time.time()) + 600}, key, "RS256", {"kid": "one"}
    )

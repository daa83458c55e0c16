"""Tokens that the control plane issues, and the documents that say how they are verified."""

import json
from typing import Any

import pytest
from httpx import AsyncClient

from control.access.callers import Caller, Kind
from control.access.permissions import (
    ADMIN_PERMISSIONS,
    ORGANIZATION_PERMISSIONS,
    AdminRole,
    OrganizationRole,
    Permissions,
)
from control.app import opened
from control.http.context import Context
from control.settings.control_plane import Settings
from control.settings.issuing import Issuing
from devstack import postgres
from tests.control.access.issuing.rig import ISSUER, MAX_AGE_SECONDS, TOKEN_SECONDS, issuer_of, published, verified
from tests.control.plane import MovedClock, admin_of


async def test_a_token_says_what_was_asked_for_and_nothing_else(
    context: Context, admin: AsyncClient, clock: MovedClock
) -> None:
    issuer, now = issuer_of(context), int(clock.now)
    minted = await issuer.mint(
        "acme", user="u1", site="s1", roles=["admin", "member"], scopes=["route:a", "meter:b"], seconds=60
    )
    expected = {"iss": ISSUER, "aud": "quotagate", "org_id": "acme", "iat": now, "exp": now + 60, "sub": "u1"}
    expected |= {"site": "s1", "roles": ["admin", "member"], "scope": "route:a meter:b", "jti": minted.token_id}
    assert verified(minted.token, await published(admin), clock.now) == expected
    assert (minted.expires_s, minted.token in repr(minted)) == (now + 60, False)
    plain = verified((await issuer.mint("acme")).token, await published(admin), clock.now)
    assert plain.keys() == {"iss", "aud", "org_id", "iat", "exp", "jti"}


async def test_no_token_lives_longer_than_the_settings_allow(context: Context, clock: MovedClock) -> None:
    for seconds in (None, TOKEN_SECONDS, 10 * TOKEN_SECONDS):
        assert (await issuer_of(context).mint("acme", seconds=seconds)).expires_s == int(clock.now) + TOKEN_SECONDS


async def test_an_admin_gets_a_token_of_an_organization_and_the_journal_has_all_but_the_token(
    admin: AsyncClient, clock: MovedClock, postgres_dsn: str
) -> None:
    await admin.put("/v1/organizations/acme", json={"name": "Acme"})
    body = {"user": "u1", "roles": ["admin"], "scopes": ["route:a"], "seconds": 120}
    answer = await admin.post("/v1/organizations/acme/tokens", json=body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    claims = verified(answer.json()["token"], await published(admin), clock.now)
    assert (claims["org_id"], claims["sub"], claims["exp"] - claims["iat"]) == ("acme", "u1", 120)
    assert claims["jti"] == answer.json()["token_id"]
    [entry] = [
        e for e in (await admin.get("/v1/organizations/acme/journal")).json()["entries"] if e["after"].get("token_id")
    ]
    assert (entry["action"], entry["after"]["token_id"], entry["after"]["user"]) == (
        "token.issued",
        claims["jti"],
        "u1",
    )
    signature = answer.json()["token"].rpartition(".")[2]
    assert signature not in postgres.execute(postgres_dsn, "SELECT * FROM audit_journal")


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": TOKEN_SECONDS + 1},
        {"seconds": 0},
        {"seconds": True},
        {"scopes": ["two words"]},
        {"scopes": ['a"b']},
        {"roles": ["ä"]},
        {"user": ""},
        {"user": "a\nb"},
        {"org": "globex"},
        {"roles": ["r"] * 21},
    ],
)
async def test_what_no_token_may_say_is_refused(admin: AsyncClient, wrong: dict[str, object]) -> None:
    await admin.put("/v1/organizations/acme", json={"name": "Acme"})
    answer = await admin.post("/v1/organizations/acme/tokens", json=wrong)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:quotagate:problem:invalid")


async def test_no_token_is_issued_for_an_organization_that_is_not_there(admin: AsyncClient) -> None:
    answer = await admin.post("/v1/organizations/nobody/tokens", json={})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:quotagate:problem:organization-unknown")


async def test_everybody_may_read_the_key_set_and_keep_it_for_as_long_as_it_says(nobody: AsyncClient) -> None:
    answer = await nobody.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == f"public, max-age={MAX_AGE_SECONDS}"
    [key] = answer.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "kid", "use", "alg"}, "and no private part"
    for name in ("openid-configuration", "oauth-authorization-server"):
        document = (await nobody.get(f"/.well-known/{name}")).json()
        assert (document["issuer"], document["jwks_uri"]) == (ISSUER, f"{ISSUER}/.well-known/jwks.json")


async def test_the_key_set_is_answered_while_the_database_is_away_and_asks_it_once_a_second_at_most(
    context: Context, nobody: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, issuer = await published(nobody), issuer_of(context)
    reads, monotonic = [0], [1000.0]
    read = issuer.keys.read

    async def counted() -> object:
        reads[0] += 1
        return await read()

    monkeypatch.setattr(issuer.keys, "read", counted)
    monkeypatch.setattr(issuer, "_monotonic", lambda: monotonic[0])
    issuer.forget()
    for _ in range(50):
        assert await published(nobody) == known
    assert reads == [1]
    await context.db._pool.close()  # as where the server is gone
    for _ in range(3):
        monotonic[0] += 6
        for _ in range(20):
            assert json.loads(await published(nobody)) == json.loads(known)
    assert reads == [4], "and a database that does not answer is not asked by each request"


async def test_without_a_master_key_nothing_is_issued_and_each_answer_says_so(
    settings: Settings, clock: MovedClock
) -> None:
    async with opened(settings.model_copy(update={"issuing": Issuing()}), clock) as context, admin_of(context) as admin:
        await admin.put("/v1/organizations/acme", json={"name": "Acme"})
        for method, path, status in (
            ("GET", "/.well-known/jwks.json", 404),
            ("GET", "/.well-known/openid-configuration", 404),
            ("GET", "/v1/signing-keys", 409),
            ("POST", "/v1/signing-keys", 409),
            ("POST", "/v1/organizations/acme/tokens", 409),
        ):
            answer = await admin.request(method, path, json={} if path.endswith("/tokens") else None)
            assert (answer.status_code, answer.json()["reason"]) == (status, "not_issuing"), path


def may(org: str | None, permissions: Permissions, **said: Any) -> Caller:
    return Caller("somebody", org, permissions, Kind.ORGANIZATION_TOKEN, **said)


_COOK = may(
    "acme",
    ORGANIZATION_PERMISSIONS[OrganizationRole.ADMIN],
    roles=frozenset({"admin", "cook"}),
    scopes=frozenset({"eat"}),
)
_ISSUED_HERE = may("acme", ORGANIZATION_PERMISSIONS[OrganizationRole.ADMIN], issuer=ISSUER)
"""Who could have others issued by it for ever."""


@pytest.mark.parametrize(
    ("caller", "body", "status"),
    [
        (may(None, ADMIN_PERMISSIONS[AdminRole.ADMIN]), {"user": "u1", "roles": ["owner"]}, 201),
        (may("acme", ORGANIZATION_PERMISSIONS[OrganizationRole.OWNER]), {"user": "u1", "roles": ["owner"]}, 201),
        (may("acme", ORGANIZATION_PERMISSIONS[OrganizationRole.ADMIN]), {"roles": ["admin", "cook"]}, 403),
        (_COOK, {"roles": ["admin", "cook"], "scopes": ["eat"]}, 201),
        (_COOK, {"roles": ["cook"], "scopes": ["eat", "drink"]}, 403),
        (_ISSUED_HERE, {"roles": ["admin"]}, 403),
        (may("acme", ORGANIZATION_PERMISSIONS[OrganizationRole.ADMIN]), {"roles": ["owner"]}, 403),
        (may("acme", ORGANIZATION_PERMISSIONS[OrganizationRole.ADMIN]), {"roles": ["org:owner"]}, 403),
        (may("acme", ORGANIZATION_PERMISSIONS[OrganizationRole.ADMIN]), {"user": "u1"}, 403),
        (may("acme", ORGANIZATION_PERMISSIONS[OrganizationRole.MEMBER]), {}, 403),
        (may("globex", ORGANIZATION_PERMISSIONS[OrganizationRole.OWNER]), {}, 403),
    ],
)
async def test_a_token_can_do_no_more_than_who_asks_for_it(
    context: Context,
    admin: AsyncClient,
    caller: Caller,
    body: dict[str, object],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await admin.put("/v1/organizations/acme", json={"name": "Acme"})

    async def identified(token: bytes, client: str) -> Caller:
        return caller

    monkeypatch.setattr(context.callers, "identify", identified)
    assert (await admin.post("/v1/organizations/acme/tokens", json=body)).status_code == status

"""Sessions of the portal: who may open one, what it may do, and everything that ends it. tests/browser uses them as a
person does."""

import asyncio
from hashlib import sha256
from typing import Any

import pytest
from httpx import AsyncClient

from control.access.lifetimes import Seen
from control.access.permissions import OrganizationRole
from control.access.portal.sessions import Customer
from control.access.signin.same_origin import token_of
from control.http.context import Context
from control.http.signed_in import PORTAL_COOKIE, SESSION_COOKIE
from control.moments import moment
from tests.control.access.signin.test_sessions import begun as signed_in_to_console
from tests.control.plane import Entitled, MovedClock

SEEN = Seen("203.0.113.1", "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0")
OWN_PAGE = {"sec-fetch-site": "same-origin"}


async def begun(context: Context, org: str, role: str = "member", user: str | None = None) -> str:
    at = moment(context.clock())
    customer = Customer(org, user, OrganizationRole(role), "service:shop", at)
    return await context.portal.begin(customer, SEEN, None, "test")


def of(secret: str) -> dict[str, str]:
    return OWN_PAGE | {"cookie": f"{PORTAL_COOKIE}={secret}", "x-csrf-token": token_of(secret)}


async def opens(client: AsyncClient, secret: str, org: str) -> int:
    return (await client.get(f"/v1/entitlements/{org}", headers=of(secret))).status_code


async def link(admin: AsyncClient, org: str, **content: Any) -> str:
    made = await admin.post("/v1/portal-sessions", json={"org": org, **content})
    assert made.status_code == 201, made.text
    return str(made.json()["url"].partition("code=")[2])


async def test_a_session_reads_its_own_organization_and_no_other(
    context: Context, nobody: AsyncClient, entitled: Entitled
) -> None:
    own, other = await entitled(), await entitled()
    secret = await begun(context, own, "owner")
    assert await opens(nobody, secret, own) == 200
    assert await opens(nobody, secret, other) == 403
    assert (await nobody.get("/v1/organizations", headers=of(secret))).status_code == 403
    assert (await nobody.get("/v1/usage", headers=of(secret))).json()["org"] == own


@pytest.mark.parametrize("role", list(OrganizationRole))
async def test_a_session_may_what_its_role_may(
    context: Context, nobody: AsyncClient, entitled: Entitled, role: OrganizationRole
) -> None:
    org = await entitled()
    secret = await begun(context, org, role.value)
    made = await nobody.post(f"/v1/organizations/{org}/keys", json={}, headers=of(secret))
    assert (made.status_code == 201) is (role is not OrganizationRole.MEMBER)
    owner = await nobody.put(f"/v1/organizations/{org}/members/u1", json={"role": "owner"}, headers=of(secret))
    assert (owner.status_code == 201) is (role is OrganizationRole.OWNER)


async def test_a_call_with_a_session_of_the_portal_must_come_from_a_page_of_ours(
    context: Context, nobody: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    secret = await begun(context, org, "owner")
    cookie, token = {"cookie": f"{PORTAL_COOKIE}={secret}"}, {"x-csrf-token": token_of(secret)}
    for headers in (
        {},
        token,
        OWN_PAGE,
        {"sec-fetch-site": "same-site"} | token,
        {"origin": "https://shop.example.com"} | token,
        OWN_PAGE | {"x-csrf-token": token_of("another")},
    ):
        answer = await nobody.post(f"/v1/organizations/{org}/keys", json={}, headers=cookie | headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_page")


async def test_the_role_of_a_member_counts_and_not_what_the_link_said(
    context: Context, nobody: AsyncClient, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    members = f"/v1/organizations/{org}/members"
    await admin.put(f"{members}/user_1", json={"role": "admin"})
    made = await admin.post("/v1/portal-sessions", json={"org": org, "user": "user_1", "role": "owner"})
    assert made.json()["role"] == "admin"
    secret = await begun(context, org, "owner", "user_1")
    listed = f"/v1/organizations/{org}/keys"
    assert (await nobody.get(listed, headers=of(secret))).status_code == 200
    await admin.put(f"{members}/user_1", json={"role": "member"})
    assert (await nobody.get(listed, headers=of(secret))).status_code == 403


async def test_a_session_ends_with_its_member(
    context: Context, nobody: AsyncClient, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    member = f"/v1/organizations/{org}/members/user_1"
    await admin.put(member, json={"role": "admin"})
    code = await link(admin, org, user="user_1")
    secret, other = await begun(context, org, user="user_1"), await begun(context, org, user="user_2")
    await admin.delete(member)
    assert await opens(nobody, secret, org) == 401
    assert await opens(nobody, other, org) == 200
    late = await context.portal.use_link(code)
    assert late is not None
    assert await opens(nobody, await context.portal.begin(late, SEEN, None, "test"), org) == 401


async def test_a_session_ends_with_its_organization(
    context: Context, nobody: AsyncClient, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    secret = await begun(context, org)
    assert (await admin.delete(f"/v1/organizations/{org}")).status_code == 204
    assert await opens(nobody, secret, org) == 401
    assert (await admin.post("/v1/portal-sessions", json={"org": org})).status_code == 404


@pytest.mark.parametrize("kind", ["user", "session", "organization"])
async def test_a_session_ends_with_a_revocation_of_what_it_carries(
    context: Context, nobody: AsyncClient, admin: AsyncClient, entitled: Entitled, kind: str
) -> None:
    org = await entitled()
    secret = await begun(context, org, user="user_1")
    session = await context.portal.find(secret)
    assert session is not None
    subject = {"user": "user_1", "session": str(session.row.id), "organization": None}[kind]
    body = {"kind": kind, "subject": subject, "issued_until_now": True}
    marked = await admin.post(f"/v1/organizations/{org}/revocations", json=body)
    assert marked.status_code == 201, marked.text
    assert await opens(nobody, secret, org) == 401


async def test_an_admin_lists_and_ends_sessions(
    context: Context, nobody: AsyncClient, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    secret = await begun(context, org, "admin", "user_1")
    await begun(context, org, "member", "user_2")
    listed = (await admin.get("/v1/portal-sessions", params={"org": org, "user": "user_1"})).json()["sessions"]
    assert [(each["user"], each["role"], each["opened_by"]) for each in listed] == [("user_1", "admin", "service:shop")]
    assert (await admin.delete(f"/v1/portal-sessions/{listed[0]['id']}")).status_code == 204
    assert await opens(nobody, secret, org) == 401
    assert (await admin.delete(f"/v1/portal-sessions/{listed[0]['id']}")).status_code == 404
    async with context.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT action, actor FROM audit_journal WHERE org = $1 AND action LIKE 'portal%' ORDER BY id", org
        )
    began = [("portal_session.began", f"org:{org}/u:user_{n}") for n in (1, 2)]
    assert [tuple(row) for row in rows] == [*began, ("portal_session.ended", "admin")]


async def test_a_session_that_is_not_used_ends(
    context: Context, nobody: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled()
    secret = await begun(context, org)
    for _ in range(11):
        clock.move(minutes=59)
        assert await opens(nobody, secret, org) == 200
    clock.move(minutes=61)
    assert await opens(nobody, secret, org) == 401


async def test_a_session_ends_in_any_case(
    context: Context, nobody: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled()
    secret = await begun(context, org)
    for _ in range(23):
        clock.move(minutes=30)
        assert await opens(nobody, secret, org) == 200
    clock.move(minutes=31)
    assert await opens(nobody, secret, org) == 401


async def test_of_two_uses_of_a_link_at_once_one_comes_in(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    code = await link(admin, await entitled())
    used = await asyncio.gather(*(context.portal.use_link(code) for _ in range(10)))
    assert len([each for each in used if each is not None]) == 1


async def test_a_link_is_good_for_minutes(
    context: Context, admin: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    codes = [await link(admin, await entitled()) for _ in range(2)]
    clock.move(minutes=4)
    assert await context.portal.use_link(codes[0]) is not None
    clock.move(minutes=2)
    assert await context.portal.use_link(codes[1]) is None


async def test_of_secrets_of_the_portal_only_hashes_are_stored(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    secret, code = await begun(context, org), await link(admin, org)
    async with context.db.connection() as connection:
        stored = ""
        for table in ("portal_session", "portal_link", "audit_journal"):
            stored += str(await connection.fetch(f"SELECT t::text FROM {table} t"))
    assert secret not in stored
    assert code not in stored
    assert sha256(secret.encode()).hexdigest() in stored
    assert sha256(code.encode()).hexdigest() in stored


async def test_a_browser_may_have_a_session_of_the_console_and_one_of_the_portal(
    context: Context, nobody: AsyncClient, entitled: Entitled
) -> None:
    """What changes something is done by the session whose page asks for it."""
    org, other = await entitled(), await entitled()
    admin, customer = await signed_in_to_console(context), await begun(context, org, "owner")
    both = OWN_PAGE | {"cookie": f"{SESSION_COOKIE}={admin}; {PORTAL_COOKIE}={customer}"}
    for secret, expected in ((admin, 201), (customer, 403)):
        headers = both | {"x-csrf-token": token_of(secret)}
        made = await nobody.post(f"/v1/organizations/{other}/keys", json={}, headers=headers)
        assert made.status_code == expected
    ended = OWN_PAGE | {"cookie": f"{SESSION_COOKIE}=over; {PORTAL_COOKIE}={customer}"}
    assert (await nobody.get(f"/v1/entitlements/{org}", headers=ended)).status_code == 200
    assert (await nobody.get(f"/v1/entitlements/{other}", headers=ended)).status_code == 403


async def test_a_session_passes_on_no_scope(context: Context, nobody: AsyncClient, entitled: Entitled) -> None:
    """What routes ask for is given by the organization's issuer."""
    org = await entitled()
    secret = await begun(context, org, "admin")
    path = f"/v1/organizations/{org}/activation-codes"
    refused = await nobody.post(path, json={"scopes": ["write"]}, headers=of(secret))
    assert refused.status_code == 403, refused.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"org": "no such\n"},
        {"org": "acme", "role": "root"},
        {"org": "acme", "user": ""},
        {"org": "acme", "return_url": "javascript:alert(1)"},
        {"org": "acme", "return_url": "/portal"},
        {"org": "acme", "until": "2099"},
    ],
)
async def test_a_link_for_nobody_is_refused(admin: AsyncClient, body: dict[str, Any]) -> None:
    await admin.put("/v1/organizations/acme", json={"name": "Acme"})
    assert (await admin.post("/v1/portal-sessions", json=body)).status_code == 422

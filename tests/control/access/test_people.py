"""Users, members, admin roles, and the end of an organization."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient, Response

from control.access.people import admin_roles, members
from control.access.permissions import ADMIN_PERMISSIONS, AdminRole, OrganizationRole
from control.http.context import Context
from quota.access import Mark, MarkKind, refusing
from tests.control.access.keys import created
from tests.control.access.persons import token_of_person
from tests.control.plane import Entitled, MovedClock


def new_user() -> str:
    return f"user_{uuid4().hex[:12]}"


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def put_member(client: AsyncClient, org: str, user: str, role: str, **headers: str) -> Response:
    return await client.put(f"/v1/organizations/{org}/members/{user}", json={"role": role}, headers=headers)


async def marks_in_force(context: Context, org: str, user: str, issued_at: float | None) -> Mark | None:
    """What refuses a token of the user, by what the gateways read."""
    marks = [Mark(MarkKind.USER, user), Mark(MarkKind.ORGANIZATION, "")]
    read = await context.ledger.look(org, None, marks)
    return refusing(read.marks, issued_at)


async def test_a_user_is_created_changed_listed_and_deleted(admin: AsyncClient) -> None:
    user = new_user()
    path = f"/v1/users/{user}"
    assert (await admin.get(path)).status_code == 404
    assert (await admin.put(path, json={"email": "a@example.com"})).status_code == 201
    changed = await admin.put(path, json={"email": "b@example.com", "name": "B"})
    assert (changed.status_code, changed.json()["email"], changed.json()["name"]) == (200, "b@example.com", "B")
    assert (await admin.get(path)).json()["memberships"] == []
    listed = (await admin.get("/v1/users", params={"limit": 500})).json()
    assert user in {each["id"] for each in listed["users"]}
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == 404
    assert (await admin.delete(path)).status_code == 404
    assert (await admin.put(path, json={})).status_code == 201


@pytest.mark.parametrize("body", [{"email": "no address"}, {"name": ""}, {"name": "a\x00b"}, {"phone": "1"}])
async def test_a_user_with_unusable_content_is_refused(admin: AsyncClient, body: dict[str, Any]) -> None:
    assert (await admin.put(f"/v1/users/{new_user()}", json=body)).status_code == 422


async def test_an_id_that_no_token_could_carry_is_refused(admin: AsyncClient) -> None:
    for id_ in ("a b", "a%2Fb", "x" * 129, "%C3%BC"):
        assert (await admin.put(f"/v1/users/{id_}", json={})).status_code in (404, 422), id_


async def test_members_have_roles_and_the_last_owner_stays(admin: AsyncClient, entitled: Entitled) -> None:
    org, owner, other = await entitled(), new_user(), new_user()
    path = f"/v1/organizations/{org}/members"
    assert (await put_member(admin, org, owner, "owner")).status_code == 201
    assert (await put_member(admin, org, other, "member")).status_code == 201
    assert (await put_member(admin, org, other, "admin")).status_code == 200
    listed = (await admin.get(path)).json()["members"]
    assert {each["user"]: each["role"] for each in listed} == {owner: "owner", other: "admin"}
    assert (await admin.delete(f"{path}/{owner}")).status_code == 409
    assert (await put_member(admin, org, owner, "member")).status_code == 409
    assert (await admin.delete(f"/v1/users/{owner}")).status_code == 409
    assert (await put_member(admin, org, other, "owner")).status_code == 200
    assert (await admin.delete(f"{path}/{owner}")).status_code == 204
    assert (await admin.delete(f"{path}/{owner}")).status_code == 404
    assert (await put_member(admin, org, owner, "king")).status_code == 422


async def test_the_role_that_is_known_here_counts_and_not_the_one_in_the_token(
    admin: AsyncClient, nobody: AsyncClient, entitled: Entitled, context: Context
) -> None:
    org, user = await entitled(), new_user()
    path = f"/v1/organizations/{org}/members"
    plain = token_of_person(org, user)
    claimed = token_of_person(org, user, "owner")
    for headers, expected in ((plain, 403), (claimed, 200)):
        assert (await nobody.get(path, headers=headers)).status_code == expected, "nobody knows the user yet"
    await put_member(admin, org, user, "member")
    for headers in (plain, claimed):
        assert (await nobody.get(path, headers=headers)).status_code == 200
        assert (await put_member(nobody, org, new_user(), "member", **headers)).status_code == 403
        assert (await nobody.get(f"/v1/organizations/{org}/invoices", headers=headers)).status_code == 403
    await put_member(admin, org, user, "admin")
    for headers in (plain, claimed):
        assert (await put_member(nobody, org, new_user(), "member", **headers)).status_code == 201
        assert (await put_member(nobody, org, new_user(), "owner", **headers)).status_code == 403
    await put_member(admin, org, user, "owner")
    assert (await put_member(nobody, org, new_user(), "owner", **plain)).status_code == 201


def test_of_several_roles_in_a_token_the_highest_counts_and_unknown_ones_are_none() -> None:
    assert members.role_claimed(frozenset({"member", "owner", "editor"})) is OrganizationRole.OWNER
    assert members.role_claimed(frozenset({"org:admin", "org:member"})) is OrganizationRole.ADMIN
    assert members.role_claimed(frozenset({"editor", "org:billing", "ADMIN"})) is None
    assert members.role_claimed(frozenset()) is None


async def test_a_members_tokens_stop_with_the_membership_and_work_again_with_it(
    context: Context, admin: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    org, user = await entitled(), new_user()
    await put_member(admin, org, user, "member")
    assert await marks_in_force(context, org, user, clock.now) is None
    assert (await admin.delete(f"/v1/organizations/{org}/members/{user}")).status_code == 204
    for issued_at in (clock.now - 60, clock.now + 3600, None):
        assert await marks_in_force(context, org, user, issued_at) is not None, "whoever issues the token"
    assert await marks_in_force(context, org, new_user(), clock.now) is None
    await put_member(admin, org, user, "member")
    assert await marks_in_force(context, org, user, clock.now) is None


async def test_a_deleted_users_tokens_stop_in_every_organization_that_knew_it(
    context: Context, admin: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    user, orgs = new_user(), [await entitled() for _ in range(3)]
    for org in orgs[:2]:
        await put_member(admin, org, user, "member")
    assert len((await admin.get(f"/v1/users/{user}")).json()["memberships"]) == 2
    assert (await admin.delete(f"/v1/users/{user}")).status_code == 204
    refused = [await marks_in_force(context, org, user, clock.now) is not None for org in orgs]
    assert refused == [True, True, False]
    for org in orgs:
        assert (await admin.get(f"/v1/organizations/{org}/members")).json()["members"] == []


async def test_a_persons_keys_are_revoked_with_the_membership_and_stay_so(
    admin: AsyncClient, entitled: Entitled
) -> None:
    org, user, other = await entitled(), new_user(), new_user()
    path = f"/v1/organizations/{org}"
    for each in (user, other):
        await put_member(admin, org, each, "member")
    theirs, others = [await created(admin, org, name="one", user=each) for each in (user, other)]
    assert (await admin.delete(f"{path}/members/{user}")).status_code == 204
    await put_member(admin, org, user, "member")
    states = [(await admin.get(f"{path}/keys/{key['id']}")).json()["state"] for key in (theirs, others)]
    assert states == ["revoked", "active"]
    assert (await admin.delete(f"/v1/users/{other}")).status_code == 204
    assert (await admin.get(f"{path}/keys/{others['id']}")).json()["state"] == "revoked"


async def test_who_is_only_known_by_a_key_loses_it_when_deleted(admin: AsyncClient, entitled: Entitled) -> None:
    org, user = await entitled(), new_user()
    await admin.put(f"/v1/users/{user}", json={})
    key = await created(admin, org, name="one", user=user)
    assert (await admin.delete(f"/v1/users/{user}")).status_code == 204
    assert (await admin.get(f"/v1/organizations/{org}/keys/{key['id']}")).json()["state"] == "revoked"


async def test_of_two_owners_that_leave_at_once_one_stays(admin: AsyncClient, entitled: Entitled) -> None:
    for _ in range(5):
        org, owners = await entitled(), [new_user(), new_user()]
        for owner in owners:
            await put_member(admin, org, owner, "owner")
        path = f"/v1/organizations/{org}/members"
        answers = await asyncio.gather(*(admin.delete(f"{path}/{owner}") for owner in owners))
        assert sorted(answer.status_code for answer in answers) == [204, 409]
        assert len((await admin.get(path)).json()["members"]) == 1


async def test_an_organization_learns_nothing_of_people_that_others_know(
    admin: AsyncClient, nobody: AsyncClient, entitled: Entitled
) -> None:
    org, other, known, unknown = await entitled(), await entitled(), new_user(), new_user()
    await admin.put(f"/v1/users/{known}", json={"email": "known@example.com", "name": "Known"})
    await put_member(admin, other, known, "owner")
    own = token_of_person(org, new_user(), "owner")
    told = []
    for user in (known, unknown):
        added = await put_member(nobody, org, user, "member", **own)
        removed = await nobody.delete(f"/v1/organizations/{org}/members/{user}", headers=own)
        again = await nobody.delete(f"/v1/organizations/{org}/members/{user}", headers=own)
        body = {k: v for k, v in added.json().items() if k not in ("user", "created_at")}
        told.append((added.status_code, body, removed.status_code, again.status_code))
    assert told[0] == told[1]
    assert told[0][1] == {"role": "member", "email": None, "name": None}
    assert (await nobody.get(f"/v1/users/{known}", headers=own)).status_code == 403


async def test_a_deleted_organization_is_refused_until_it_is_restored(
    context: Context, admin: AsyncClient, nobody: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    org, user = await entitled(), new_user()
    path, own = f"/v1/organizations/{org}", token_of_person(org)
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.delete(path)).status_code == 204, "a second time changes nothing"
    mark = await marks_in_force(context, org, user, clock.now)
    assert mark is not None
    assert mark.kind is MarkKind.ORGANIZATION
    assert (await admin.get(path)).json()["deleted_at"] is not None
    for method, url, body in (
        ("PUT", path, {"name": "again"}),
        ("PUT", f"/v1/entitlements/{org}", {"plan": "starter"}),
        ("PUT", f"{path}/members/{user}", {"role": "member"}),
        ("GET", f"{path}/members", None),
    ):
        answer = await admin.request(method, url, json=body)
        assert answer.status_code == (409 if url == path else 404), (method, url, answer.text)
    deleted = (await admin.get("/v1/organizations", params={"deleted": True, "limit": 1000})).json()
    assert org in {each["id"] for each in deleted["organizations"]}
    there = (await admin.get("/v1/organizations", params={"limit": 1000})).json()
    assert org not in {each["id"] for each in there["organizations"]}
    restored = await admin.post(f"{path}/restore")
    assert (restored.status_code, restored.json()["deleted_at"]) == (200, None)
    assert await marks_in_force(context, org, user, clock.now) is None
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["plan"] is None, "it has no plan any more"
    assert (await nobody.get(path, headers=own)).status_code == 200
    assert (await admin.delete("/v1/organizations/no-such-one")).status_code == 404
    actions = [each["action"] for each in (await admin.get(f"{path}/journal")).json()["entries"]]
    assert actions.count("organization.deleted") == actions.count("organization.restored") == 1


async def test_admin_roles_are_given_by_subject_or_verified_address_and_withdrawn(
    context: Context, admin: AsyncClient
) -> None:
    sub, address = f"idp:{uuid4().hex}", f"{uuid4().hex[:8]}@Example.com"
    for kind, subject, role in (("subject", sub, "viewer"), ("email", address, "billing")):
        path = f"/v1/admin-roles/{kind}/{subject}"
        assert (await admin.put(path, json={"role": "admin"})).status_code == 201
        assert (await admin.put(path, json={"role": role})).status_code == 200
    async with context.db.connection() as connection:
        assert await admin_roles.role_of(connection, "x", address.upper()) is AdminRole.BILLING
        assert await admin_roles.role_of(connection, sub, address) is AdminRole.VIEWER, "the subject says more"
        assert await admin_roles.role_of(connection, "x", None) is None
        assert await admin_roles.role_of(connection, address.lower(), None) is None, "no address passes for a subject"
    listed = (await admin.get("/v1/admin-roles")).json()["admin_roles"]
    assert {(each["subject"], each["role"]) for each in listed} >= {(sub, "viewer"), (address.lower(), "billing")}
    assert (await admin.delete(f"/v1/admin-roles/email/{address}")).status_code == 204
    assert (await admin.delete(f"/v1/admin-roles/email/{address}")).status_code == 404
    async with context.db.connection() as connection:
        assert await admin_roles.role_of(connection, "x", address) is None
    journaled = (await admin.get("/v1/journal", params={"action": "admin_role.withdrawn", "limit": 1})).json()
    assert journaled["entries"][0]["before"]["subject"] == address.lower()


async def test_nobody_gives_an_admin_role_that_may_more_than_himself(admin: AsyncClient, nobody: AsyncClient) -> None:
    held = [*sorted(each.value for each in ADMIN_PERMISSIONS[AdminRole.VIEWER]), "access:admin"]
    made = await admin.post("/v1/service-tokens", json={"name": f"m-{uuid4().hex[:8]}", "permissions": held})
    headers = bearing(made.json()["token"])
    for role, status in (("admin", 403), ("support", 403), ("viewer", 201)):
        answer = await nobody.put(f"/v1/admin-roles/subject/{uuid4().hex}", json={"role": role}, headers=headers)
        assert answer.status_code == status, role

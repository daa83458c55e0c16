"""Whom the vendor's identity provider names, and whether that person comes in."""

from typing import Any

import pytest
from httpx import AsyncClient

from control.access.permissions import OrganizationRole
from control.access.portal.admission import NotAdmitted, Reason, admit, organizations_of
from control.access.portal.identified import Identified, identified_by
from control.http.context import Context
from control.moments import moment
from control.settings.portal import CustomerSignIn, Portal
from tests.control.plane import Entitled, MovedClock

PROVIDER = {"issuer": "https://login.example.com", "client_id": "portal", "organization_claim": "org_id"}
ROLE = {"role_claim": "org_role"}


def read(claims: dict[str, Any], **settings: Any) -> Identified:
    return identified_by({"sub": "user_1", **claims}, CustomerSignIn.model_validate(PROVIDER | settings))


@pytest.mark.parametrize(
    ("claims", "settings", "found"),
    [
        ({"org_id": "acme"}, {}, ["acme"]),
        ({"org_id": ["acme", "globex", "acme"]}, {}, ["acme", "globex"]),
        ({"organization": {"acme": {"id": "1"}}}, {"organization_claim": "organization"}, ["acme"]),
        ({"app": {"org": "acme"}}, {"organization_claim": "app.org"}, ["acme"]),
        ({"https://example.com/org": "acme"}, {"organization_claim": "https://example.com/org"}, ["acme"]),
        ({"org_id": ["a b", "<script>", "\x00", 7, None, "acme\n"]}, {}, []),
        ({}, {}, []),
    ],
)
def test_an_organization_is_found_in_each_form_that_providers_have(
    claims: dict[str, Any], settings: dict[str, Any], found: list[str]
) -> None:
    assert read(claims, **settings).organizations == found


@pytest.mark.parametrize(
    ("claims", "settings", "role"),
    [
        ({"org_role": "owner"}, {}, "member"),
        ({"org_role": "org:admin"}, ROLE, "admin"),
        ({"org_role": ["member", "owner"]}, ROLE, "owner"),
        ({"org_role": "boss"}, ROLE, "member"),
        ({"org_role": "boss"}, ROLE | {"roles": {"boss": "owner"}}, "owner"),
        ({"org_role": "owner"}, ROLE | {"roles": {"boss": "owner"}}, "member"),
        ({}, ROLE | {"default_role": None}, None),
        ({}, {"default_role": "admin"}, "admin"),
    ],
)
def test_a_role_is_the_one_of_the_claim_or_the_default(
    claims: dict[str, Any], settings: dict[str, Any], role: str | None
) -> None:
    assert read(claims, **settings).role == (None if role is None else OrganizationRole(role))


def test_a_user_is_named_as_in_tokens_or_is_none() -> None:
    assert read({}).user == "user_1"
    assert read({"uid": "u|2"}, user_claim="uid").user == "u|2"
    for unfit in ("", "a b", "x" * 129, ["a", "b"], None, 7):
        assert read({"uid": unfit}, user_claim="uid").user is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"organization_claim": None},
        {"roles": {"boss": "owner"}},
        {"default_role": None},
        {"default_role": "root"},
        {"issuer": "http://login.example.com"},
        {"scopes": ["email"]},
        {"algorithms": ["none"]},
    ],
)
def test_a_sign_in_that_would_not_be_safe_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"sign_in"):
        Portal.model_validate({"sign_in": {**PROVIDER, **wrong}})


async def reason_of(context: Context, person: Identified, org: str) -> Reason | OrganizationRole:
    try:
        return (await admit(context.db, person, org, moment(context.clock()))).role
    except NotAdmitted as e:
        return e.reason


async def test_where_no_member_is_known_the_provider_says_the_role(context: Context, entitled: Entitled) -> None:
    org = await entitled()
    person = read({"org_id": org, "org_role": "owner"}, **ROLE)
    assert await organizations_of(context.db, person) == [org]
    assert await reason_of(context, person, org) is OrganizationRole.OWNER


async def test_where_members_are_known_only_they_come_in_and_in_their_role(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    await admin.put(f"/v1/organizations/{org}/members/user_2", json={"role": "admin"})
    stranger, member = read({"org_role": "owner"}, **ROLE), read({"sub": "user_2", "org_role": "owner"}, **ROLE)
    assert await reason_of(context, stranger, org) is Reason.NO_MEMBER
    assert await reason_of(context, member, org) is OrganizationRole.ADMIN


async def test_who_was_removed_does_not_come_in_again_by_the_providers_word(
    context: Context, admin: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled()
    await admin.put(f"/v1/organizations/{org}/members/user_1", json={"role": "member"})
    await admin.delete(f"/v1/organizations/{org}/members/user_1")
    clock.move(minutes=1)
    assert await reason_of(context, read({}), org) is Reason.REVOKED
    await admin.put(f"/v1/organizations/{org}/members/user_1", json={"role": "member"})
    assert await reason_of(context, read({}), org) is OrganizationRole.MEMBER


async def test_nobody_comes_into_an_organization_that_there_is_not(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    await admin.delete(f"/v1/organizations/{org}")
    for unknown in (org, "never-was"):
        assert await reason_of(context, read({}), unknown) is Reason.NO_ORGANIZATION
        with pytest.raises(NotAdmitted):
            await organizations_of(context.db, read({"org_id": unknown}))


async def test_who_is_nobody_or_has_no_role_does_not_come_in(context: Context, entitled: Entitled) -> None:
    org = await entitled()
    assert await reason_of(context, read({}, user_claim="uid"), org) is Reason.NO_USER
    assert await reason_of(context, read({}, **ROLE, default_role=None), org) is Reason.NO_ROLE

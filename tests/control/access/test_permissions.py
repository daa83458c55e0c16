"""Each endpoint names the permission that it needs, and a role is a set of permissions."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import AsyncClient

from control.access.permissions import (
    ADMIN_PERMISSIONS,
    ALL,
    ORGANIZATION_PERMISSIONS,
    TOKEN_PERMISSIONS,
    WITH_ANY_ROLE,
    AdminRole,
    OrganizationRole,
    Permission,
)
from control.api.usage import own_usage
from control.app import build
from control.http.context import Context, Ctx
from control.http.guards import PUBLIC, Allowed, OfOrganization, Org, permissions_of


def unguarded(app: FastAPI) -> set[tuple[str, str]]:
    """Endpoints that name no permission, or more than one."""
    found = set()
    for route in iter_route_contexts(app.routes):
        if route.original_route is not own_usage:  # the same as FastAPI's, which documents it
            named = permissions_of(route.dependant) if isinstance(route.original_route, APIRoute) else frozenset()
            found |= {(method, str(route.path)) for method in (route.methods or ()) if len(named) != 1}
    return found


PAGES_FOR_ALL = {
    ("GET", "/console/link"),
    ("POST", "/console/link"),
    ("GET", "/console/sign-in"),
    ("GET", "/console/sign-in/{provider}"),
    ("GET", "/console/signed-in/{provider}"),
    ("GET", "/console/signed-out"),
    ("GET", "/console/static/{name}"),
    ("GET", "/portal/brand.css"),
    ("GET", "/portal/link"),
    ("GET", "/portal/quotagate-usage.js"),
    ("GET", "/portal/logo"),
    ("GET", "/portal/sign-in"),
    ("GET", "/portal/sign-in/go"),
    ("GET", "/portal/signed-in"),
    ("GET", "/portal/signed-out"),
    ("POST", "/portal/link"),
}
"""Pages that need no session."""
PAGES_OF_EACH_PERSON = {
    ("GET", "/console"),
    ("GET", "/console/account"),
    ("GET", "/console/{path:path}"),
    ("POST", "/console/sessions/end"),
    ("POST", "/console/sessions/end-others"),
    ("POST", "/console/sign-out"),
    ("POST", "/portal/sign-out"),
}
"""Pages that need a session and no permission: what they show is the person's own."""
WITHOUT = PUBLIC | PAGES_FOR_ALL | PAGES_OF_EACH_PERSON


async def test_every_endpoint_and_page_names_one_permission_or_is_listed_here(context: Context) -> None:
    assert unguarded(build(context)) == WITHOUT


async def test_an_endpoint_without_a_permission_is_noticed(context: Context) -> None:
    app, router = build(context), APIRouter()

    @router.get("/v1/forgotten/{org}")
    async def forgotten(org: Org, ctx: Ctx) -> None: ...

    @router.get("/v1/doubtful/{org}", dependencies=[OfOrganization(Permission.KEYS_READ), Allowed(Permission.API_READ)])
    async def doubtful(org: Org) -> None: ...

    app.include_router(router)
    assert unguarded(app) - WITHOUT == {("GET", "/v1/forgotten/{org}"), ("GET", "/v1/doubtful/{org}")}


async def test_the_document_says_which_permission_each_operation_needs(nobody: AsyncClient) -> None:
    document: dict[str, Any] = (await nobody.get("/openapi.json")).json()
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) >= 30
    for operation, content in operations.items():
        assert ("x-permission" in content) is (operation not in PUBLIC), operation
        assert content.get("x-permission", "api:read") in {each.value for each in Permission}
    told = {
        operation: (content.get("x-permission"), content.get("x-reach")) for operation, content in operations.items()
    }
    assert told[("POST", "/v1/usage")] == ("usage:write", "caller")
    assert told[("GET", "/v1/organizations/{org}/members")] == ("members:read", "organization")
    assert told[("GET", "/v1/organizations/{org}/journal")] == ("audit:read", "vendor")
    assert "<p>Permission: <code>grants:write</code></p>" in (await nobody.get("/docs")).text


def test_admin_roles_include_each_other_as_they_are_called() -> None:
    viewer, support, billing, admin = (ADMIN_PERMISSIONS[role] for role in AdminRole)
    assert viewer < support < admin
    assert viewer < billing < admin == ALL
    assert all(each.value.endswith(":read") for each in viewer)
    assert Permission.ACCESS_ADMIN not in support | billing
    assert Permission.MONEY_WRITE not in support


def test_roles_of_an_organization_include_each_other_and_reach_nothing_of_the_vendor() -> None:
    member, admin, owner = (ORGANIZATION_PERMISSIONS[role] for role in OrganizationRole)
    assert member < admin < owner
    assert member & TOKEN_PERMISSIONS >= WITH_ANY_ROLE
    vendors = {
        Permission.ACCESS_ADMIN,
        Permission.AUDIT_READ,
        Permission.BILLING_WRITE,
        Permission.ENTITLEMENTS_WRITE,
        Permission.GRANTS_WRITE,
        Permission.INCIDENTS_READ,
        Permission.MONEY_WRITE,
        Permission.ORGANIZATIONS_DELETE,
        Permission.SIGNING_KEYS_WRITE,
        Permission.USERS_WRITE,
    }
    assert not (owner | TOKEN_PERMISSIONS) & vendors


@pytest.mark.parametrize("permission", list(Permission))
def test_a_permission_is_a_subject_and_what_is_done_to_it(permission: Permission) -> None:
    subject, _, verb = permission.value.partition(":")
    assert subject.replace("_", "").isalpha()
    assert verb in {"read", "write", "delete", "admin", "portal"}
    assert permission.name == permission.value.replace(":", "_").upper()

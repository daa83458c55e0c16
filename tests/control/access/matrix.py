"""What the matrix of access is made of: the endpoints of the OpenAPI document, callers of each kind, two tenants."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

from httpx import AsyncClient, Response

from control.access.permissions import (
    ADMIN_PERMISSIONS,
    ORGANIZATION_PERMISSIONS,
    TOKEN_PERMISSIONS,
    WITH_ANY_ROLE,
    AdminRole,
    OrganizationRole,
    Permission,
    Permissions,
)
from control.access.signin.same_origin import token_of
from control.api.docs import example_of
from control.http.signed_in import PORTAL_COOKIE
from tests.control.access import keys
from tests.control.access.persons import token_of_person
from tests.control.plane import Entitled
from tests.control.portal.customers import secret_in

SAFE = {"GET", "HEAD"}
UNKNOWN: Mapping[str, str] = {
    "key": "Zz9Zz9Zz9Zz9",
    "signing_key": "k" * 43,
    "user": "user_of_nobody01",
    "kind": "user",
    "subject": "user_of_nobody01",
}
"""What no path parameter of that name is; of others a UUID."""
SOME_ID = "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"
PARAMETER = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    permission: Permission
    reach: str
    example: Any
    """A body, as the document shows it; None: it takes none."""

    def url(self, org: str, **ids: str) -> str:
        path = self.path.replace("{org}", org)
        return PARAMETER.sub(lambda name: ids.get(name[1], UNKNOWN.get(name[1], SOME_ID)), path)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Caller:
    headers: Mapping[str, str]
    org: str | None
    permissions: Permissions

    def may(self, operation: Operation, org: str) -> bool:
        """The rule, as it is written down."""
        if self.org is not None and operation.reach == "vendor":
            return False
        if self.org not in (None, org) and operation.reach == "organization":
            return False
        return operation.permission in self.permissions


@dataclass(slots=True)
class Tenant:
    org: str
    ids: dict[str, str] = field(default_factory=dict)
    """What of it path parameters may name."""
    api_key: str = ""


def is_stream(operation: Mapping[str, Any]) -> bool:
    return "text/event-stream" in operation["responses"].get("200", {}).get("content", {})


def operations_of(document: Mapping[str, Any]) -> list[Operation]:
    """All that need a permission, but for streams, which do not end by themselves (tests/control/attention)."""

    def each() -> Iterator[Operation]:
        schemas = document["components"]["schemas"]
        for path, methods in document["paths"].items():
            for method, content in methods.items():
                if "x-permission" not in content or path.startswith("/-/") or is_stream(content):
                    continue
                body = content.get("requestBody", {}).get("content", {}).get("application/json")
                example = None if body is None else body.get("example") or example_of(body.get("schema", {}), schemas)
                permission = Permission(content["x-permission"])
                yield Operation(method.upper(), path, permission, content["x-reach"], example)

    return list(each())


class World:
    """Two organizations that have everything, and one that is not there. All ids are of one length."""

    def __init__(self, client: AsyncClient, admin: AsyncClient) -> None:
        self.client = client
        self.admin = admin
        self.missing = f"org-{uuid4().hex[:12]}"
        self.own = Tenant("")
        self.foreign = Tenant("")
        self._numbers = count()

    async def furnish(self, entitled: Entitled) -> None:
        self.own, self.foreign = await self._tenant(entitled), await self._tenant(entitled)

    async def _tenant(self, entitled: Entitled) -> Tenant:
        org, user = await entitled(), f"user_{uuid4().hex[:11]}"
        path = f"/v1/organizations/{org}"
        grant = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "an outage"}
        granted = await self.admin.post(f"{path}/grants", json=grant)
        key = await keys.created(self.admin, org, name="one")
        added = await self.admin.put(f"{path}/members/{user}", json={"role": "owner"})
        marked = await self.admin.post(f"{path}/revocations", json={"kind": "user", "subject": "user_marked"})
        code = await self.admin.post(f"{path}/activation-codes", json={})
        assert [answer.status_code for answer in (granted, added, marked, code)] == [201] * 4
        ids = {"grant": granted.json()["id"], "key": key["id"], "user": user, "code": code.json()["id"]}
        return Tenant(org, ids, key["key"])

    async def snapshot(self, tenant: Tenant) -> list[Any]:
        """What an admin sees of it."""
        path = f"/v1/organizations/{tenant.org}"
        urls = (path, *(f"{path}/{each}" for each in ("grants", "keys", "members", "revocations", "activation-codes")))
        return [(await self.admin.get(url)).json() for url in urls]

    async def ask(
        self, operation: Operation, url: str, headers: Mapping[str, str], body: Any = None, **query: str
    ) -> Response:
        """Each time from another address: nobody has to wait here."""
        number = next(self._numbers)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        content = {"json": body} if body is not None else {}
        return await self.client.request(
            operation.method, url, headers={**headers, "x-forwarded-for": address}, params=query, **content
        )

    async def service_token(self, **content: Any) -> dict[str, str]:
        made = await self.admin.post("/v1/service-tokens", json={"name": f"m-{uuid4().hex[:12]}", **content})
        assert made.status_code == 201, made.text
        return {"authorization": f"Bearer {made.json()['token']}"}

    async def _session(self, role: str) -> dict[str, str]:
        """Of the portal, as a page of it sends it."""
        made = await self.admin.post("/v1/portal-sessions", json={"org": self.own.org, "role": role})
        code, own_page = made.json()["url"].partition("code=")[2], {"sec-fetch-site": "same-origin"}
        came_in = await self.client.post("/portal/link", data={"code": code}, headers=own_page)
        assert came_in.status_code == 303, came_in.text
        self.client.cookies.clear()  # each request names its own
        secret = secret_in(came_in.headers)
        return own_page | {"cookie": f"{PORTAL_COOKIE}={secret}", "x-csrf-token": token_of(secret)}

    async def caller(self, name: str) -> Caller:
        """One of `CALLERS`."""
        kind, _, role = name.partition(" ")
        org = self.own.org
        if kind == "vendor":
            headers = await self.service_token(role=role)
            return Caller(headers, None, ADMIN_PERMISSIONS[AdminRole(role)])
        if kind == "machine":
            headers = await self.service_token(role=role, org=org)
            return Caller(headers, org, ORGANIZATION_PERMISSIONS[OrganizationRole(role)])
        if kind == "only":
            headers = await self.service_token(permissions=[role])
            return Caller(headers, None, frozenset({Permission(role)}))
        if kind == "person":
            user = f"user_{uuid4().hex[:11]}"
            return Caller(token_of_person(org, user, role), org, ORGANIZATION_PERMISSIONS[OrganizationRole(role)])
        if kind == "portal":
            return Caller(await self._session(role), org, ORGANIZATION_PERMISSIONS[OrganizationRole(role)])
        if kind == "member":
            user = f"user_{uuid4().hex[:11]}"
            await self.admin.put(f"/v1/organizations/{org}/members/{user}", json={"role": role})
            # The token says more than is so.
            return Caller(token_of_person(org, user, "owner"), org, ORGANIZATION_PERMISSIONS[OrganizationRole(role)])
        if kind == "site":
            return Caller(token_of_person(org, site="site_1", user_id="x"), org, WITH_ANY_ROLE)
        if kind == "key":
            return Caller({"authorization": f"Bearer {self.own.api_key}"}, org, WITH_ANY_ROLE)
        return Caller(token_of_person(org), org, TOKEN_PERMISSIONS)


CALLERS = (
    *(f"vendor {role.value}" for role in AdminRole),
    *(f"{kind} {role.value}" for kind in ("machine", "person", "member", "portal") for role in OrganizationRole),
    "only usage:write",
    "only access:admin",
    "token",
    "site",
    "key",
)


def told(answer: Response, *ids: str) -> tuple[Any, ...]:
    """An answer without what differs between any two, and without the ids that were asked for."""
    body = answer.text
    if correlation_id := answer.headers.get("x-request-id"):
        body = body.replace(correlation_id, "…")
    for id_ in ids:
        body = body.replace(id_, "…")
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    return answer.status_code, body, headers

"""What all pages have: a twin with the same permission, a guard, the same policy."""

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import ASGITransport, AsyncClient
from starlette.responses import Response

from control.access.lifetimes import Seen
from control.access.permissions import AdminRole, Permission
from control.access.signin.sessions import SignedIn
from control.app import build
from control.console.frame.guards import ActionGuard, PageGuard, Viewing
from control.console.frame.navigation import ENTRIES
from control.console.frame.pages import Pages
from control.console.frame.sections import section
from control.console.frame.static_files import FILES, static
from control.db import StoreUnavailable
from control.http.context import Context

HTMX_SHA256 = "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
"""Of dist/htmx.min.js in the npm package htmx.org 4.0.1."""


def guards_of(dependant: Dependant) -> Iterator[PageGuard | ActionGuard]:
    if isinstance(dependant.call, PageGuard | ActionGuard):
        yield dependant.call
    for each in dependant.dependencies:
        yield from guards_of(each)


def pages_of(app: FastAPI) -> Iterator[tuple[str, str, PageGuard | ActionGuard]]:
    """Method, path and guard of each page that has one."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute):
            for guard in guards_of(route.dependant):
                yield next(iter(route.methods or {"GET"})), str(route.path), guard


def faults_of_twins(app: FastAPI) -> list[str]:
    """Pages whose twin is not there, or is for other people."""
    document: dict[str, Any] = app.openapi()
    faults = []
    for _, path, guard in pages_of(app):
        if isinstance(guard, PageGuard) and guard.permission is not None:
            twin = document["paths"].get((guard.twin or "").partition("?")[0], {}).get("get")
            if twin is None:
                faults.append(f"{path}: {guard.twin} is no endpoint")
            elif twin["x-permission"] != guard.permission.value:
                faults.append(f"{path}: {guard.twin} needs {twin['x-permission']}")
            elif set(re.findall(r"{(\w+)}", guard.twin or "")) - _places(path):
                faults.append(f"{path}: {guard.twin} has parameters that the page has not")
    return faults


def _places(path: str) -> set[str]:
    """What a page knows of its twin's path. The organization of a page of the portal is that of the session."""
    return set(re.findall(r"{(\w+)(?::\w+)?}", path)) | ({"org"} if path.startswith("/portal") else set())


async def test_each_page_shows_what_an_endpoint_with_the_same_permission_answers(context: Context) -> None:
    assert faults_of_twins(build(context)) == []


async def test_a_page_without_such_an_endpoint_is_noticed(context: Context) -> None:
    app, pages = build(context), Pages("/console/x")

    @pages.page("", permission=Permission.KEYS_READ, twin="/v1/nothing")
    async def first(viewer: Viewing) -> Response: ...  # type: ignore[empty-body]  # it is never called

    @pages.page("/2", permission=Permission.KEYS_READ, twin="/v1/incidents")
    async def second(viewer: Viewing) -> Response: ...  # type: ignore[empty-body]  # the same

    @pages.page("/3", permission=Permission.KEYS_READ, twin="/v1/organizations/{org}/keys")
    async def third(viewer: Viewing) -> Response: ...  # type: ignore[empty-body]  # the same

    app.include_router(pages)
    assert faults_of_twins(app) == [
        "/console/x: /v1/nothing is no endpoint",
        "/console/x/2: /v1/incidents needs incidents:read",
        "/console/x/3: /v1/organizations/{org}/keys has parameters that the page has not",
    ]


async def test_navigation_leads_to_pages_by_the_permission_that_they_need(context: Context) -> None:
    guards = {path: guard for method, path, guard in pages_of(build(context)) if method == "GET"}
    for entry in ENTRIES:
        if entry.path in guards and entry.permission is not None:
            assert guards[entry.path].permission is entry.permission, entry


async def signed_in(context: Context, role: AdminRole) -> str:
    person = SignedIn("link:tests", None, None, "A Person", frozenset({role}))
    return await context.signin.sessions.begin(person, Seen("127.0.0.1", "Tests"), None, "tests")


def client_of(app: FastAPI, secret: str | None = None) -> AsyncClient:
    headers = {} if secret is None else {"cookie": f"__Host-quotagate={secret}"}
    return AsyncClient(transport=ASGITransport(app), base_url="http://control", headers=headers)


async def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(context: Context) -> None:
    async with client_of(build(context)) as nobody:
        answer = await nobody.get("/console/incidents?status=open")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/console/sign-in?return=%2Fconsole%2Fincidents%3Fstatus%3Dopen"
        part = await nobody.get("/console/account", headers={"hx-request": "true"})
        assert (part.status_code, part.headers["hx-redirect"]) == (401, "/console/sign-in?return=%2Fconsole%2Faccount")


async def test_an_address_without_a_page_is_said_on_a_page(context: Context) -> None:
    app = build(context)
    async with client_of(app, await signed_in(context, AdminRole.VIEWER)) as viewer:
        answer = await viewer.get("/console/no/such?page=<b>")
    assert answer.status_code == 404
    assert "<h1>There is no such page</h1>" in answer.text
    assert "<b>" not in answer.text


async def test_a_role_without_the_permission_gets_neither_the_page_nor_what_it_does(context: Context) -> None:
    app, pages, done = build(context), Pages("/console-x"), list[str]()

    @pages.page("", permission=Permission.MONEY_WRITE, twin="/v1/incidents")
    async def show(viewer: Viewing) -> Response:
        done.append("shown")
        return Response()

    @pages.action("", permission=Permission.MONEY_WRITE)
    async def act(viewer: Viewing) -> Response:
        done.append("acted")
        return Response()

    app.include_router(pages)
    for role, status in ((AdminRole.VIEWER, 403), (AdminRole.BILLING, 200)):
        secret = await signed_in(context, role)
        async with client_of(app, secret) as client:
            page = await client.get("/console/account")
            [token] = re.findall('name="csrf-token" content="([^"]+)"', page.text)
            own = {"sec-fetch-site": "same-origin"}
            assert (await client.get("/console-x")).status_code == status
            assert (await client.post("/console-x", data={"token": token}, headers=own)).status_code == status
            assert (await client.post("/console-x", data={"token": "x"}, headers=own)).status_code == 403
            assert (await client.post("/console-x", data={"token": token})).status_code == 403
            foreign = {"sec-fetch-site": "same-site"}
            assert (await client.post("/console-x", data={"token": token}, headers=foreign)).status_code == 403
    assert done == ["shown", "acted"]


async def test_what_was_done_is_said_once(context: Context) -> None:
    secret = await signed_in(context, AdminRole.ADMIN)
    async with client_of(build(context), secret) as client:
        page = await client.get("/console/account")
        [token] = re.findall('name="csrf-token" content="([^"]+)"', page.text)
        own = {"sec-fetch-site": "same-origin"}
        answer = await client.post("/console/sessions/end-others", data={"token": token}, headers=own)
        notice = answer.headers["set-cookie"].partition(";")[0]
        after = await client.get("/console/account", headers={"cookie": f"__Host-quotagate={secret}; {notice}"})
    assert "All your other sessions have ended." in after.text
    assert 'quotagate-notice=""; expires=' in after.headers["set-cookie"].replace("__Host-", "").lower()


async def test_a_store_that_is_away_costs_a_part_of_a_page() -> None:
    async def away() -> int:
        raise StoreUnavailable("secret details")

    part = await section(away())
    assert (part.value, part.fault) == (None, "The database does not answer.")


async def test_a_fault_of_ours_is_not_hidden_by_a_part_of_a_page() -> None:
    async def broken() -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await section(broken())


async def test_a_script_of_others_is_the_one_that_was_looked_at() -> None:
    assert sha256(FILES["htmx-4.0.1.min.js"].content).hexdigest() == HTMX_SHA256


async def test_files_are_kept_by_browsers_until_they_change(context: Context) -> None:
    async with client_of(build(context)) as nobody:
        for name, file in FILES.items():
            answer = await nobody.get(static(name))
            assert answer.content == file.content
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["content-encoding"] == "gzip"
            plain = await nobody.get(f"/console/static/{name}?v=old", headers={"accept-encoding": "identity"})
            assert (plain.content, plain.headers["cache-control"]) == (file.content, "no-cache")
        assert (await nobody.get("/console/static/..%2ftemplates%2fframe.html")).status_code == 303  # no file at all
        assert (await nobody.get("/console/static/nothing.js")).status_code == 404

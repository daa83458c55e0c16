"""What a one-time link has opened ends when whoever made the link could make none any more."""

from typing import Any

import pytest
from httpx import AsyncClient

from control.access.lifetimes import Seen
from control.access.permissions import AdminRole
from control.access.signin.same_origin import token_of
from control.access.signin.sessions import NoRole, SignedIn
from control.http.context import Context
from control.http.signed_in import SESSION_COOKIE
from control.settings.control_plane import Settings
from control.settings.signin import SignIn
from tests.control.plane import Entitled, MovedClock

SEEN = Seen("203.0.113.1", "Mozilla/5.0")
PROVIDERS = {"providers": [{"name": "example", "issuer": "https://issuer.example.com", "client_id": "c"}]}
ADA = "example:ada"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"signin": SignIn.model_validate(PROVIDERS)})


def ada(*roles: AdminRole) -> SignedIn:
    return SignedIn(ADA, "example", "ada@example.com", "Ada", frozenset(roles))


async def signed_in(context: Context, whom: SignedIn) -> str:
    return await context.signin.sessions.begin(whom, SEEN, None, "test")


def of(secret: str) -> dict[str, str]:
    headers = {"cookie": f"{SESSION_COOKIE}={secret}", "sec-fetch-site": "same-origin"}
    return headers | {"x-csrf-token": token_of(secret)}


def code_in(made: Any) -> str:
    assert made.status_code == 201, made.text
    return str(made.json()["url"].partition("code=")[2])


async def by_console_link(context: Context, client: AsyncClient, headers: dict[str, str], role: str = "admin") -> str:
    code = code_in(await client.post("/v1/console-links", json={"role": role}, headers=headers))
    used = await context.signin.links.use(code)
    assert used is not None
    return await signed_in(context, used)


async def by_portal_link(context: Context, client: AsyncClient, headers: dict[str, str], org: str) -> str:
    code = code_in(await client.post("/v1/portal-sessions", json={"org": org}, headers=headers))
    used = await context.portal.use_link(code)
    assert used is not None
    return await context.portal.begin(used, SEEN, None, "test")


async def assign(admin: AsyncClient, role: str | None) -> None:
    path = "/v1/admin-roles/email/ada@example.com"
    answer = await (admin.delete(path) if role is None else admin.put(path, json={"role": role}))
    assert answer.status_code in (200, 201, 204), answer.text


async def test_what_a_persons_links_have_opened_ends_with_the_persons_role(
    context: Context, admin: AsyncClient, nobody: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    await assign(admin, "admin")
    own = await signed_in(context, ada())
    console, portal = (
        await by_console_link(context, nobody, of(own)),
        await by_portal_link(context, nobody, of(own), org),
    )
    by_the_link = await by_console_link(context, nobody, of(console), "viewer")  # the chain leads back to Ada
    unused = code_in(await nobody.post("/v1/console-links", json={}, headers=of(own)))
    find = context.signin.sessions.find
    assert [await find(each) is not None for each in (own, console, by_the_link)] == [True] * 3
    assert await context.portal.find(portal) is not None
    await assign(admin, "support")  # who can make neither kind of link
    assert [await find(each) is not None for each in (own, console, by_the_link)] == [True, False, False]
    assert await context.portal.find(portal) is None
    assert await context.signin.links.use(unused) is None
    assert (await nobody.get("/v1/organizations", headers=of(console))).status_code == 401
    listed = (await admin.get("/v1/sessions", params={"person": "link:person:ada@example.com"})).json()["sessions"]
    assert listed == []
    assert (await admin.get("/v1/portal-sessions", params={"org": org})).json()["sessions"] == []
    await assign(admin, None)


async def test_what_a_service_tokens_links_have_opened_ends_when_it_is_revoked(
    context: Context, admin: AsyncClient, nobody: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    shop = (await admin.post("/v1/service-tokens", json={"name": "shop", "permissions": ["portal:write"]})).json()
    headers = {"authorization": f"Bearer {shop['token']}"}
    by_shop, by_admin = (
        await by_portal_link(context, nobody, headers, org),
        await by_portal_link(context, admin, {}, org),
    )
    assert await context.portal.find(by_shop) is not None
    assert (await admin.delete(f"/v1/service-tokens/{shop['id']}")).status_code == 204
    assert await context.portal.find(by_shop) is None
    assert await context.portal.find(by_admin) is not None


async def test_a_role_that_the_provider_no_longer_gives_is_withdrawn_from_all_that_it_opened(
    context: Context, nobody: AsyncClient
) -> None:
    own = await signed_in(context, ada(AdminRole.ADMIN))
    console = await by_console_link(context, nobody, of(own))
    assert await context.signin.sessions.find(console) is not None
    await signed_in(context, ada(AdminRole.VIEWER))
    assert await context.signin.sessions.find(console) is None
    again = await signed_in(context, ada(AdminRole.ADMIN))
    assert await context.signin.sessions.find(console) is not None
    with pytest.raises(NoRole):
        await signed_in(context, ada())
    assert await context.signin.sessions.find(console) is None
    for secret in (own, again):
        session = await context.signin.sessions.find(secret)
        assert session is not None
        assert session.roles == frozenset()


async def test_that_a_maker_signs_out_ends_nothing_of_what_the_links_have_opened(
    context: Context, admin: AsyncClient, nobody: AsyncClient, clock: MovedClock
) -> None:
    own = await signed_in(context, ada(AdminRole.ADMIN))
    console = await by_console_link(context, nobody, of(own))
    await admin.delete("/v1/sessions", params={"person": ADA})
    clock.move(minutes=30)
    assert await context.signin.sessions.find(console) is not None

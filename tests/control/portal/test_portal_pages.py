"""The portal's pages: how one comes in, what each shows, and that it is of the own organization alone."""

import re
from pathlib import Path

import pytest
from httpx import AsyncClient

from control.http.context import Context
from control.portal.branding import style_of, text_on
from control.settings.portal import Brand
from tests.control.access.keys import created
from tests.control.plane import Entitled
from tests.control.portal.customers import OWN_PAGE, customer, pages_of_portal

OWNER = {"role": "owner"}


async def code_for(admin: AsyncClient, org: str) -> str:
    made = await admin.post("/v1/portal-sessions", json={"org": org})
    return str(made.json()["url"].partition("code=")[2])


async def test_to_open_a_link_uses_nothing_up_and_its_button_works_once(
    nobody: AsyncClient, admin: AsyncClient, entitled: Entitled
) -> None:
    code = await code_for(admin, await entitled())
    for _ in range(3):
        assert (await nobody.get("/portal/link", params={"code": code})).status_code == 200
    used = await nobody.post("/portal/link", data={"code": code}, headers=OWN_PAGE)
    assert (used.status_code, used.headers["location"]) == (303, "/portal")
    cookie = used.headers["set-cookie"].lower()
    assert cookie.startswith("__host-quotagate-portal=")
    assert {"httponly", "secure", "path=/", "samesite=lax"} <= set(re.split(r";\s*", cookie))
    assert (await nobody.post("/portal/link", data={"code": code}, headers=OWN_PAGE)).status_code == 403


async def test_a_link_works_from_no_page_of_another(
    nobody: AsyncClient, admin: AsyncClient, entitled: Entitled
) -> None:
    """Else a page could put a browser into the session of somebody else, who would see what is typed there."""
    code = await code_for(admin, await entitled())
    for site in ("cross-site", "same-site"):
        answer = await nobody.post("/portal/link", data={"code": code}, headers={"sec-fetch-site": site})
        assert answer.status_code == 403
    assert (await nobody.post("/portal/link", data={"code": code}, headers=OWN_PAGE)).status_code == 303


async def test_whoever_guesses_links_of_the_portal_has_to_wait(nobody: AsyncClient) -> None:
    statuses = [
        (await nobody.post("/portal/link", data={"code": f"guess {n}"}, headers=OWN_PAGE)).status_code
        for n in range(11)
    ]
    assert statuses == [403] * 10 + [429]


async def test_who_is_not_signed_in_is_told_where_to_begin(context: Context, nobody: AsyncClient) -> None:
    for path in pages_of_portal(context):
        answer = await nobody.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/portal/sign-in"), path
    page = await nobody.get("/portal/sign-in")
    assert page.status_code == 401
    assert "Open this page from your account" in page.text


async def test_each_page_is_of_the_own_organization_alone(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    """All pages and all twins, by a session of another organization that may do as much as one can."""
    own, other = await entitled("growth"), await entitled()
    key = await created(admin, own, name="secret of ours")
    await admin.put(f"/v1/organizations/{own}/members/user_of_ours", json=OWNER)
    await admin.put(f"/v1/organizations/{other}/members/user_of_theirs", json=OWNER)
    shown_to_own = ""
    pages = pages_of_portal(context)
    assert len(pages) >= 6
    async with (
        customer(context, admin, own, **OWNER) as ours,
        customer(context, admin, other, **OWNER) as theirs,
    ):
        for path in pages:
            page, foreign = await ours.open(path), await theirs.open(path)
            shown_to_own += page
            for word in (own, key["id"], "secret of ours", "user_of_ours"):
                assert word not in foreign, (path, word)
            [twin] = re.findall(r'<link rel="alternate" type="application/json" href="([^"]+)">', page)
            assert (await ours.client.get(twin, headers=ours.cookie)).status_code == 200, twin
            asked = twin if own in twin else f"{twin}?org={own}"
            assert (await theirs.client.get(asked, headers=theirs.cookie)).status_code == 403, twin
        for path in (f"/portal/keys/{key['id']}/revoke", f"/portal/keys/{key['id']}/roll"):
            await theirs.send(path, 404)
        await theirs.send("/portal/people/user_of_ours/remove", 404)
    assert {own, "secret of ours", "user_of_ours"} <= set(
        re.findall(r"secret of ours|user_of_ours|org-\w+", shown_to_own)
    )
    [still] = (await admin.get(f"/v1/organizations/{own}/keys")).json()["keys"]
    assert still["state"] == "active"


async def test_a_member_sees_what_members_may_and_no_button_more(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    async with customer(context, admin, org) as member:
        overview = await member.open("/portal")
        assert "/portal/usage" in overview
        assert "/portal/keys" not in overview
        await member.open("/portal/keys", 403)
        await member.open("/portal/billing", 403)
        assert "Remove" not in await member.open("/portal/people")
        await member.send("/portal/keys", 403, name="mine")
        await member.send("/portal/people", 403, user="user_1", role="owner")


async def test_keys_are_made_rolled_and_revoked(context: Context, admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled()
    async with customer(context, admin, org, role="admin") as person:
        page = await person.send("/portal/keys", 201, name="robot")
        [shown] = set(re.findall(r"qg_live_\w+", page))
        headers = {"authorization": f"Bearer {shown}"}
        assert (await person.client.get(f"/v1/entitlements/{org}", headers=headers)).status_code == 200
        assert shown not in await person.open("/portal/keys")
        [key] = (await admin.get(f"/v1/organizations/{org}/keys")).json()["keys"]
        rolled = await person.send(f"/portal/keys/{key['id']}/roll", 201)
        [new] = set(re.findall(r"qg_live_\w+", rolled))
        assert new != shown
        await person.send(f"/portal/keys/{key['id']}/revoke", 303)
        assert (await person.client.get(f"/v1/entitlements/{org}", headers=headers)).status_code == 401
        assert "Fill this in." in await person.send("/portal/keys", 422, name="")


async def test_a_form_needs_the_token_of_its_session(context: Context, admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled()
    async with customer(context, admin, org, **OWNER) as one, customer(context, admin, org, **OWNER) as other:
        await one.send("/portal/keys", 403, name="x", token="")
        foreign = {"token": other.secret, "name": "x"}
        assert (await one.client.post("/portal/keys", data=foreign, headers=one.cookie)).status_code == 403
        cross = one.cookie | {"sec-fetch-site": "cross-site"}
        assert (await one.client.post("/portal/keys", data={"name": "x"}, headers=cross)).status_code == 403
    assert (await admin.get(f"/v1/organizations/{org}/keys")).json()["keys"] == []


async def test_people_are_added_given_roles_and_removed(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    async with customer(context, admin, org, **OWNER) as owner:
        await owner.send("/portal/people", 303, user="user_1", role="admin")
        assert "user_1" in await owner.open("/portal/people")
        await owner.send("/portal/people/user_1/remove", 303)
        assert (await admin.get(f"/v1/organizations/{org}/members")).json()["members"] == []
        wrong = await owner.send("/portal/people", 422, user="no such user", role="admin")
        assert "Must be letters, digits" in wrong


async def test_who_signs_out_is_out(context: Context, admin: AsyncClient, entitled: Entitled) -> None:
    async with customer(context, admin, await entitled()) as person:
        await person.send("/portal/sign-out", 303)
        assert (await person.client.get("/portal", headers=person.cookie)).status_code == 303


async def test_a_page_says_what_it_does_not_know_and_still_opens(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    """Without billing there are no plans to buy, and invoices are none."""
    async with customer(context, admin, await entitled(), **OWNER) as person:
        page = await person.open("/portal/billing")
        assert "There is no invoice yet" in page
        assert "Change plan" not in page
        await person.send("/portal/billing/stripe", 404)


async def test_an_organization_without_a_plan_has_a_portal(context: Context, admin: AsyncClient) -> None:
    await admin.put("/v1/organizations/bare", json={"name": "Bare"})
    async with customer(context, admin, "bare", **OWNER) as person:
        for path in pages_of_portal(context):
            await person.open(path)
        assert "There is no plan in force" in await person.open("/portal")


async def test_the_return_address_is_a_link_of_each_page(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    back = "https://shop.example.com/account?a=1&b=2"
    async with customer(context, admin, await entitled(), return_url=back) as person:
        assert 'href="https://shop.example.com/account?a=1&amp;b=2"' in await person.open("/portal/usage")


@pytest.mark.parametrize(
    ("color", "text"), [("#000000", "#ffffff"), ("#ffffff", "#18181b"), ("#3366ff", "#ffffff"), ("#ffcc00", "#18181b")]
)
def test_texts_on_the_vendors_colour_can_be_read(color: str, text: str) -> None:
    assert text_on(color) == text
    assert f"--on-primary: light-dark({text}, {text})" in style_of(Brand(color=color))


@pytest.mark.parametrize(
    "wrong", [{"color": "red; } * { display: none"}, {"logo": "logo.exe"}, {"home_url": "javascript:x"}]
)
def test_a_brand_that_would_not_be_safe_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"match|must be"):
        Brand.model_validate(wrong)


async def test_the_vendors_name_logo_and_colours_are_on_the_pages(
    context: Context, admin: AsyncClient, entitled: Entitled, tmp_path: Path
) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    brand = Brand(name="Maps & More", logo=logo, color="#0055aa", home_url="https://maps.example.com")
    context.portal.settings = context.portal.settings.model_copy(update={"brand": brand})
    async with customer(context, admin, await entitled()) as person:
        page = await person.open("/portal")
        assert "Maps &amp; More" in page
        assert "Quotagate" not in page
        assert 'src="/portal/logo"' in page
        assert "#0055aa" in await person.open("/portal/brand.css")
        answer = await person.client.get("/portal/logo")
        assert (answer.headers["content-type"], answer.text) == ("image/svg+xml", logo.read_text())
        assert "default-src 'none'" in answer.headers["content-security-policy"]

"""The customer's own portal in a real browser: every page, without scripts, by keyboard alone, on a telephone."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from control.db import Database
from control.entitlements.catalogue import apply_plans
from control.journal import Author
from tests.browser.checks import check_page
from tests.browser.running import Console, new_page
from tests.control.plane import packaged_plans
from tests.directory import customer, written

PAGES = ("", "/usage", "/usage?by=key&days=90", "/alerts", "/caps", "/billing", "/keys", "/sites", "/people")


@pytest.fixture(scope="module")
def catalogue(postgres_dsn: str) -> None:
    """The plans of the tests. In a thread: Playwright has the event loop of this one."""

    async def apply() -> None:
        async with Database.open(postgres_dsn, 1) as db:
            await apply_plans(db, packaged_plans(), time.time(), Author("tests", "tests"))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, apply()).result()


@pytest.fixture
def orbital(console: Console, catalogue: None) -> str:
    """An organization with a plan, a key and a member."""
    name = f"org-{uuid4().hex[:12]}"
    assert console.admin.put(f"/v1/organizations/{name}", json={"name": "Orbital Labs"}).status_code == 201
    key = console.admin.post(f"/v1/organizations/{name}/keys", json={"name": "robot"})
    member = console.admin.put(f"/v1/organizations/{name}/members/user_ada", json={"role": "owner"})
    plan = console.admin.put(f"/v1/entitlements/{name}", json={"plan": "starter"})
    assert plan.status_code == 200, plan.text
    assert (key.status_code, member.status_code) == (201, 201)
    return name


def link(console: Console, org: str, role: str = "owner", **content: str) -> str:
    made = console.admin.post("/v1/portal-sessions", json={"org": org, "role": role, **content})
    assert made.status_code == 201, made.text
    return str(made.json()["url"])


def come_in(page: Page, console: Console, org: str, role: str = "owner", **content: str) -> None:
    page.goto(link(console, org, role, **content))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()


def states(console: Console, org: str) -> dict[str, str]:
    """Of the keys, by their names."""
    listed = console.admin.get(f"/v1/organizations/{org}/keys").json()["keys"]
    return {each["name"]: each["state"] for each in listed}


def test_each_page_of_the_portal_is_usable_by_everybody(console: Console, page: Page, orbital: str) -> None:
    check_page(page, link(console, orbital))
    check_page(page, f"{console.url}/portal/sign-in")
    come_in(page, console, orbital)
    for path in PAGES:
        check_page(page, f"{console.url}/portal{path}")


def test_without_scripts_a_person_makes_a_key_and_revokes_it(console: Console, browser: Browser, orbital: str) -> None:
    page = new_page(browser, java_script_enabled=False, viewport={"width": 390, "height": 844})
    come_in(page, console, orbital, return_url="https://shop.example.com/account")
    expect(page.get_by_role("link", name="Back to Quotagate")).to_have_attribute("href", re.compile("shop.example"))
    page.goto(f"{console.url}/portal/keys")
    page.get_by_label("Name").fill("from the telephone")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_role("heading", level=1, name="Your new key")).to_be_visible()
    expect(page.locator("main code").first).to_contain_text("qg_live_")
    assert states(console, orbital)["from the telephone"] == "active"
    page.get_by_role("link", name="I have kept it").click()
    page.get_by_role("button", name="Revoke the key from the telephone").click()
    expect(page.get_by_text("The key is revoked")).to_be_visible()
    assert states(console, orbital)["from the telephone"] == "revoked"
    page.context.close()


def test_without_scripts_an_owner_chooses_alerts_a_cap_and_people(
    console: Console, browser: Browser, orbital: str
) -> None:
    page = new_page(browser, java_script_enabled=False, viewport={"width": 390, "height": 844})
    come_in(page, console, orbital)
    page.goto(f"{console.url}/portal/alerts")
    page.get_by_label("Percentages").fill("50, 90")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The alerts are set.")).to_be_visible()
    page.goto(f"{console.url}/portal/caps")
    page.get_by_label("Units beyond the allowance, at most").fill("500")
    page.get_by_role("button", name="Save the cap of api_calls").click()
    expect(page.get_by_text("At most 500 api_calls are bought")).to_be_visible()
    page.get_by_role("button", name="Undo the last change of the cap of api_calls").click()
    expect(page.get_by_text("There is no cap of your own for api_calls any more.")).to_be_visible()
    page.goto(f"{console.url}/portal/people")
    page.get_by_role("textbox", name="User").fill("user_grace")
    page.get_by_label("Role").select_option("admin")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("user_grace is an admin now.")).to_be_visible()
    page.get_by_role("button", name="Remove user_grace").click()
    expect(page.get_by_text("user_grace is no member any more.")).to_be_visible()
    page.goto(f"{console.url}/portal/usage")
    page.get_by_label("Apart for each").select_option("user")
    page.get_by_role("button", name="Apply").click()
    expect(page).to_have_url(re.compile("by=user"))
    assert console.admin.get(f"/v1/organizations/{orbital}/alerts").json()["percents"] == [50, 90]
    page.context.close()


def test_by_keyboard_alone_a_person_comes_in_and_adds_another(console: Console, page: Page, orbital: str) -> None:
    page.goto(link(console, orbital))
    expect(
        page.get_by_role("button", name="Continue")
    ).to_be_focused()  # a browser gives it when it first draws the page
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    page.goto(f"{console.url}/portal/people")
    page.get_by_role("textbox", name="User").focus()
    page.keyboard.type("user_grace")
    page.keyboard.press("Enter")
    expect(page.get_by_role("cell", name="user_grace", exact=True)).to_be_visible()


def test_a_session_ends_when_its_member_is_removed(console: Console, page: Page, orbital: str) -> None:
    members = f"/v1/organizations/{orbital}/members/user_eve"
    assert console.admin.put(members, json={"role": "admin"}).status_code == 201
    come_in(page, console, orbital, user="user_eve")
    assert console.admin.delete(members).status_code == 204
    page.reload()
    expect(page.get_by_role("heading", name="Sign in at Quotagate")).to_be_visible()


def test_a_customer_sees_nothing_of_the_console(console: Console, page: Page, orbital: str) -> None:
    come_in(page, console, orbital)
    page.goto(f"{console.url}/console")
    expect(page).to_have_url(re.compile("/console/sign-in"))


def sign_in_to_portal(page: Page, console: Console, person: dict[str, Any], path: str = "/portal") -> None:
    """As a customer does it, up to the answer of the portal."""
    written(console.directory, console.back, person)
    page.goto(f"{console.url}{path}")
    page.get_by_role("link", name="Continue with Example SSO").click()
    page.get_by_label("User name").fill(person["username"])
    page.get_by_label("Password").fill(person["password"])
    page.get_by_role("button", name="Sign in").click()


def test_a_customer_signs_in_by_the_vendors_provider_and_out_again(
    console: Console, browser: Browser, orbital: str
) -> None:
    page = new_page(browser, java_script_enabled=False)
    sign_in_to_portal(page, console, customer("grace", orbital, sub="user_ada"), "/portal/usage?days=90")
    expect(page).to_have_url(f"{console.url}/portal/usage?days=90")
    expect(page.locator(".person-box")).to_contain_text("Orbital Labs")
    [session] = console.admin.get("/v1/portal-sessions", params={"org": orbital}).json()["sessions"]
    assert (session["user"], session["role"], session["opened_by"]) == ("user_ada", "owner", "oidc:user_ada")
    page.get_by_role("button", name="Sign out").last.click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    page.get_by_role("link", name="Sign out of Quotagate, too").click()
    expect(page).to_have_url(f"{console.url}/portal/signed-out")
    page.goto(f"{console.url}/portal/sign-in/go")
    expect(page.get_by_label("Password")).to_be_visible()  # the provider does not know the person any more
    page.context.close()


def test_whom_the_provider_puts_into_no_organization_of_theirs_is_told_so(
    console: Console, browser: Browser, orbital: str
) -> None:
    for person, said in (
        (customer("mallory", orbital), "You are no member of this organization"),
        (customer("trent", "no-such-organization"), "names no organization of yours"),
        (customer("oscar", "<script>window.hit=1</script>"), "names no organization of yours"),
    ):
        page = new_page(browser)
        sign_in_to_portal(page, console, person)
        expect(page.get_by_role("heading", name="You have no access")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text(said)
        assert "__Host-quotagate-portal" not in {cookie["name"] for cookie in page.context.cookies()}
        page.get_by_role("link", name="Sign out of Example SSO").click()
        expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
        page.context.close()


def test_who_belongs_to_several_organizations_chooses_one(console: Console, page: Page, orbital: str) -> None:
    other = f"other-{uuid4().hex[:12]}"
    assert console.admin.put(f"/v1/organizations/{other}", json={"name": "Other"}).status_code == 201
    sign_in_to_portal(page, console, customer("heidi", orbital, other, "gone", org_role="admin"), "/portal/keys")
    expect(page.get_by_role("heading", name="Choose an organization")).to_be_visible()
    assert page.get_by_role("link", name="gone").count() == 0
    page.get_by_role("link", name=other).click()
    expect(page).to_have_url(f"{console.url}/portal/keys")
    expect(page.get_by_role("heading", level=1, name="API keys")).to_be_visible()
    page.goto(f"{console.url}/portal/sign-in/go?org=acme")  # one that the provider does not name
    expect(page.get_by_role("alert")).to_contain_text("names no organization of yours")

"""The customer's own portal in a real browser: every page, without scripts, by keyboard alone, on a telephone."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from control.db import Database
from control.entitlements.catalogue import apply_plans
from control.journal import Author
from tests.browser.checks import check_page
from tests.browser.running import Console, new_page
from tests.control.plane import packaged_plans

PAGES = ("", "/usage", "/usage?by=key&days=90", "/alerts", "/billing", "/keys", "/sites", "/people")


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

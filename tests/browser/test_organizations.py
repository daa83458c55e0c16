"""Organizations in a browser: found, filtered, looked at."""

import asyncio
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Page, expect

from control.db import Database
from control.entitlements.catalogue import apply_plans
from control.journal import Author
from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import Console
from tests.control.plane import packaged_plans
from tests.directory import VERA

TABS = ["", "/usage", "/entitlement", "/billing", "/people", "/access", "/incidents", "/journal"]
WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def organizations(console: Console, postgres_dsn: str) -> None:
    """Acme has a plan, used some of it, and has people and keys; others have less."""
    catalogue = threading.Thread(target=asyncio.run, args=(_apply(postgres_dsn),))  # Playwright's loop runs here
    catalogue.start()
    catalogue.join()
    admin = console.admin
    for org, name in (("acme", "Acme Rockets"), ("banana", "Banana Stand"), ("hostile", "<script>alert(1)</script>")):
        assert admin.put(f"/v1/organizations/{org}", json={"name": name}).status_code == 201
    assert admin.put("/v1/entitlements/acme", json={"plan": "tiny"}).status_code == 200
    later = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0).isoformat()
    assert admin.put("/v1/entitlements/acme", json={"plan": "growth", "effective_at": later}).status_code == 200
    assert admin.put("/v1/entitlements/banana", json={"plan": "growth"}).status_code == 200
    grant = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "an outage"}
    assert admin.post("/v1/organizations/acme/grants", json=grant).status_code == 201
    assert admin.put("/v1/users/user_1", json={"email": "ada@acme.example", "name": "Ada"}).status_code < 300
    assert admin.put("/v1/organizations/acme/members/user_1", json={"role": "owner"}).status_code < 300
    assert admin.post("/v1/organizations/acme/keys", json={"name": "production"}).status_code == 201
    record = {"meter": "api_calls", "units": 90, "idempotency_key": "k"}
    assert admin.post("/v1/usage", params={"org": "acme"}, json=record).status_code == 200
    deadline = time.monotonic() + WAIT_SECONDS
    while [each["id"] for each in listed(console, q="ada@acme", near_quota="true")] != ["acme"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listed(console: Console, **query: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = console.admin.get("/v1/organizations", params=query).json()["organizations"]
    return found


async def _apply(dsn: str) -> None:
    async with Database.open(dsn) as db:
        await apply_plans(db, packaged_plans(), time.time(), Author("tests", "tests"))


@pytest.mark.parametrize("tab", TABS)
def test_each_tab_of_an_organization_is_usable_by_everybody(
    console: Console, page: Page, organizations: None, tab: str
) -> None:
    signed_in(page, console)
    check_page(page, f"{console.url}/console/organizations/acme{tab}")


def test_the_list_is_usable_by_everybody_also_where_nothing_matches(
    console: Console, page: Page, organizations: None
) -> None:
    signed_in(page, console)
    check_page(page, f"{console.url}/console/organizations")
    check_page(page, f"{console.url}/console/organizations?q=nobody")
    expect(page.get_by_role("main")).to_contain_text("No organization matches")


def test_an_organization_is_found_while_typing_and_the_address_says_what_is_shown(
    console: Console, page: Page, organizations: None
) -> None:
    signed_in(page, console)
    page.get_by_role("link", name="Organizations").first.click()
    expect(page.get_by_role("link", name="Banana Stand")).to_be_visible()
    page.get_by_label("Id, name, e-mail, customer or key").fill("ada@acme")
    expect(page.get_by_role("link", name="Banana Stand")).to_have_count(0)
    expect(page).to_have_url(re.compile("q=ada"))
    page.reload()
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("row").last).to_contain_text("90")
    page.get_by_role("link", name="Acme Rockets").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Acme Rockets")


def test_without_scripts_filters_sorting_and_tabs_work(console: Console, browser: Browser, organizations: None) -> None:
    with plain(browser, console) as page:
        page.goto(f"{console.url}/console/organizations")
        page.get_by_label("Near quota").check()
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_role("row")).to_have_count(2)
        expect(page.get_by_role("main")).to_contain_text("1 organization")
        page.goto(f"{console.url}/console/organizations")
        page.get_by_role("link", name="Organization", exact=True).click()
        names = page.get_by_role("row").locator("td a")
        expect(names.first).to_have_text("<script>alert(1)</script>")
        page.get_by_role("link", name=re.compile("^Organization.*ascending")).click()
        expect(names.first).to_have_text("Banana Stand")
        page.get_by_role("link", name="Acme Rockets").click()
        tabs = page.get_by_role("navigation", name="Organization")
        tabs.get_by_role("link", name="Entitlement").click()
        expect(page.get_by_role("table", name="History")).to_contain_text("Scheduled")
        tabs.get_by_role("link", name="People").click()
        expect(page.get_by_role("main")).to_contain_text("ada@acme.example")
        tabs.get_by_role("link", name="Usage").click()
        page.get_by_label("Apart for").select_option("key")
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_role("main")).to_contain_text("Without a key")


def test_the_keyboard_alone_finds_and_opens_an_organization(console: Console, page: Page, organizations: None) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/organizations")
    page.get_by_label("Id, name, e-mail, customer or key").focus()
    page.keyboard.type("acme")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Banana Stand")).to_have_count(0)
    page.get_by_role("link", name="Acme Rockets").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Acme Rockets")


def test_all_that_match_are_given_a_grant_without_scripts_and_usage_is_admitted(
    console: Console, browser: Browser, organizations: None
) -> None:
    with plain(browser, console) as page:
        page.goto(f"{console.url}/console/organizations?q=acme")
        page.get_by_text("Do something to all that match").click()
        page.get_by_role("link", name="Grant units").click()
        page.get_by_label("Meter").fill("api_calls")
        page.get_by_label("Units").fill("1000")
        page.get_by_label("Expires at").fill("2099-01-01T00:00")
        page.get_by_role("button", name="Show the effect").click()
        expect(page.locator("#effect")).to_contain_text("left of")
        page.get_by_label("Reason").fill("an outage")
        page.get_by_role("button", name="Grant units: 1").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Grant units: 1")
        deadline = time.monotonic() + WAIT_SECONDS
        while "1 of 1" not in page.get_by_role("main").inner_text():
            assert time.monotonic() < deadline
            page.reload()
    record = {"meter": "api_calls", "units": 500, "idempotency_key": "after-the-grant"}
    assert console.admin.post("/v1/usage", params={"org": "acme"}, json=record).status_code == 200


def test_pages_of_actions_for_many_are_usable_by_everybody(console: Console, page: Page, organizations: None) -> None:
    signed_in(page, console)
    check_page(page, f"{console.url}/console/bulk-actions")
    address = f"{console.url}/console/bulk-actions/new/suspend?in_plan=growth&show=effect"
    check_page(page, address)
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name="Suspend:").click()
    expect(page.get_by_role("main")).to_contain_text("Waits for approval")
    check_page(page, page.url)


def test_who_may_do_nothing_is_offered_nothing(console: Console, page: Page, organizations: None) -> None:
    signed_in(page, console, VERA)
    page.goto(f"{console.url}/console/organizations/acme")
    expect(page.get_by_role("heading", level=1)).to_have_text("Acme Rockets")
    expect(page.get_by_role("region", name="Actions")).to_have_count(0)


def test_an_organization_that_is_not_there_has_a_page_that_says_so(
    console: Console, page: Page, organizations: None
) -> None:
    signed_in(page, console)
    answer = page.goto(f"{console.url}/console/organizations/nobody")
    assert answer is not None
    assert answer.status == 404


def test_each_page_and_its_json_have_the_same(console: Console, page: Page, organizations: None) -> None:
    signed_in(page, console)
    for path in ["?near_quota=true&status=", *(f"/acme{tab}" for tab in TABS)]:
        page.goto(f"{console.url}/console/organizations{path}")
        href = page.get_by_role("link", name="JSON").get_attribute("href")
        answer = page.request.get(f"{console.url}{href}")
        assert answer.status == 200, (path, href, answer.text())

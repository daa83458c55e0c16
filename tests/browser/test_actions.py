"""Actions in a browser: an effect before anything is done, two admins at once, a second person."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import WAIT_MS, Console, console_running, new_page
from tests.directory import VERA, with_roles, written
from tests.e2e.running import run_quotagate, wait_for

expect.set_options(timeout=WAIT_MS)  # a loaded machine takes its time

BOB = with_roles("bob", "quotagate-admins")
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>'; DROP TABLE admin_action; --"


@pytest.fixture(scope="module")
def console(
    tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, application_login: str, valkey: str
) -> Iterator[Console]:
    """Grants need a second person here, and Bob is one."""
    dsn = f"postgresql://{application_login}@{postgres_dsn.partition('@')[2]}"
    approvals: dict[str, Any] = {"approvals": {"actions": ["grant"]}}
    applied = run_quotagate("plans", "apply", "--dsn", postgres_dsn)
    assert applied.returncode == 0, applied.stderr
    with console_running(tmp_path_factory.mktemp("console"), dsn, valkey, approvals) as running:
        written(running.directory, running.back, BOB)
        yield running


@pytest.fixture
def org(console: Console) -> str:
    name = f"org-{uuid4().hex[:8]}"
    assert console.admin.put(f"/v1/organizations/{name}", json={"name": "Acme Rockets"}).status_code == 201
    assert console.admin.put(f"/v1/entitlements/{name}", json={"plan": "starter"}).status_code == 200
    return name


METER = "api_calls"


def pages_of(org: str) -> Iterator[str]:
    yield f"/console/organizations/{org}/actions"
    yield f"/console/organizations/{org}/actions/grant"
    yield f"/console/organizations/{org}/actions/override?show=effect&meter=api_calls&allowance=7"
    yield f"/console/organizations/{org}/actions/override?show=effect"
    yield "/console/approvals"


def test_each_page_is_usable_by_everybody(console: Console, page: Page, org: str) -> None:
    signed_in(page, console)
    for path in pages_of(org):
        check_page(page, f"{console.url}{path}")


def suspend(page: Page, console: Console, org: str, reason: str = "as agreed") -> None:
    page.goto(f"{console.url}/console/organizations/{org}/actions/suspend")
    page.get_by_role("button", name="Show the effect").click()
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name="Suspend", exact=True).click()


def is_suspended(console: Console, org: str) -> bool:
    entitlement = console.admin.get(f"/v1/entitlements/{org}")
    return entitlement.status_code == 200 and entitlement.json()["status"] == "suspended"


def actions_of(console: Console, org: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = console.admin.get(f"/v1/organizations/{org}/actions").json()["actions"]
    return listed


def test_of_two_admins_the_second_sees_what_the_first_has_done(console: Console, browser: Browser, org: str) -> None:
    with plain(browser, console) as ada, plain(browser, console, BOB) as bob:
        for page in (ada, bob):
            page.goto(f"{console.url}/console/organizations/{org}/actions/suspend?show=effect")
            page.get_by_label("Reason").fill("as agreed")
        ada.get_by_role("button", name="Suspend", exact=True).click()
        expect(ada.locator("#action")).to_contain_text("Done")
        bob.get_by_role("button", name="Suspend", exact=True).click()
        told = bob.get_by_role("alert").first
        expect(told).to_contain_text("Nothing was done")
        expect(told).to_contain_text("person:ada@example.com")
    assert len(actions_of(console, org)) == 1


def test_a_second_person_approves_in_a_browser_and_the_first_cannot(
    console: Console, browser: Browser, org: str
) -> None:
    def live() -> list[int]:
        grants = console.admin.get(f"/v1/organizations/{org}/grants").json()["grants"]
        return [each["units"] for each in grants if each["state"] == "live"]

    with plain(browser, console) as ada, plain(browser, console, BOB) as bob:
        query = f"show=effect&meter={METER}&units=500&expires_at=2090-01-01T00:00"
        ada.goto(f"{console.url}/console/organizations/{org}/actions/grant?{query}")
        ada.get_by_label("Reason").fill("an outage")
        ada.get_by_role("button", name="Ask for approval").click()
        expect(ada.locator("#action")).to_contain_text("Waiting")
        assert live() == []
        ada.get_by_role("link", name="To the approval").click()
        ada.get_by_role("button", name="Approve: Grant units").click()
        expect(ada.get_by_role("alert")).to_contain_text("Another person has to approve this")
        assert live() == []
        bob.goto(f"{console.url}/console/approvals")
        bob.get_by_role("row").filter(has_text=org).get_by_role("link").click()
        bob.get_by_role("button", name="Approve: Grant units").click()
        expect(bob.locator("#action")).to_contain_text("person:bob@example.com")
    assert live() == [500]


def test_a_grant_that_expires_on_a_day_is_good_until_its_end(
    console: Console, page: Page, browser: Browser, org: str
) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/organizations/{org}/actions/grant")
    expect(page.get_by_text("A day such as 2026-12-31, until its end")).to_be_visible()
    page.get_by_label("Meter").select_option(METER)
    page.get_by_label("Units").fill("5")
    page.get_by_label("Expires at").fill("2090-12-31")
    page.get_by_role("button", name="Show the effect").click()
    page.get_by_label("Reason").fill("an outage")
    page.get_by_role("button", name="Ask for approval").click()
    page.get_by_role("link", name="To the approval").click()
    with plain(browser, console, BOB) as bob:
        bob.goto(page.url)
        bob.get_by_role("button", name="Approve: Grant units").click()
        expect(bob.locator("#action")).to_contain_text("Done")
    grants = console.admin.get(f"/v1/organizations/{org}/grants").json()["grants"]
    assert [each["expires_at"] for each in grants] == ["2090-12-31T23:59:59Z"]


def test_a_request_is_declined_in_a_browser(console: Console, page: Page, browser: Browser, org: str) -> None:
    signed_in(page, console)
    query = f"show=effect&meter={METER}&units=7&expires_at=2090-01-01T00:00"
    page.goto(f"{console.url}/console/organizations/{org}/actions/grant?{query}")
    page.get_by_label("Reason").fill("an outage")
    page.get_by_role("button", name="Ask for approval").click()
    page.get_by_role("link", name="To the approval").click()
    check_page(page, page.url)
    with plain(browser, console, BOB) as bob:
        bob.goto(page.url)
        bob.get_by_label("Reason").fill("not agreed")
        bob.get_by_role("button", name="Decline").click()
        expect(bob.get_by_role("status").or_(bob.get_by_role("main")).first).to_contain_text("declined")
    assert [(each["state"], each["note"]) for each in actions_of(console, org)] == [("declined", "not agreed")]


def test_hostile_text_is_shown_as_text(console: Console, page: Page, org: str) -> None:
    signed_in(page, console)
    suspend(page, console, org, HOSTILE)
    expect(page.locator("#action")).to_contain_text(HOSTILE)
    assert page.title() != "taken"
    page.goto(f"{console.url}/console/organizations/{org}/actions")
    expect(page.get_by_role("table")).to_contain_text(HOSTILE)
    page.goto(f"{console.url}/console/organizations/{org}/actions/discount?show=effect&coupon=%3Cscript%3E")
    expect(page.get_by_role("alert")).to_be_visible()
    assert is_suspended(console, org)


def test_the_keyboard_alone_suspends_and_undoes(console: Console, page: Page, org: str) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/organizations/{org}/actions/suspend")
    page.get_by_role("button", name="Show the effect").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Effect", exact=True)).to_be_visible()
    page.get_by_label("Reason").focus()
    page.keyboard.type("as agreed")
    page.keyboard.press("Enter")
    expect(page.locator("#action")).to_contain_text("Done")
    assert is_suspended(console, org)
    page.get_by_label("Reason").focus()
    page.keyboard.type("a mistake")
    page.keyboard.press("Enter")
    expect(page.locator("#action")).to_contain_text("Undone")
    assert not is_suspended(console, org)


def test_an_action_is_undone_from_the_journal(console: Console, page: Page, org: str) -> None:
    signed_in(page, console)
    suspend(page, console, org)
    page.goto(f"{console.url}/console/journal?org={org}")
    page.get_by_role("link", name="action.done").first.click()
    page.get_by_role("link", name="The action, and its undo").click()
    check_page(page, page.url)
    page.get_by_label("Reason").fill("a mistake")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#action")).to_contain_text("Undone")
    assert not is_suspended(console, org)


def test_what_is_wrong_is_said_at_the_field_and_nothing_is_done(console: Console, page: Page, org: str) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/organizations/{org}/actions/override?show=effect&allowance=5")
    expect(page.get_by_role("alert")).to_contain_text("Meter goes with allowance")
    page.goto(f"{console.url}/console/organizations/{org}/actions/grant?show=effect&units=0&meter=x")
    expect(page.locator("#i-units-error")).to_be_visible()
    expect(page.get_by_role("button", name="Ask for approval")).to_have_count(0)


def test_who_may_not_sees_no_action_and_is_refused(console: Console, browser: Browser, org: str) -> None:
    page = new_page(browser)
    signed_in(page, console, VERA)
    page.goto(f"{console.url}/console/organizations/{org}/actions")
    expect(page.get_by_role("link", name="Suspend")).to_have_count(0)
    answer = page.goto(f"{console.url}/console/organizations/{org}/actions/suspend?show=effect")
    assert answer is not None
    assert answer.status == 403
    page.context.close()


FOCUSED = """() => {
    const at = document.activeElement;
    return (at.labels?.[0]?.innerText ?? at.getAttribute("aria-label") ?? at.innerText ?? "").trim();
}"""
TABS_MAX = 80


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until what has this name has the focus, and the browser shows that it has."""
    for _ in range(TABS_MAX):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED) == name:
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"nobody sees that {name} has the focus"
            return
    pytest.fail(f"{name} is not reached by the keyboard: {page.url}")


def enter(page: Page, name: str, leads_to: str) -> None:
    tab_to(page, name)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(leads_to))
    expect(page.get_by_role("main")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False])
def test_an_organization_is_found_suspended_and_resumed_without_a_mouse(
    console: Console, browser: Browser, scripts: bool
) -> None:
    org = f"mouseless-{uuid4().hex[:8]}"
    assert console.admin.put(f"/v1/organizations/{org}", json={"name": org}).status_code == 201
    assert console.admin.put(f"/v1/entitlements/{org}", json={"plan": "starter"}).status_code == 200
    assert wait_for(lambda: console.admin.get(f"/v1/organizations?q={org}").json()["organizations"] != [])
    page = new_page(browser, java_script_enabled=scripts)
    signed_in(page, console)
    enter(page, "Organizations", "/console/organizations$")
    tab_to(page, "Id, name, e-mail, customer or key")
    page.keyboard.type(org)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"q={org}"))
    expect(page.get_by_role("table", name="Organizations").get_by_role("link", name=org)).to_be_visible()
    enter(page, org, f"/organizations/{org}$")
    enter(page, "Suspend", "/actions/suspend$")
    enter(page, "Show the effect", "show=effect")
    tab_to(page, "Reason")
    page.keyboard.type("as agreed")
    page.keyboard.press("Enter")
    expect(page.locator("#action")).to_contain_text("Done")
    assert is_suspended(console, org)
    tab_to(page, "Reason")
    page.keyboard.type("a mistake")
    page.keyboard.press("Enter")
    expect(page.locator("#action")).to_contain_text("Undone")
    assert not is_suspended(console, org)
    page.context.close()

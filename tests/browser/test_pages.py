"""The pages that everybody sees, as they look and behave in a browser."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import Console


@pytest.fixture(scope="module")
def organizations(console: Console) -> None:
    for name in ("Acme Rockets", "Banana Stand", "Acorn Partners"):
        made = console.admin.put(f"/v1/organizations/{name.split()[0].lower()}", json={"name": name})
        assert made.status_code == 201


@pytest.mark.parametrize("path", ["/console", "/console/account", "/console/no-such-page"])
def test_a_page_is_usable_by_everybody(console: Console, page: Page, path: str) -> None:
    signed_in(page, console)
    check_page(page, f"{console.url}{path}")


@pytest.mark.parametrize("path", ["/console/sign-in", "/console/signed-out", "/console/link?code=x"])
def test_a_page_before_sign_in_is_usable_by_everybody(console: Console, page: Page, path: str) -> None:
    check_page(page, f"{console.url}{path}")


def test_the_menu_of_a_telephone_opens_without_scripts(console: Console, browser: Browser) -> None:
    with plain(browser, console) as page:
        page.set_viewport_size({"width": 390, "height": 800})
        expect(page.get_by_role("link", name="Overview")).to_have_count(0)
        page.get_by_text("Menu").click()
        expect(page.get_by_role("navigation").get_by_role("link", name="Overview")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading")).to_have_text("You are signed out")


def test_the_keyboard_alone_reaches_content_and_navigation(console: Console, page: Page) -> None:
    signed_in(page, console)
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_the_palette_leads_to_a_page_or_an_organization(console: Console, page: Page, organizations: None) -> None:
    signed_in(page, console)
    page.keyboard.press("/")
    dialog = page.get_by_role("dialog", name="Go to")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.type("over")
    expect(dialog.get_by_role("option", name="Overview")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{console.url}/console")


def test_the_overview_shows_what_was_changed_and_its_numbers_live(
    console: Console, page: Page, organizations: None
) -> None:
    signed_in(page, console)
    expect(page.get_by_role("region", name="Needs attention")).to_contain_text("Failed payments")
    expect(page.get_by_role("main")).to_contain_text("banana")
    drift = page.locator('[data-live-value="tiles.drift.number"]')
    expect(drift).to_have_text("0")
    drift.evaluate("element => { element.textContent = 'old' }")
    expect(drift).to_have_text("0")


def test_the_overview_opens_without_scripts(console: Console, browser: Browser, organizations: None) -> None:
    with plain(browser, console) as page:
        expect(page.get_by_role("region", name="Needs attention")).to_contain_text("Drift")

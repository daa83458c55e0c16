"""A person's data in a browser: found, taken along and erased, without scripts and without a trace in an address."""

import json
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from control.console.people.pages import LISTED
from tests.browser.checks import assert_accessible, check_page, plain, signed_in
from tests.browser.running import Console
from tests.directory import VERA


@pytest.fixture
def user(console: Console) -> str:
    """One with an address, who is a member."""
    org, name = f"org-{uuid4().hex[:8]}", f"user_{uuid4().hex[:8]}"
    console.admin.put(f"/v1/organizations/{org}", json={"name": org}).raise_for_status()
    given = {"email": f"{name}@example.com", "name": f"Name of {name}"}
    console.admin.put(f"/v1/users/{name}", json=given).raise_for_status()
    console.admin.put(f"/v1/organizations/{org}/members/{name}", json={"role": "member"}).raise_for_status()
    return name


def find(page: Page, console: Console, user: str) -> None:
    page.goto(f"{console.url}/console/people")
    page.get_by_label("E-mail address").fill(f"{user}@example.com")
    page.get_by_role("button", name="Show what is stored").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What is stored of a person")


def test_each_page_is_usable_by_everybody(console: Console, page: Page, user: str) -> None:
    console.admin.post("/v1/people/export", json={"user": user}).raise_for_status()
    signed_in(page, console)
    check_page(page, f"{console.url}/console/people")
    find(page, console, user)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert_accessible(page, f"what is stored at {width} px")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_person_is_found_taken_along_and_erased_without_scripts(
    console: Console, browser: Browser, user: str
) -> None:
    with plain(browser, console) as page:
        find(page, console, user)
        assert user not in page.url
        main = page.get_by_role("main")
        expect(main).to_contain_text("without address and name")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export as JSON").click()
        person = json.loads(download.value.path().read_text())
        assert [row["name"] for row in person["rows"]["app_user"]] == [f"Name of {user}"]
        page.get_by_label("Reason").fill("a letter of today")
        page.get_by_role("button", name="Erase this person").click()
        expect(page.get_by_role("status")).to_contain_text("The person is erased")
        expect(main).to_contain_text("a letter of today")
        expect(main).not_to_contain_text(f"{user}@example.com")
        page.get_by_label("E-mail address").fill(f"{user}@example.com")
        page.get_by_role("button", name="Show what is stored").click()
        expect(page.get_by_role("alert")).to_contain_text("Nothing is stored of such a person.")
    assert console.admin.get(f"/v1/users/{user}").status_code == 404
    entry = console.admin.get("/v1/journal", params={"action": "person.erased"}).json()["entries"][0]
    assert entry["after"]["reason"] == "a letter of today"


def test_without_a_reason_or_a_name_nothing_is_done(console: Console, page: Page, user: str) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/people")
    page.get_by_role("button", name="Show what is stored").click()
    expect(page.get_by_role("alert")).to_contain_text("ust name somebody: by user, email or subject")
    find(page, console, user)
    page.get_by_label("Reason").evaluate("field => field.removeAttribute('required')")
    page.get_by_role("button", name="Erase this person").click()
    expect(page.get_by_role("alert")).to_contain_text("Fill this in.")
    assert console.admin.get(f"/v1/users/{user}").status_code == 200


def test_after_a_search_that_finds_nobody_the_list_goes_on(console: Console, browser: Browser, user: str) -> None:
    for _ in range(LISTED + 1):
        console.admin.post("/v1/people/export", json={"user": user}).raise_for_status()
    with plain(browser, console) as page:
        page.goto(f"{console.url}/console/people")
        page.get_by_label("User id").fill(f"{user}-nobody")
        page.get_by_role("button", name="Show what is stored").click()
        expect(page.get_by_role("alert")).to_contain_text("Nothing is stored of such a person.")
        page.get_by_role("link", name="Next page").click()
        expect(page.get_by_role("main")).to_contain_text("Exported")
        page.get_by_role("link", name="First page").click()
        expect(page).to_have_url(f"{console.url}/console/people")


def test_who_may_not_see_people_has_no_way_there(console: Console, page: Page) -> None:
    signed_in(page, console, VERA)
    expect(page.get_by_role("navigation", name="Console").get_by_role("link", name="People")).to_have_count(0)
    page.goto(f"{console.url}/console/people")
    expect(page.get_by_role("heading", level=1)).to_have_text("You may not do this")

"""Sessions as facts: what ends one ends it at once, and a link opens the door once."""

import re

from playwright.sync_api import Browser, Page, expect

from tests.browser.running import (
    SESSION_COOKIE,
    Console,
    call,
    new_page,
    opens,
    page_token,
    session_of,
    sign_in,
)
from tests.directory import ADA, VERA

WAYS_OUT = re.compile("/console/sign-in")


def test_a_person_sees_and_ends_the_own_sessions(console: Console, browser: Browser, page: Page) -> None:
    sign_in(page, console, ADA)
    other = new_page(browser)
    sign_in(other, console, ADA)
    expect(other.get_by_role("row")).not_to_have_count(2)
    page.reload()
    expect(page.get_by_text("this one")).to_have_count(1)
    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_role("row")).to_have_count(2)  # the head of the table, and this one
    other.goto(f"{console.url}/console")
    expect(other).to_have_url(WAYS_OUT)
    other.context.close()
    page.get_by_role("button", name=re.compile("^End the session")).click()
    expect(page).to_have_url(WAYS_OUT)


def test_a_session_that_an_admin_ends_is_out_with_its_next_request(console: Console, scripted: Page) -> None:
    sign_in(scripted, console, VERA)
    expect(scripted.get_by_role("heading", name="Your account")).to_be_visible()
    assert call(scripted, "GET", "/v1/organizations") == 200
    [session] = [each for each in console.sessions() if each["email"] == "vera@example.com"]
    assert console.admin.delete(f"/v1/sessions/{session['id']}").status_code == 204
    assert call(scripted, "GET", "/v1/organizations") == 401
    scripted.goto(f"{console.url}/console")
    expect(scripted).to_have_url(WAYS_OUT)
    assert console.admin.delete(f"/v1/sessions/{session['id']}").status_code == 404


def test_all_sessions_of_a_person_end_together(console: Console, browser: Browser) -> None:
    pages = [new_page(browser) for _ in range(2)]
    for page in pages:
        sign_in(page, console, VERA)
        expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    ended = console.admin.delete("/v1/sessions", params={"person": "vera@example.com"})
    assert ended.json() == {"ended": 2}
    for page in pages:
        page.reload()
        expect(page).to_have_url(WAYS_OUT)
        page.context.close()


def test_nobody_ends_the_session_of_another_from_the_own_page(console: Console, browser: Browser, page: Page) -> None:
    sign_in(page, console, ADA)
    other = new_page(browser)
    sign_in(other, console, VERA)
    expect(other.get_by_role("heading", name="Your account")).to_be_visible()
    [hers] = [each["id"] for each in console.sessions() if each["email"] == "vera@example.com"]
    page.locator('input[name="session"]').first.evaluate("(field, id) => { field.value = id }", hers)
    page.get_by_role("button", name=re.compile("^End the session")).first.click()
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    assert hers in [each["id"] for each in console.sessions()]
    other.context.close()


def test_a_new_sign_in_has_another_session_and_ends_the_one_before(console: Console, page: Page) -> None:
    """Session fixation: whoever knows a session from before the sign-in has nothing of it afterwards."""
    sign_in(page, console, VERA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    before = session_of(page)
    page.goto(f"{console.url}/console/sign-in/example")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert session_of(page) != before
    assert opens(console, session_of(page))
    assert not opens(console, before)


def test_a_one_time_link_signs_in_once(console: Console, browser: Browser, page: Page) -> None:
    link = console.link("support")
    page.goto(link)
    page.reload()  # to look at it uses nothing up
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert page.url == f"{console.url}/console", "the code is in no address that stays"
    page.goto(f"{console.url}/console/account")
    expect(page.get_by_role("main")).to_contain_text("a one-time link")
    expect(page.get_by_role("main")).to_contain_text("support")
    second = new_page(browser)
    second.goto(link)
    second.get_by_role("button", name="Sign in").click()
    expect(second.get_by_role("heading")).to_have_text("This link is not good any more")
    assert session_free(second)
    second.context.close()
    assert link.partition("code=")[2] not in console.log.read_text()


def test_the_cookie_is_as_promised_and_no_secret_is_stored_or_logged(console: Console, page: Page) -> None:
    sign_in(page, console, ADA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    cookies = [cookie for cookie in page.context.cookies() if cookie["name"].startswith("__Host-quotagate")]
    assert [cookie["name"] for cookie in cookies] == [SESSION_COOKIE], "that of the attempt is gone"
    [cookie] = cookies
    assert (cookie["path"], cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == ("/", True, True, "Lax")
    assert cookie["domain"] == "127.0.0.1"
    assert page.evaluate("document.cookie") == ""
    log = console.log.read_text()
    assert cookie["value"] not in log
    assert page_token(page) not in log
    assert cookie["value"] not in page.content()


def session_free(page: Page) -> bool:
    return SESSION_COOKIE not in {cookie["name"] for cookie in page.context.cookies()}

"""A person signs in and out, in Chromium, by a real OpenID provider."""

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.running import Console, call, console_running, opens, page_token, session_of, sign_in
from tests.directory import ADA, NEMO, VERA, person, with_roles, written

WRITES = "/v1/organizations/of-the-console"


def test_an_admin_signs_in_by_the_provider_and_may_what_the_role_may(console: Console, scripted: Page) -> None:
    page = scripted
    sign_in(page, console, ADA)
    expect(page).to_have_url(f"{console.url}/console/account")
    expect(page.get_by_role("main")).to_contain_text("ada@example.com")
    expect(page.get_by_role("main")).to_contain_text("Example SSO")
    assert call(page, "PUT", WRITES, token=page_token(page), body='{"name": "One"}') == 201
    journal = console.admin.get("/v1/journal", params={"org": "of-the-console"}).json()["entries"]
    assert journal[0]["actor"] == "person:ada@example.com"


def test_a_viewer_reads_and_changes_nothing(console: Console, scripted: Page) -> None:
    page = scripted
    sign_in(page, console, VERA)
    expect(page.get_by_role("main")).to_contain_text("viewer")
    assert call(page, "GET", "/v1/organizations") == 200
    assert call(page, "PUT", WRITES, token=page_token(page), body='{"name": "Two"}') == 403
    assert call(page, "POST", "/v1/console-links", token=page_token(page), body="{}") == 403


def test_a_wrong_password_stays_at_the_provider(console: Console, page: Page) -> None:
    before = console.sessions()
    sign_in(page, console, ADA | {"password": "wrong"})
    expect(page.get_by_role("alert")).to_have_text("Wrong user name or password.")
    page.goto(f"{console.url}/console")
    expect(page).to_have_url(re.compile("/console/sign-in"))
    assert console.sessions() == before


def test_whoever_cancels_is_told_so_and_may_begin_again(console: Console, page: Page) -> None:
    page.goto(f"{console.url}/console")
    page.get_by_role("link", name="Continue with Example SSO").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading")).to_have_text("You are not signed in")
    page.get_by_role("link", name="Sign in again").click()
    expect(page.get_by_role("link", name="Continue with Example SSO")).to_be_visible()


def test_who_has_no_role_is_told_as_whom_and_has_no_session(console: Console, page: Page) -> None:
    before = console.sessions()
    sign_in(page, console, NEMO)
    expect(page.get_by_role("heading")).to_have_text("You have no access")
    expect(page.get_by_role("alert")).to_contain_text("nemo@example.com")
    assert "__Host-quotagate" not in {cookie["name"] for cookie in page.context.cookies()}
    assert console.sessions() == before


def test_a_name_in_a_claim_is_text_on_the_page(console: Console, page: Page) -> None:
    mallory = with_roles("mallory", "quotagate-viewers", name="<script>alert(1)</script><b>M</b>")
    written(console.directory, console.back, mallory)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    sign_in(page, console, mallory)
    expect(page.get_by_role("main")).to_contain_text("<script>alert(1)</script><b>M</b>")
    assert dialogs == []


def test_an_address_that_is_not_verified_is_nobodys(console: Console, page: Page) -> None:
    eve = with_roles("eve", "quotagate-viewers", email="ada@example.com", email_verified=False)
    written(console.directory, console.back, eve)
    sign_in(page, console, eve)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    expect(page.get_by_role("main")).not_to_contain_text("ada@example.com")


def test_the_person_comes_back_to_the_page_that_was_asked_for(console: Console, page: Page) -> None:
    sign_in(page, console, ADA, "/console/sign-in?return=/console/signed-out")
    expect(page).to_have_url(f"{console.url}/console/signed-out")


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/console/../../evil"])
def test_no_address_leads_elsewhere_after_the_sign_in(console: Console, page: Page, elsewhere: str) -> None:
    sign_in(page, console, ADA, f"/console/sign-in?return={elsewhere}")
    expect(page).to_have_url(f"{console.url}/console")


def test_sign_out_ends_the_session_also_for_who_kept_the_cookie(console: Console, page: Page) -> None:
    sign_in(page, console, ADA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    kept = session_of(page)
    assert opens(console, kept)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading")).to_have_text("You are signed out")
    assert "__Host-quotagate" not in {cookie["name"] for cookie in page.context.cookies()}
    assert not opens(console, kept)


def test_the_person_can_sign_out_of_the_provider_too(console: Console, page: Page) -> None:
    sign_in(page, console, ADA)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in again").click()
    page.get_by_role("link", name="Continue with Example SSO").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()  # the provider still knew who it was
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign out of Example SSO, too").click()
    expect(page).to_have_url(f"{console.url}/console/signed-out")
    page.goto(f"{console.url}/console/sign-in/example")
    expect(page.get_by_label("Password")).to_be_visible()


def test_an_answer_that_another_browser_asked_for_signs_nobody_in(console: Console, page: Page) -> None:
    """Login CSRF: whoever has a victim open the answer to their own sign-in would see what the victim does then."""
    with httpx.Client() as attacker:
        begun = attacker.get(f"{console.url}/console/sign-in/example")
        form = {"username": ADA["username"], "password": ADA["password"], "action": "login"}
        answer = attacker.post(begun.headers["location"], data=form).headers["location"]
    assert answer.startswith(console.back)
    page.goto(f"{console.url}/console/sign-in/example")  # the victim has begun a sign-in, too, as it happens
    page.goto(answer)
    expect(page.get_by_role("heading")).to_have_text("This sign-in cannot go on")
    page.goto(f"{console.url}/console")
    expect(page).to_have_url(re.compile("/console/sign-in"))


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, application_login: str, valkey: str
) -> Iterator[Console]:
    """A console that asks for a second factor."""
    dsn = f"postgresql://{application_login}@{postgres_dsn.partition('@')[2]}"
    asked = {"acr_values": ["urn:mfa"], "require_acr": ["urn:mfa"], "prompt": "login"}
    with console_running(tmp_path_factory.mktemp("strict"), dsn, valkey, **asked) as running:
        yield running


def test_without_the_second_factor_that_is_required_nobody_enters(strict: Console, page: Page) -> None:
    sign_in(page, strict, VERA)
    expect(page.get_by_role("heading")).to_have_text("A stronger sign-in is required")
    sign_in(page, strict, ADA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()


def test_a_provider_that_is_away_is_said_in_plain_words(
    tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, application_login: str, valkey: str, page: Page
) -> None:
    dsn = f"postgresql://{application_login}@{postgres_dsn.partition('@')[2]}"
    with console_running(tmp_path_factory.mktemp("away"), dsn, valkey, issuer="http://127.0.0.1:9") as console:
        page.goto(f"{console.url}/console")
        page.get_by_role("link", name="Continue with Example SSO").click()
        expect(page.get_by_role("heading")).to_have_text("Sign-in is not possible now")
        assert person("nobody")["username"] not in console.log.read_text()

"""What an admin looks at all day, in a browser: live tiles, incidents, the journal."""

import json
import re
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from devstack import postgres
from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import Console
from tests.directory import VERA

OPEN = """
    INSERT INTO incident (id, kind, key, org, content, count, opened_at, last_seen_at)
    VALUES ('{id}', '{kind}', '{key}', {org}, '{content}', 3, now() - interval '1 hour', now())
"""


def opened(dsn: str, kind: str = "drift", org: str | None = None) -> str:
    incident, key = str(uuid4()), org or uuid4().hex[:8]
    named = "NULL" if org is None else f"'{org}'"
    content = json.dumps({"units": 5, "cause": "<b>counted</b>"})
    postgres.execute(dsn, OPEN.format(id=incident, kind=kind, key=key, org=named, content=content))
    return incident


@pytest.fixture(autouse=True)
def furnished(console: Console, postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, "TRUNCATE incident CASCADE")
    console.admin.put("/v1/organizations/acme", json={"name": "Acme"})


def tile(page: Page, name: str) -> str:
    return f'[data-live-value="tiles.{name}.number"]'


def test_each_page_is_usable_by_everybody(console: Console, page: Page, postgres_dsn: str) -> None:
    incident = opened(postgres_dsn, "payment_failed", "acme")
    entry = console.admin.get("/v1/journal").json()["entries"][0]["id"]
    signed_in(page, console)
    for path in ("incidents", "incidents/kinds/drift", f"incidents/{incident}", "journal", f"journal/{entry}"):
        check_page(page, f"{console.url}/console/{path}")


def test_tiles_change_by_themselves_and_say_so_when_the_session_has_ended(
    console: Console, page: Page, postgres_dsn: str
) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/incidents")
    expect(page.locator(tile(page, "drift"))).to_have_text("0")
    incident = opened(postgres_dsn)
    expect(page.locator(tile(page, "drift"))).to_have_text("1")
    expect(page.get_by_role("region", name="Needs attention")).to_contain_text("since")
    console.admin.post(f"/v1/incidents/{incident}/resolve")
    expect(page.locator(tile(page, "drift"))).to_have_text("0")
    for session in console.sessions():
        console.admin.delete(f"/v1/sessions/{session['id']}")
    expect(page.locator("[data-live-status]")).to_contain_text("Sign in again")


def test_an_incident_is_acknowledged_noted_and_resolved_with_the_keyboard_alone(
    console: Console, page: Page, postgres_dsn: str
) -> None:
    incident = opened(postgres_dsn, "payment_failed", "acme")
    signed_in(page, console)
    page.goto(f"{console.url}/console/incidents")
    page.get_by_role("link", name="Payment failed").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Payment failed")
    expect(page.get_by_role("main")).to_contain_text("Write to the customer")
    page.get_by_role("button", name="Acknowledge").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="acknowledged")).to_be_visible()
    page.get_by_label("Note").focus()
    page.keyboard.type("asked <script>alert(1)</script>")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("asked <script>alert(1)</script>")
    page.get_by_role("button", name="Resolve").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("Resolved")
    shown = console.admin.get(f"/v1/incidents/{incident}").json()
    assert shown["closed_at"] is not None
    assert [note["text"] for note in shown["notes"]] == ["asked <script>alert(1)</script>"]


def test_the_same_without_scripts(console: Console, browser: Browser, postgres_dsn: str) -> None:
    incident = opened(postgres_dsn, "usage_lost")
    with plain(browser, console) as page:
        page.goto(f"{console.url}/console/incidents")
        expect(page.locator(tile(page, "ledger_faults"))).to_have_text("1")
        opened(postgres_dsn, "usage_lost")
        page.get_by_role("link", name="Reload").click()
        expect(page.locator(tile(page, "ledger_faults"))).to_have_text("2")
        page.get_by_role("link", name="Ledger faults").click()
        expect(page.get_by_label("Tile")).to_have_value("ledger_faults")
        expect(page.get_by_role("table").get_by_role("link", name="Usage may be lost")).to_have_count(2)
        page.get_by_label("Kind").select_option("usage_lost")
        page.get_by_role("button", name="Apply").click()
        page.goto(f"{console.url}/console/incidents/{incident}")
        page.get_by_role("button", name="Acknowledge").click()
        page.get_by_role("button", name="Add the note").click()
        assert page.get_by_role("button", name="Withdraw acknowledgement").is_visible()
        page.get_by_role("button", name="Resolve").click()
        expect(page.get_by_role("main")).to_contain_text("Resolved")
    assert console.admin.get(f"/v1/incidents/{incident}").json()["closed_at"] is not None


def test_who_may_only_look_has_no_buttons_and_is_refused(console: Console, page: Page, postgres_dsn: str) -> None:
    incident = opened(postgres_dsn)
    signed_in(page, console, VERA)
    page.goto(f"{console.url}/console/incidents/{incident}")
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
    expect(page.get_by_role("button", name="Resolve")).to_have_count(0)
    expect(page.get_by_label("Note")).to_have_count(0)
    token = page.evaluate("document.querySelector('input[name=token]').value")
    status = page.evaluate(
        "([path, token]) => fetch(path, {method: 'POST', body: new URLSearchParams({token}), redirect: 'manual'})"
        ".then(answer => answer.status)",
        [f"/console/incidents/{incident}/resolve", token],
    )
    assert status == 403


def test_the_journal_is_searched_and_shows_what_was_and_is(console: Console, page: Page, browser: Browser) -> None:
    console.admin.put("/v1/organizations/acme", json={"name": "Acme Renamed"})
    signed_in(page, console)
    page.goto(f"{console.url}/console/journal")
    page.get_by_label("Words").fill("renamed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="session.began")).to_have_count(0)
    assert "q=renamed" in page.url
    page.get_by_role("link", name="organization.renamed").first.click()
    row = page.get_by_role("row").filter(has_text="name")
    expect(row).to_contain_text("Acme Renamed")
    with plain(browser, console) as without:
        without.goto(f"{console.url}/console/journal?org=acme&since=2020-01-01")
        assert without.get_by_role("link", name="organization.renamed").first.is_visible()
        without.goto(f"{console.url}/console/journal?q=nowhere")
        expect(without.get_by_role("main")).to_contain_text("No entry is like that")


def test_all_incidents_can_be_listed_and_their_json_is_the_same_list(console: Console, page: Page) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/incidents?status=&kind=&org=")
    expect(page.get_by_label("Status")).to_have_value("open")
    page.get_by_label("Status").select_option("All")
    expect(page).to_have_url(re.compile("status=all"))
    page.goto(page.url)
    assert page.get_by_role("link", name="JSON").get_attribute("href") == "/v1/incidents"

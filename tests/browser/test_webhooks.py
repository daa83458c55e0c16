"""Messages in a browser: payloads, attempts, another try."""

import json
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from devstack import postgres
from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import Console
from tests.directory import VERA

EVENT = """
    INSERT INTO webhook_event
        (id, type, customer, created_at, received_at, payload, attempts, next_attempt_at, last_error, outcome, ended_at)
    VALUES ('{id}', 'invoice.paid', 'cus_1', now(), now(), '{payload}', 40, now(), 'broken', 'dead', now());
    INSERT INTO webhook_attempt (event, at, attempt, error) VALUES ('{id}', now(), 40, 'no <i>answer</i>')
"""
NOTIFICATION = """
    INSERT INTO notification (id, type, org, body, created_at, attempts, next_attempt_at, last_error, outcome, ended_at)
    VALUES ('{id}', 'usage.threshold', 'acme', '{{"used": 80}}', now(), 11, now(), 'answered 500', 'given_up', now());
    INSERT INTO notification_attempt VALUES ('{id}', now(), 11, 'answered 500')
"""


@pytest.fixture(autouse=True)
def furnished(console: Console, postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, "TRUNCATE webhook_event, notification CASCADE")


def dead_event(dsn: str) -> str:
    event = f"evt_{uuid4().hex}"
    payload = json.dumps({"id": event, "data": {"object": {"id": "in_1", "note": "<script>alert(1)</script>"}}})
    postgres.execute(dsn, EVENT.format(id=event, payload=payload))
    return event


def given_up(dsn: str) -> str:
    notification = str(uuid4())
    postgres.execute(dsn, NOTIFICATION.format(id=notification))
    return notification


def test_each_page_is_usable_by_everybody(console: Console, page: Page, postgres_dsn: str) -> None:
    event, notification = dead_event(postgres_dsn), given_up(postgres_dsn)
    signed_in(page, console)
    for path in ("", f"/{event}", "/replay", "/notifications", f"/notifications/{notification}", "/clerk"):
        check_page(page, f"{console.url}/console/webhooks{path}")


def test_an_event_shows_what_stripe_sent_and_why_attempts_failed(
    console: Console, page: Page, postgres_dsn: str
) -> None:
    event = dead_event(postgres_dsn)
    signed_in(page, console)
    page.goto(f"{console.url}/console/webhooks?state=dead")
    page.get_by_role("link", name=event).click()
    expect(page.get_by_role("main")).to_contain_text("<script>alert(1)</script>")
    expect(page.get_by_role("main")).to_contain_text("no <i>answer</i>")
    page.goto(f"{console.url}/console/webhooks/replay")
    expect(page.get_by_role("heading", level=2)).to_have_text("Process 1 event again?")


def test_a_notification_is_sent_again_without_scripts(console: Console, browser: Browser, postgres_dsn: str) -> None:
    notification = given_up(postgres_dsn)
    with plain(browser, console) as page:
        page.goto(f"{console.url}/console/webhooks/notifications?state=given_up")
        page.get_by_role("link", name="usage.threshold").click()
        page.get_by_role("button", name="Send again").click()
        expect(page.get_by_role("main")).to_contain_text("Pending")
    assert console.admin.get(f"/v1/notifications/{notification}").json()["state"] == "pending"


def test_all_that_were_given_up_are_sent_again_by_the_keyboard(console: Console, page: Page, postgres_dsn: str) -> None:
    made = [given_up(postgres_dsn) for _ in range(3)]
    signed_in(page, console)
    page.goto(f"{console.url}/console/webhooks/notifications")
    page.get_by_role("button", name="Send again what was given up").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Sent again: 3")).to_be_visible()
    assert {console.admin.get(f"/v1/notifications/{each}").json()["state"] for each in made} == {"pending"}


def test_who_may_only_look_has_no_buttons(console: Console, page: Page, postgres_dsn: str) -> None:
    event = dead_event(postgres_dsn)
    signed_in(page, console, VERA)
    for path in ("", f"/{event}", "/replay", "/notifications"):
        page.goto(f"{console.url}/console/webhooks{path}")
        expect(page.get_by_role("main").get_by_role("button", name="Replay")).to_have_count(0)
        expect(page.get_by_role("main").get_by_role("button", name="Send again")).to_have_count(0)

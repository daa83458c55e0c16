"""`<quotagate-usage>` in the page of a vendor: the example, under a strict policy."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from devstack.ports import free_port
from tests.browser.checks import assert_accessible
from tests.browser.running import Console
from tests.browser.test_portal import catalogue, orbital
from tests.control.plane import ADMIN_TOKEN

__all__ = ["catalogue", "orbital"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "embed" / "server.py"


@pytest.fixture
def vendor(console: Console, orbital: str) -> Iterator[str]:
    """The address of the example's page."""
    port = free_port()
    environ = {**os.environ, "QUOTAGATE_CONTROL_URL": console.url, "QUOTAGATE_TOKEN": ADMIN_TOKEN}
    command = [sys.executable, str(EXAMPLE), "--org", orbital, "--port", str(port)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def test_the_element_shows_usage_in_a_page_of_a_vendor_under_a_strict_policy(vendor: str, page: Page) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(vendor)
    element = page.locator("quotagate-usage")
    expect(element.get_by_text("api_calls")).to_be_visible()
    expect(element.get_by_text(re.compile(r"^0 of [\d,]+$"))).to_be_visible()
    expect(element.get_by_text(re.compile("^Resets"))).to_be_visible()
    expect(element).to_have_attribute("aria-busy", "false")
    assert_accessible(page, vendor)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []


def test_a_page_whose_server_is_away_says_so_and_looks_again(vendor: str, page: Page) -> None:
    page.route("**/api/usage", lambda route: route.fulfill(status=503, body="{}"))
    page.goto(vendor)
    element = page.locator("quotagate-usage")
    expect(element.get_by_text("Usage is not known at the moment.")).to_be_visible()
    page.unroute("**/api/usage")
    element.evaluate("element => element.refresh()")
    expect(element.get_by_text("api_calls")).to_be_visible()


def test_names_are_text_and_a_forecast_is_a_sentence(vendor: str, page: Page) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    document = {
        "period": {"start": "2026-12-01T00:00:00Z", "end": "2027-01-01T00:00:00Z"},
        "meters": [
            {
                "meter": hostile,
                "used": 900,
                "limit": 1000,
                "remaining": 100,
                "at_end": {"low": 1, "likely": 2, "high": 3},
                "runs_out": {"earliest": "2026-12-12T12:00:00Z", "likely": None, "latest": "2026-12-17T12:00:00Z"},
            }
        ],
    }
    page.route("**/api/usage", lambda route: route.fulfill(json=document))
    page.on("dialog", lambda dialog: pytest.fail(f"it ran: {dialog.message}"))
    page.goto(vendor)
    element = page.locator("quotagate-usage")
    expect(element.get_by_text(hostile)).to_be_visible()
    expect(element.get_by_text(re.compile(r"100 left\. Runs out December 12 . 17\."))).to_be_visible()


def test_a_token_that_has_expired_is_asked_for_again(vendor: str, page: Page) -> None:
    seen: list[str | None] = []
    expired = False

    def give(route: Route) -> None:
        route.fulfill(json={"token": "new" if expired else "old"})

    def answer(route: Route) -> None:
        token = route.request.headers.get("authorization")
        seen.append(token)
        is_good = token == ("Bearer new" if expired else "Bearer old")
        route.fulfill(status=200 if is_good else 401, json={"period": None, "meters": []})

    page.route("**/api/token", give)
    page.route("**/api/usage", answer)
    page.goto(vendor)
    element = page.locator("quotagate-usage")
    element.evaluate("element => { element.setAttribute('token-src', '/api/token'); return element.refresh(); }")
    expect(element.get_by_text("Nothing can be used at the moment.")).to_be_visible()
    expired = True
    seen.clear()
    element.evaluate("element => element.refresh()")
    expect(element.get_by_text("Nothing can be used at the moment.")).to_be_visible()
    assert seen == ["Bearer old", "Bearer new"]

"""Texts of others are shown as texts: on every page, from every field, and in every parameter of an address."""

import re
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi.routing import APIRoute
from playwright.sync_api import Dialog, Page

from tests.browser.checks import signed_in
from tests.browser.hostile import PARAMETERS, STRINGS, ids, store_everywhere
from tests.browser.routes import page_routes, pattern_of
from tests.browser.running import SESSION_COOKIE, Console, session_of

ADDRESSES_OF_A_PAGE_MAX = 3
LOADED = "img[src='x'], iframe, main script, [onerror], [onload], [onfocus], [onmouseover], [ontoggle], [onbegin]"


@pytest.fixture(scope="module")
def hostile(console: Console, postgres_dsn: str) -> Console:
    store_everywhere(console, postgres_dsn)
    return console


def links_of(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all("a[href]", "links => links.map(link => link.getAttribute('href'))")
    return [urljoin(page.url, each) for each in found]


def test_no_text_that_is_stored_becomes_a_part_of_a_page(hostile: Console, page: Page) -> None:
    dialogs: list[str] = []

    def close(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", close)
    signed_in(page, hostile)
    waiting, seen = [page.url], dict[str, set[str]]()
    waiting += [f"{hostile.url}/console/organizations/{org}" for org in ids()[:2]]
    while waiting:
        address = waiting.pop(0)
        parts = urlsplit(address)
        pattern = pattern_of(parts.path)
        if pattern is None or not address.startswith(hostile.url):
            continue
        addresses = seen.setdefault(pattern, set())
        if parts.path in addresses or len(addresses) >= ADDRESSES_OF_A_PAGE_MAX:
            continue
        addresses.add(parts.path)
        answer = page.goto(address)
        assert answer is not None
        assert answer.status < 500, address
        assert page.evaluate("window.hit") is None, address
        assert page.locator(LOADED).count() == 0, address
        assert not any(href.startswith("javascript:") for href in links_of(page)), address
        waiting += links_of(page)
    assert dialogs == []
    assert {"/console", "/console/account"} <= seen.keys()
    for org, text in zip(ids(), STRINGS, strict=True):
        assert hostile.admin.get(f"/v1/organizations/{org}").json()["name"] == text


def queries_of(route: APIRoute) -> list[str]:
    return [str(field.alias) for field in route.dependant.query_params]


def test_no_parameter_of_an_address_becomes_a_part_of_a_page(hostile: Console, page: Page) -> None:
    """Asked for without a browser: the texts may be in the answer, but only as texts."""
    signed_in(page, hostile)
    tried, faults, markup = (
        0,
        set[tuple[str, str, str]](),
        [text for text in STRINGS if "<" in text and "&lt;" not in text],
    )
    with httpx.Client(headers={"cookie": f"{SESSION_COOKIE}={session_of(page)}"}, timeout=60) as client:
        for route in page_routes():
            path = re.sub(r"{org(:\w+)?}", ids()[0], route.path)
            path = re.sub(r"{\w+(:\w+)?}", "x", path)
            for name in [*queries_of(route), "unknown"]:
                for given in PARAMETERS:
                    answer = client.get(f"{hostile.url}{path}", params={name: given})
                    if answer.status_code >= 500:
                        faults.add((path, name, f"{answer.status_code}"))
                    faults |= {(path, name, text) for text in markup if text in answer.text}
                    tried += 1
    assert faults == set()
    assert tried >= 100 * len(PARAMETERS)
    assert len(hostile.admin.get("/v1/organizations").json()["organizations"]) >= len(STRINGS)

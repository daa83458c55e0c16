"""Texts of others are texts in the portal, too: from each field that is stored, in each parameter of an address."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import asyncpg
import httpx
import pytest
from fastapi.routing import APIRoute
from playwright.sync_api import Dialog, Page, expect

from control.access.signin.same_origin import token_of
from control.http.signed_in import PORTAL_COOKIE
from control.portal.routers import ROUTERS
from tests.browser.hostile import PARAMETERS, STRINGS
from tests.browser.running import Console

LOADED = "img[src='x'], iframe, main script, [onerror], [onload], [onfocus], [onmouseover], [ontoggle], [onbegin]"
OPEN = {"/portal/brand.css", "/portal/logo", "/portal/quotagate-usage.js"}


@pytest.fixture(scope="module")
def hostile(console: Console, postgres_dsn: str) -> str:
    """An organization with each text in each field that the portal shows."""
    org = f"hostile-{uuid4().hex[:12]}"
    console.admin.put(f"/v1/organizations/{org}", json={"name": "Hostile"})
    for text in STRINGS:
        made = console.admin.post(f"/v1/organizations/{org}/keys", json={"name": text})
        assert made.status_code in (201, 422), made.text
    console.admin.post(f"/v1/organizations/{org}/activation-codes", json={"sites": 1})
    with ThreadPoolExecutor(1) as elsewhere:  # Playwright has an event loop in this thread
        elsewhere.submit(asyncio.run, store(postgres_dsn, org)).result()
    return org


async def store(dsn: str, org: str) -> None:
    """What comes from other systems, past the checks of our own API."""
    connection = await asyncpg.connect(dsn)
    try:
        for number, text in enumerate(STRINGS):
            await connection.execute(
                "INSERT INTO site (id, org, code, product, name, domain, key, kind, state, activated_at, seen_at) "
                "SELECT $2, $1, c.id, 'p', $3, $4, 'k', 'production', 'active', now(), now() "
                "FROM activation_code c WHERE c.org = $1",
                *(org, f"{org}-{number}", text if number % 2 else None, f"{number}.{text}"),
            )
            await connection.execute(
                "INSERT INTO invoice_ref (id, org, customer, number, status, currency, total_minor, amount_paid_minor, "
                "amount_remaining_minor, period_start, period_end, created_at, hosted_url, pdf_url) "
                "VALUES ($2, $1, 'cus', $3, $3, 'usd', 1, 1, 0, now(), now(), now(), $3, $3)",
                *(org, f"{org}-{number}", text),
            )
    finally:
        await connection.close()


def come_in(page: Page, console: Console, org: str) -> str:
    """The session's secret."""
    overview = page.get_by_role("heading", level=1, name="Overview")
    waits = page.get_by_role("heading", level=1, name="Wait a moment")  # what other tests tried counts as guesses
    for _ in range(30):
        page.goto(console.admin.post("/v1/portal-sessions", json={"org": org, "role": "owner"}).json()["url"])
        page.get_by_role("button", name="Continue").click()
        expect(overview.or_(waits)).to_be_visible()
        if overview.is_visible():
            break
        page.wait_for_timeout(1000)
    expect(overview).to_be_visible()
    [secret] = [cookie["value"] for cookie in page.context.cookies() if cookie["name"] == PORTAL_COOKIE]
    return str(secret)


def routes() -> Iterator[APIRoute]:
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and "GET" in (route.methods or ()) and route.path not in OPEN:
                yield route


def test_no_text_that_is_stored_becomes_a_part_of_the_portal(console: Console, page: Page, hostile: str) -> None:
    said: list[str] = []

    def close(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", close)
    come_in(page, console, hostile)
    paths = sorted({route.path for route in routes() if "link" not in route.path and "sign" not in route.path})
    assert len(paths) >= 8
    for path in [*paths, "/portal/usage?by=user"]:
        waiting, seen = [path], set[str]()
        while waiting:
            address = waiting.pop()
            seen.add(address)
            answer = page.goto(f"{console.url}{address}")
            assert answer is not None
            assert answer.status < 500, address
            check(page, address)
            following = page.get_by_role("link", name="Next page")
            waiting += [each for each in (following.first.get_attribute("href"),) if each] if following.count() else []
    for text in STRINGS:
        assert console.admin.put(f"/v1/organizations/{hostile}", json={"name": text}).status_code == 200
        page.goto(f"{console.url}/portal")
        check(page, text)
        assert text in page.locator(".person-box").inner_text() or "\N{ZERO WIDTH SPACE}" in text
    assert said == []


def check(page: Page, where: str) -> None:
    assert page.evaluate("window.hit") is None, where
    assert page.locator(LOADED).count() == 0, where
    links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    assert not any(link.startswith("javascript:") for link in links), where


def test_no_parameter_of_an_address_becomes_a_part_of_the_portal(console: Console, page: Page, hostile: str) -> None:
    secret, tried, faults = come_in(page, console, hostile), 0, set[tuple[str, ...]]()
    with httpx.Client(base_url=console.url, headers={"cookie": f"{PORTAL_COOKIE}={secret}"}, timeout=60) as client:
        for route in routes():
            path = re.sub(r"{\w+}", "x", route.path)
            for name in [*(str(field.alias) for field in route.dependant.query_params), "unknown"]:
                for given in PARAMETERS:
                    if path == "/portal/sign-in/go" and name == "unknown":
                        continue
                    answer = client.get(path, params={name: given})
                    where = answer.headers.get("location", "/portal")
                    if answer.status_code >= 500 or not where.startswith(("/portal", "http://127.0.0.1")):
                        faults.add((path, name, given, str(answer.status_code), where))
                    faults |= {(path, name, text) for text in STRINGS if "<" in text and text in answer.text}
                    tried += 1
    assert faults == set()
    assert tried >= 10 * len(PARAMETERS)


def test_no_field_of_a_form_becomes_a_part_of_the_portal(console: Console, page: Page, hostile: str) -> None:
    secret, faults = come_in(page, console, hostile), set[tuple[str, ...]]()
    headers = {"cookie": f"{PORTAL_COOKIE}={secret}", "sec-fetch-site": "same-origin"}
    forms = {"keys": "name", "people": "user", "alerts": "percents", "caps/api_calls": "units", "caps/x": "was"}
    with httpx.Client(base_url=console.url, headers=headers, timeout=60) as client:
        for path, field in forms.items():
            for text in STRINGS:
                form = {"token": token_of(secret), "role": "member", field: text}
                answer = client.post(f"/portal/{path}", data=form)
                if answer.status_code >= 500 or ("<" in text and text in answer.text):
                    faults.add((path, text, str(answer.status_code)))
    assert faults == set()

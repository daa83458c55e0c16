"""Each action is done in a browser, and its effect is seen at the gateway."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.running import WAIT_MS, chromium, new_page
from tests.e2e.running import Command, Up, wait_for

expect.set_options(timeout=WAIT_MS)  # a loaded machine takes its time


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = chromium(playwright)
        if running is None:
            pytest.skip("needs Chromium: apt-get install chromium, or playwright install chromium")
        yield running
        running.close()


@pytest.fixture
def scripts() -> bool:
    """Without them, unless a test says otherwise: what works so works with them."""
    return False


@pytest.fixture
def page(browser: Browser, stack: Up, quotagate: Command, scripts: bool) -> Iterator[Page]:
    """An admin who has signed in by a link."""
    link = quotagate("console-link", "--data-dir", str(stack.data_dir)).stdout.strip()
    page = new_page(browser, java_script_enabled=scripts)
    page.goto(link)
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    yield page
    page.context.close()


def address(stack: Up, org: str, name: str) -> str:
    return f"{stack.ready['control']}/console/organizations/{org}/actions/{name}"


def act(page: Page, stack: Up, org: str, name: str, **fields: str) -> None:
    """Fills in the form, looks at the effect, and confirms it."""
    page.goto(address(stack, org, name))
    title = page.get_by_role("heading", level=1).inner_text()
    for field, value in fields.items():
        control = page.locator(f'form[method="get"] [name="{field}"]')
        if control.evaluate("element => element.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)
    page.get_by_role("button", name="Show the effect").click()
    expect(page.get_by_role("region", name="Effect", exact=True)).to_be_visible()
    page.get_by_label("Reason").fill("as agreed on the telephone")
    page.get_by_role("button", name=title, exact=True).click()
    expect(page.locator("#action")).to_contain_text("Done")


def undo(page: Page) -> None:
    page.get_by_label("Reason").fill("a mistake")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#action")).to_contain_text("Undone")


def call(stack: Up, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.get(f"{stack.ready['gateway']}/get", headers=headers, timeout=60).status_code


def calls(stack: Up, org: str, times: int) -> list[int]:
    return [call(stack, stack.token(org)) for _ in range(times)]


@pytest.mark.parametrize("scripts", [True, False])
def test_a_plan_is_overridden_and_undone(stack: Up, page: Page) -> None:
    org = stack.organization_with_100_calls()
    act(page, stack, org, "override", allowance="2", meter="api_calls")
    assert calls(stack, org, 3) == [200, 200, 429]
    undo(page)
    assert calls(stack, org, 3) == [200, 200, 200]


def test_units_are_granted_and_void_after_undo(stack: Up, page: Page) -> None:
    org = stack.organization_with_100_calls()
    act(page, stack, org, "override", allowance="0", meter="api_calls")
    act(page, stack, org, "grant", meter="api_calls", units="2", expires_at="2090-01-01T00:00")
    assert calls(stack, org, 1) == [200]
    undo(page)
    assert calls(stack, org, 1) == [429]


def test_an_organization_is_suspended_and_resumed(stack: Up, page: Page) -> None:
    org = stack.organization_with_100_calls()
    act(page, stack, org, "suspend")
    assert calls(stack, org, 1) == [402]
    act(page, stack, org, "resume")
    assert calls(stack, org, 1) == [200]
    undo(page)
    assert calls(stack, org, 1) == [402]


def test_in_shadow_mode_nothing_is_refused_and_what_would_be_is_shown(stack: Up, page: Page) -> None:
    org = stack.organization_with_100_calls()
    act(page, stack, org, "suspend")
    assert calls(stack, org, 1) == [402]
    act(page, stack, org, "shadow", mode="on")
    assert calls(stack, org, 3) == [200] * 3
    page.goto(f"{stack.ready['control']}/console/organizations/{org}")
    expect(page.get_by_text("Shadow mode: nothing is refused")).to_be_visible()
    decisions = f"{stack.ready['control']}/console/decisions?org={org}"
    assert wait_for(lambda: page.goto(decisions) is not None and "it went on" in page.content())
    page.goto(f"{decisions.replace('?', '/suppose?')}&charge=api_calls:1")
    expect(page.get_by_text("Would be refused (shadow mode)")).to_be_visible()
    page.goto(f"{stack.ready['control']}/console/organizations/{org}/actions")
    page.get_by_role("link", name="Shadow mode").last.click()
    undo(page)
    assert calls(stack, org, 1) == [402]


def test_a_key_is_rolled_and_revoked(stack: Up, page: Page) -> None:
    org = stack.organization_with_100_calls()
    admin = httpx.Client(
        base_url=stack.ready["control"], headers={"authorization": f"Bearer {stack.ready['admin_token']}"}, timeout=60
    )
    old = admin.post(f"/v1/organizations/{org}/keys", json={"name": "the shop"}).json()
    act(page, stack, org, "key_roll", key=old["id"], grace_seconds="0")
    new = page.locator("#shown").locator("code").inner_text()
    assert [call(stack, old["key"]), call(stack, new)] == [401, 200]
    page.get_by_role("link", name="Other actions").click()
    expect(page.get_by_role("table", name="What was done")).to_contain_text("Roll an API key")
    assert new not in page.content(), "it is shown once"
    [live] = [
        key["id"] for key in admin.get(f"/v1/organizations/{org}/keys").json()["keys"] if key["state"] == "active"
    ]
    act(page, stack, org, "key_revoke", key=live)
    assert call(stack, new) == 401
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_an_activation_code_is_made_and_undo_revokes_it(stack: Up, page: Page) -> None:
    org = stack.organization_with_100_calls()
    act(page, stack, org, "activation_code", sites="3")
    code = page.locator("#shown").locator("code").inner_text()
    assert code
    page.get_by_role("link", name="Other actions").click()
    page.get_by_role("link", name="Make an activation code").last.click()
    undo(page)
    admin = {"authorization": f"Bearer {stack.ready['admin_token']}"}
    listed = httpx.get(f"{stack.ready['control']}/v1/organizations/{org}/activation-codes", headers=admin).json()
    assert [(each["sites"], each["state"]) for each in listed["activation_codes"]] == [(3, "revoked")]


class Subscriber:
    """An organization that pays."""

    def __init__(self, stack: Up, quotagate: Command) -> None:
        self.stack, self.org = stack, f"org-{uuid4().hex[:8]}"
        headers = {"authorization": f"Bearer {stack.ready['admin_token']}"}
        self.admin = httpx.Client(base_url=stack.ready["control"], headers=headers, timeout=60)
        body = {"org": self.org, "plan": "starter", "success_url": "https://vendor.example/thanks"}
        url = self.admin.post("/v1/checkout-sessions", json=body).json()["url"]
        assert httpx.post(url, data={"action": "pay"}, timeout=60).status_code == 303
        token = quotagate("token", "mint", "--org", self.org, "--data-dir", str(stack.data_dir))
        self.token = token.stdout.strip()
        assert wait_for(lambda: self.allowance() == 10_000)

    def allowance(self) -> int | None:
        with suppress(KeyError, StopIteration):
            entitlement = self.admin.get(f"/v1/entitlements/{self.org}").json()
            return next(int(each["allowance"]) for each in entitlement["meters"] if each["meter"] == "api_calls")
        return None

    def quota(self) -> str:
        """As a gateway tells it."""
        headers = {"authorization": f"Bearer {self.token}"}
        answer = httpx.get(f"{self.stack.ready['gateway']}/get", headers=headers, timeout=60)
        return f"{answer.status_code} {answer.headers.get('ratelimit-policy', '')}"

    def invoices(self) -> list[dict[str, Any]]:
        invoices: list[dict[str, Any]] = self.admin.get(f"/v1/organizations/{self.org}/invoices").json()["invoices"]
        return invoices

    def entries(self) -> list[tuple[str, int]]:
        listed = self.admin.get(f"/v1/organizations/{self.org}/billing-entries").json()["entries"]
        return sorted((each["kind"], each["amount_minor"]) for each in listed)


def test_money_and_subscription(stack: Up, page: Page, quotagate: Command) -> None:
    payer = Subscriber(stack, quotagate)
    org = payer.org
    act(page, stack, org, "credit", amount_minor="1500", currency="usd")
    undo(page)
    assert wait_for(lambda: payer.entries() == [("balance", -1500), ("balance", 1500)])
    assert wait_for(lambda: len(payer.invoices()) == 1)
    act(page, stack, org, "refund", amount_minor="900", invoice=payer.invoices()[0]["id"], to="card")
    assert wait_for(lambda: ("credit_note", 900) in payer.entries())
    coupon = f"half-{org}"
    made = payer.admin.post("/v1/coupons", json={"id": coupon, "percent_off": 50, "duration": "forever"})
    assert made.status_code == 201
    act(page, stack, org, "discount", coupon=coupon)
    undo(page)
    act(page, stack, org, "resync")
    act(page, stack, org, "reconcile")
    act(page, stack, org, "cancel", when="period_end")
    undo(page)
    assert "10000" in payer.quota()
    act(page, stack, org, "switch", plan="growth", when="now")
    assert wait_for(lambda: payer.quota().startswith("200") and (payer.allowance() or 0) > 10_000)
    act(page, stack, org, "cancel", when="now")
    assert wait_for(lambda: payer.quota().startswith("402"))

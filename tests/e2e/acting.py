"""An admin at work in a browser, on the stack that tests share; and a customer who pays, in a borrowed calendar."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.running import WAIT_MS, new_page
from tests.e2e.running import Command, Up, wait_for

expect.set_options(timeout=WAIT_MS)  # a loaded machine takes its time


@pytest.fixture
def scripts() -> bool:
    """Without them, unless a test says otherwise: what works so works with them."""
    return False


@pytest.fixture
def page(browser: Browser, stack: Up, scripts: bool) -> Iterator[Page]:
    """An admin who has signed in by a link."""
    with admin_of(stack) as admin:
        link = admin.post("/v1/console-links", json={}).json()["url"]
    page = new_page(browser, java_script_enabled=scripts)
    page.goto(link)
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    yield page
    page.context.close()


def address(stack: Up, org: str, name: str) -> str:
    return f"{stack.ready['control']}/console/organizations/{org}/actions/{name}"


def show_effect(page: Page, stack: Up, org: str, name: str, **fields: str) -> Locator:
    """Fills in the form, and looks at the effect."""
    page.goto(address(stack, org, name))
    for field, value in fields.items():
        control = page.locator(f'form[method="get"] [name="{field}"]')
        if control.evaluate("element => element.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)
    page.get_by_role("button", name="Show the effect").click()
    effect = page.get_by_role("region", name="Effect", exact=True)
    expect(effect).to_be_visible()
    return effect


def act(page: Page, stack: Up, org: str, name: str, **fields: str) -> None:
    """Fills in the form, looks at the effect, and confirms it."""
    show_effect(page, stack, org, name, **fields)
    confirm(page)
    expect(page.locator("#action")).to_contain_text("Done")


def confirm(page: Page) -> None:
    """What the effect was shown of."""
    title = page.get_by_role("heading", level=1).inner_text()
    page.get_by_label("Reason").fill("as agreed on the telephone")
    page.get_by_role("button", name=title, exact=True).click()


def undo(page: Page) -> None:
    page.get_by_label("Reason").fill("a mistake")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#action")).to_contain_text("Undone")


def call(stack: Up, token: str) -> int:
    return stack.call(token).status_code


def calls(stack: Up, org: str, times: int) -> list[int]:
    return [call(stack, stack.token(org)) for _ in range(times)]


def admin_of(stack: Up) -> httpx.Client:
    headers = {"authorization": f"Bearer {stack.ready['admin_token']}"}
    return httpx.Client(base_url=stack.ready["control"], headers=headers, timeout=60)


class StripeDouble:
    """Stripe, as the vendor sees it in the dashboard, and what only a double can do."""

    def __init__(self, stack: Up) -> None:
        self._admin = admin_of(stack)
        key = {"authorization": "Bearer sk_test_of_the_dashboard"}
        self._stripe = httpx.Client(base_url=stack.ready["stripe"], headers=key, timeout=60)

    def get(self, path: str, **params: str) -> Any:
        return self._stripe.get(f"/v1/{path}", params=params).raise_for_status().json()

    def cancel(self, subscription: str) -> None:
        """At once, and not by us."""
        self._stripe.delete(f"/v1/subscriptions/{subscription}").raise_for_status()

    def customer_of(self, org: str) -> str:
        """Also before anything here knows of it."""
        listed = self.get("subscriptions", limit="100")["data"]
        return next(str(each["customer"]) for each in listed if each["metadata"]["quotagate_org"] == org)

    def subscription_of(self, customer: str) -> Any:
        [subscription] = self.get("subscriptions", customer=customer, status="all")["data"]
        return subscription

    @contextmanager
    def silent(self) -> Iterator[None]:
        """No webhook is sent meanwhile, and none of it later."""
        self._control("faults", webhooks={"drop": 1.0})
        try:
            yield
        finally:
            self._control("faults", webhooks={})

    @contextmanager
    def refusing(self, path: str) -> Iterator[None]:
        """Calls of this path are refused for good."""
        self._control("faults", api={"status": 400, "times": 10_000, "path": path})
        try:
            yield
        finally:
            self._control("faults", api={"times": 0})

    @contextmanager
    def borrowed_calendar(self) -> Iterator[None]:
        """Time passes only for those who sign up meanwhile."""
        self._control("clock", borrowed=True)
        try:
            yield
        finally:
            self._control("clock", borrowed=False)

    def move_to(self, moment: float) -> None:
        self._control("clock", now=int(moment))
        self.settle()

    def settle(self) -> None:
        """Until everything that was sent is dealt with."""
        self._control("flush")
        waiting = "/api/admin/webhooks?state=waiting&limit=1"
        assert wait_for(lambda: self._admin.get(waiting).json()["events"] == [])

    def _control(self, name: str, **order: Any) -> None:
        self._stripe.post(f"/_double/{name}", json=order).raise_for_status()


class Subscriber:
    """An organization that pays."""

    def __init__(self, stack: Up, quotagate: Command) -> None:
        self.stack, self.org = stack, f"org-{uuid4().hex[:8]}"
        self.admin = admin_of(stack)
        token = quotagate("token", "mint", self.org, "--data-dir", str(stack.data_dir))
        self.token = token.stdout.strip()

    def pay(self) -> None:
        """Signs up for Starter."""
        body = {"org": self.org, "plan": "starter", "success_url": "https://vendor.example/thanks"}
        url = self.admin.post("/v1/checkout-sessions", json=body).json()["url"]
        assert httpx.post(url, data={"action": "pay"}, timeout=60).status_code == 303

    def signed_up(self) -> "Subscriber":
        self.pay()
        assert wait_for(lambda: self.allowance() == 10_000)
        return self

    def allowance(self) -> int | None:
        with suppress(KeyError, StopIteration):
            entitlement = self.admin.get(f"/v1/entitlements/{self.org}").json()
            return next(int(each["allowance"]) for each in entitlement["meters"] if each["meter"] == "api_calls")
        return None

    def quota(self) -> str:
        """As a gateway tells it."""
        answer = self.stack.call(self.token)
        return f"{answer.status_code} {answer.headers.get('ratelimit-policy', '')}"

    def invoices(self) -> list[dict[str, Any]]:
        invoices: list[dict[str, Any]] = self.admin.get(f"/v1/organizations/{self.org}/invoices").json()["invoices"]
        return invoices

    def entries(self) -> list[tuple[str, int]]:
        listed = self.admin.get(f"/v1/organizations/{self.org}/billing-entries").json()["entries"]
        return sorted((each["kind"], each["amount_minor"]) for each in listed)

"""What a customer does in the portal is seen at the gateway, and a customer signs in as `quotagate up` shows it."""

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.browser.running import WAIT_MS, browser, new_page
from tests.e2e.acting import calls
from tests.e2e.running import Up

__all__ = ["browser"]

expect.set_options(timeout=WAIT_MS)  # a loaded machine takes its time


def save(page: Page, units: str) -> None:
    page.get_by_label("Units beyond the allowance, at most").first.fill(units)
    page.get_by_role("button", name="Save the cap of api_calls").click()


def test_an_owner_caps_overage_in_the_portal_and_the_gateway_refuses_there(stack: Up, browser: Browser) -> None:
    org = stack.organization_with_100_calls()
    admin = httpx.Client(
        base_url=stack.ready["control"], headers={"authorization": f"Bearer {stack.ready['admin_token']}"}, timeout=60
    )
    sold = {"plan": "tiny", "policy": "METERED", "meters": {"api_calls": 2}}
    assert admin.put(f"/v1/entitlements/{org}", json=sold).status_code == 200
    assert calls(stack, org, 3) == [200, 200, 200]
    page = new_page(browser, java_script_enabled=False)
    page.goto(admin.post("/v1/portal-sessions", json={"org": org, "role": "owner"}).json()["url"])
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("link", name="Caps").first.click()
    save(page, "2")
    expect(page.get_by_text("At most 2 api_calls are bought")).to_be_visible()
    assert calls(stack, org, 2) == [200, 429]
    page.get_by_role("button", name="Undo the last change of the cap of api_calls").click()
    expect(page.get_by_text("There is no cap of your own for api_calls")).to_be_visible()
    assert calls(stack, org, 2) == [200, 200]
    page.context.close()


def test_a_customer_of_the_demo_signs_in_as_up_has_printed_it(stack: Up, browser: Browser) -> None:
    page, portal = new_page(browser, java_script_enabled=False), stack.ready["portal"]
    assert f"  {portal['url']}\n" in stack.output.read_text()
    page.goto(portal["url"])
    page.get_by_role("link", name="Continue with the sample identity provider").click()
    page.get_by_label("User name").fill(portal["username"])
    page.get_by_label("Password").fill(portal["password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    expect(page.get_by_role("link", name="Caps").first).to_be_visible()
    page.context.close()

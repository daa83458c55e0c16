"""Each action is done in a browser, and its effect is seen at the gateway."""

from pathlib import Path

import pytest
import redis
from playwright.sync_api import Page, expect

from examples.site_client import ActivatedSite, Refused
from quota import keys
from tests.browser.running import browser
from tests.e2e.acting import act, admin_of, call, calls, confirm, page, scripts, show_effect, undo
from tests.e2e.running import Up, wait_for

__all__ = ["browser", "page", "scripts"]


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
    admin = admin_of(stack)
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


def test_an_activation_code_activates_a_site_that_is_admitted_until_undo(stack: Up, page: Page, tmp_path: Path) -> None:
    org = stack.organization_with_100_calls()
    act(page, stack, org, "activation_code", sites="3")
    code = page.locator("#shown").locator("code").inner_text()
    sites = [
        ActivatedSite(stack.ready["control"], tmp_path / name, f"https://{name}.example") for name in ("shop", "blog")
    ]
    sites[0].activate(code)
    assert call(stack, sites[0].access_token()) == 200
    page.goto(f"{stack.ready['control']}/console/organizations/{org}/access")
    expect(page.get_by_role("table", name="Sites")).to_contain_text("shop.example")
    page.goto(f"{stack.ready['control']}/console/organizations/{org}/actions")
    page.get_by_role("link", name="Make an activation code").last.click()
    undo(page)
    with pytest.raises(Refused):
        sites[1].activate(code)
    assert call(stack, sites[0].access_token()) == 200, "sites that it has activated go on"
    listed = admin_of(stack).get(f"/v1/organizations/{org}/activation-codes").json()
    assert [(each["sites"], each["state"]) for each in listed["activation_codes"]] == [(3, "revoked")]


def test_a_counter_that_is_wrong_is_repaired_and_admits_what_the_plan_has(stack: Up, page: Page) -> None:
    """The reconciler, which looks once a minute, may be faster than the admin: then the counter goes wrong again."""
    org = stack.organization_with_100_calls()
    with redis.Redis.from_url(stack.ready["redis"]) as ledger:
        for _ in range(5):
            assert wait_for(lambda: calls(stack, org, 1) == [200]), "a gateway repeats a refusal for a second at most"
            fields = ledger.hgetall(keys.org_key(org, keys.SHARDS_DEFAULT))
            [used] = [name for name in fields if name.startswith(b"used:")]
            ledger.hincrby(keys.org_key(org, keys.SHARDS_DEFAULT), used.decode(), 100)
            assert calls(stack, org, 1) == [429]
            effect = show_effect(page, stack, org, "reconcile")
            if "nothing is to be repaired" in effect.inner_text():
                continue
            expect(effect.get_by_role("row").filter(has_text="Counter used")).to_be_visible()
            confirm(page)
            if page.get_by_role("alert").filter(has_text="Nothing was done").count():
                continue
            expect(page.locator("#action")).to_contain_text("Done")
            assert wait_for(lambda: calls(stack, org, 1) == [200])
            return
    pytest.fail("the reconciler was faster each time")

"""The page of another plan, in a browser: a question, its answer, and the same without scripts."""

import pytest
from playwright.sync_api import Browser, Page, expect

from devstack import postgres
from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import Console

USED = """
    INSERT INTO plan (id, code, version, name, policy, currency, contact, demo, created_at)
    SELECT gen_random_uuid(), code, 1, code, 'HARD_STOP', 'usd', false, false, now()
    FROM (VALUES ('starter'), ('growth')) p (code);
    INSERT INTO plan_meter (plan_id, meter, allowance)
    SELECT id, 'api_calls', CASE code WHEN 'starter' THEN 10000 ELSE 100000 END FROM plan;
    INSERT INTO organization (id, name, created_at) VALUES ('used', 'Used Ltd', now() - interval '40 days');
    INSERT INTO entitlement (id, org, plan_id, status, period_anchor, effective_from)
        SELECT gen_random_uuid(), 'used', id, 'active', date_trunc('month', now()), now() - interval '40 days'
        FROM plan WHERE code = 'growth' AND superseded_at IS NULL;
    INSERT INTO usage_event (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id, period_start,
        units, overage)
    SELECT 'used', date_trunc('month', now()) + n * interval '1 second', 0, 'api_calls', 0, 0, 'take', 'asked-' || n,
        date_trunc('month', now()), 6000, 0
    FROM generate_series(1, 3) n;
"""


@pytest.fixture(scope="module")
def used(console: Console, postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, USED)


@pytest.mark.parametrize("query", ["", "?org=used&plan=starter&rate=1/60&concurrent=2&request_seconds=1"])
def test_the_page_is_usable_by_everybody(console: Console, page: Page, used: None, query: str) -> None:
    signed_in(page, console)
    check_page(page, f"{console.url}/console/analytics/what-if{query}")


def test_who_would_have_been_refused_is_shown_with_and_without_scripts(
    console: Console, page: Page, browser: Browser, used: None
) -> None:
    signed_in(page, console)
    walk(page, console)
    with plain(browser, console) as other:
        walk(other, console)


def walk(page: Page, console: Console) -> None:
    page.goto(f"{console.url}/console/analytics/what-if?plan=starter&on_plan=growth")
    row = page.get_by_role("row", name="Used Ltd")
    expect(row).to_contain_text("2")  # of three requests, as the plan includes 10,000
    page.get_by_role("link", name="Used Ltd").click()
    expect(page.get_by_role("cell", name="asked-2")).to_be_visible()
    expect(page.get_by_role("cell", name="asked-3")).to_be_visible()
    expect(page.get_by_role("cell", name="asked-1")).to_have_count(0)
    page.goto(f"{console.url}/console/analytics/what-if?org=used")
    page.get_by_label("Had a quota: meter=units/seconds").fill("api_calls=0")
    page.get_by_label("Had a quota: meter=units/seconds").press("Enter")
    expect(page.get_by_role("main")).to_contain_text("is to be named: it is the key that has these limits")
    page.goto(f"{console.url}/console/analytics/what-if?org=used")
    expect(page.get_by_role("main")).to_contain_text("Every request that was served would have been served.")

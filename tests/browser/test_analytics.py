"""Pages of recurring revenue, in a browser: figures, what they open to, and the same without scripts."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from devstack import postgres
from tests.browser.checks import check_page, plain, signed_in
from tests.browser.running import Console

PAGES = (
    "",
    "/movements",
    "/retention",
    "/cohorts",
    "/trials",
    "/usage",
    "/unit-economics",
    "/quota-check",
    "/subscriptions?figure=movements",
)

HISTORY = """
    DELETE FROM mrr_movement;
    DELETE FROM subscription_history;
    INSERT INTO organization (id, name, created_at) SELECT 'paying-' || n, 'Paying ' || n, now()
        FROM generate_series(1, 9) n ON CONFLICT DO NOTHING;
    INSERT INTO subscription_history (subscription, valid_from, valid_to, org, customer, status, currency, plan, items,
        discounts, annual_stripe, annual_chartmogul, annual_baremetrics, priced, recorded_at)
    SELECT 'sub_' || n, began, ends, 'paying-' || n, 'cus_' || n, 'active', 'usd', 'growth', '[]', '[]',
        120000 * n, 60000 * n, 60000 * n, n <> 2, now()
    FROM (
        SELECT n, now() - n * interval '35 days' AS began, CASE WHEN n = 9 THEN now() - interval '40 days' END AS ends
        FROM generate_series(1, 9) n
    ) each;
    INSERT INTO mrr_movement SELECT * FROM mrr_movement_computed;
    INSERT INTO usage_event (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id, period_start,
        units, overage)
    SELECT 'paying-1', now() - n * interval '9 days', n, 'api_calls', 0, 1, 'take', 'r' || n, now(), 10 * n, 0
    FROM generate_series(1, 9) n ON CONFLICT DO NOTHING;
    INSERT INTO check_time (minute, bucket, checks)
    SELECT date_trunc('minute', now()) - n * interval '1 day', b, 1000 / b FROM generate_series(0, 9) n,
        generate_series(8, 12) b ON CONFLICT DO NOTHING;
    INSERT INTO usage_counter (org, period_start, meter, used, burnt, overage)
    SELECT 'paying-' || n, now() - interval '3 days', 'api_calls', n * 100, 0, 0 FROM generate_series(1, 5) n
    ON CONFLICT DO NOTHING;
"""


@pytest.fixture(scope="module")
def history(console: Console, postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, HISTORY)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_of_analytics_is_usable_by_everybody(console: Console, page: Page, history: None, path: str) -> None:
    signed_in(page, console)
    check_page(page, f"{console.url}/console/analytics{path}")


def test_a_figure_opens_to_its_subscriptions_with_and_without_scripts(
    console: Console, page: Page, browser: Browser, history: None
) -> None:
    signed_in(page, console)
    walk(page, console)
    with plain(browser, console) as other:
        walk(other, console)


def walk(page: Page, console: Console) -> None:
    page.goto(f"{console.url}/console/analytics")
    main = page.get_by_role("main")
    expect(main).to_contain_text("$3,600.00")
    expect(main).to_contain_text("1 subscriptions have something whose amount is not known here")
    page.get_by_role("link", name="Stripe").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Subscriptions behind MRR")
    expect(page.get_by_role("row", name="Paying 8")).to_contain_text("$800.00")
    expect(page.get_by_role("row", name="Paying 9")).to_have_count(0)
    page.goto(f"{console.url}/console/analytics/movements?definition=chartmogul")
    page.get_by_role("link", name="\u2212$450.00").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Subscriptions behind churn")
    expect(page.get_by_role("row", name="Paying 9")).to_contain_text("\u2212$450.00")


def test_another_definition_is_chosen_by_a_form_with_and_without_scripts(
    console: Console, page: Page, browser: Browser, history: None
) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/analytics/cohorts")
    page.get_by_label("Definition").select_option("chartmogul")
    expect(page).to_have_url(re.compile("/console/analytics/cohorts[?]definition=chartmogul&currency=usd"))
    for link in ("CSV", "JSON"):  # they have the rows that are shown
        expect(page.get_by_role("link", name=link)).to_have_attribute("href", re.compile("definition=chartmogul"))
    with plain(browser, console) as other:
        other.goto(f"{console.url}/console/analytics/cohorts")
        other.get_by_label("Definition").select_option("chartmogul")
        other.get_by_role("button", name="Apply").click()
        expect(other.get_by_role("heading", level=1)).to_have_text("Cohorts")
        expect(other.get_by_label("Definition")).to_have_value("chartmogul")


def test_usage_ranks_organizations_and_unit_economics_says_which_costs_are_unknown(
    console: Console, page: Page, history: None
) -> None:
    signed_in(page, console)
    page.goto(f"{console.url}/console/analytics/usage")
    expect(page.get_by_role("list", name="Units of api_calls")).to_contain_text("Paying 5")
    page.goto(f"{console.url}/console/analytics/unit-economics?currency=usd")
    expect(page.get_by_role("main")).to_contain_text("Not all costs are known")

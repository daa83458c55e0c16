"""Each change of a subscription is kept, with what it was worth, and the organization's MRR moves with it."""

from decimal import Decimal
from typing import Any

import pytest

from control import schema, sql
from control.billing.client import ask
from devstack import postgres
from tests.control.billing.shop import DAY, Shop
from tests.control.billing.test_customers import paid_twice, stripe

MONTH, YEAR = 4900, 49000


async def change(shop: Shop, org: str, days: int, **to: Any) -> None:
    """Somebody changes the subscription at Stripe, days later."""
    await shop.later(days=days)
    subscription = await shop.subscription(org)
    await ask(stripe(shop).subscriptions.update_async(subscription["id"], to))
    await shop.settled()


async def price_of(shop: Shop, plan: str, interval: str) -> str:
    async with shop.context.db.connection() as connection:
        query = (
            "SELECT s.id FROM stripe_price s JOIN plan ON plan.id = s.plan_id WHERE plan.code = $1 AND NOT adopted"
            " AND plan.superseded_at IS NULL AND s.billing_interval = $2 AND s.meter IS NULL"
        )
        return str(await connection.fetchval(query, plan, interval))


async def states(shop: Shop, org: str) -> list[dict[str, Any]]:
    async with shop.context.db.connection() as connection:
        query = "SELECT * FROM subscription_history WHERE org = $1 ORDER BY subscription, valid_from"
        return [dict(row) for row in await connection.fetch(query, org)]


async def movements(shop: Shop, org: str, definition: str = "stripe") -> list[tuple[str, Decimal]]:
    async with shop.context.db.connection() as connection:
        kept, computed = [
            await connection.fetch(
                f"SELECT * FROM {table} WHERE org = $1 AND definition = $2 ORDER BY day", org, definition
            )
            for table in ("mrr_movement", "mrr_movement_computed")
        ]
    assert [dict(row) for row in kept] == [dict(row) for row in computed]
    return [(row["kind"], (row["annual_after"] - row["annual_before"]) / 12) for row in kept]


async def mrr(shop: Shop, org: str) -> list[sql.analytics.OrganizationMrr]:
    async with shop.context.db.connection() as connection:
        return await sql.analytics.mrr_of(connection, orgs=[org, "nobody"])


async def test_a_sign_up_a_change_and_an_end_are_kept_as_states_that_follow_one_another(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    (of_org,) = await mrr(shop, org)
    assert (of_org.currency, of_org.stripe_minor, of_org.chartmogul_minor) == ("usd", MONTH, MONTH)
    (item,) = (await shop.subscription(org))["items"]["data"]
    await change(shop, org, 2, items=[{"id": item["id"], "price": await price_of(shop, "growth", "month")}])
    await shop.later(days=2)
    await shop.post(f"/v1/organizations/{org}/subscription/cancel", when="now")
    kept = [(each["status"], each["plan"], each["annual_stripe"] / 12) for each in await states(shop, org)]
    assert kept[0] == ("active", "starter", MONTH)
    assert kept[-1] == ("canceled", kept[-2][1], 0)
    rows = await states(shop, org)
    assert [each["valid_to"] for each in rows] == [*(each["valid_from"] for each in rows[1:]), None]
    ended = (await shop.subscription(org))["ended_at"]
    assert int(rows[-1]["valid_from"].timestamp()) == ended, "when Stripe says, not when it was looked at"
    moved = await movements(shop, org)
    assert [kind for kind, _ in moved] == ["new", "expansion", "churn"]
    assert sum(change for _, change in moved) == 0
    assert await mrr(shop, org) == []


async def test_looks_that_show_nothing_new_add_nothing(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    before = await states(shop, org)
    assert shop.context.billing is not None
    for _ in range(3):
        await shop.context.billing.inbox.resync(await shop.customer(org))
        await shop.settled()
    assert await states(shop, org) == before


async def test_a_trial_counts_when_it_is_over_and_not_before(shop: Shop) -> None:
    org = await shop.signed_up("starter", trial_days=14)
    assert await mrr(shop, org) == []
    await shop.later(days=14, hours=2)
    kept = await states(shop, org)
    assert [each["status"] for each in kept] == ["trialing", "active"]
    assert kept[1]["valid_from"] == kept[1]["trial_end"]
    assert await movements(shop, org) == [("new", Decimal(MONTH))]


async def test_coupons_change_the_value_by_each_definitions_rule(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    for name, terms in (("half", {"duration": "forever"}), ("while", {"duration": "repeating", "months": 3})):
        made = await shop.post("/v1/coupons", id=name, percent_off=50, **terms)
        assert made.status_code == 201, made.text
    worth = []
    for coupon in ("half", "while", None):
        await change(shop, org, 1, discounts=[{"coupon": coupon}] if coupon else "")
        (now,) = await mrr(shop, org)
        worth.append((now.stripe_minor, now.chartmogul_minor, now.baremetrics_minor))
    assert worth == [(MONTH // 2,) * 3, (MONTH, MONTH // 2, MONTH // 2), (MONTH,) * 3]
    assert [kind for kind, _ in await movements(shop, org)] == ["new", "contraction", "expansion"]
    assert [kind for kind, _ in await movements(shop, org, "chartmogul")] == ["new", "contraction", "expansion"]


async def test_what_a_customer_has_subscribed_moves_with_it_and_ends_with_it(shop: Shop) -> None:
    org, first, second = await paid_twice(shop)
    (both,) = await mrr(shop, org)
    other = await shop.signed_up("starter")
    linked = await shop.admin.put(f"/v1/organizations/{other}/customer", json={"customer": first})
    assert linked.status_code in (200, 202, 204), linked.text
    await shop.settled()
    (left,), (more,) = await mrr(shop, org), await mrr(shop, other)
    assert (both.stripe_minor - MONTH, 2 * MONTH) == (left.stripe_minor, more.stripe_minor)
    assert sum(change for _, change in await movements(shop, org)) == left.stripe_minor
    await shop.later(days=1)
    await ask(stripe(shop).customers.delete_async(second))
    await shop.settled()
    assert await mrr(shop, org) == []
    assert (await movements(shop, org))[-1][0] == "churn"
    assert (await states(shop, org))[-1]["status"] == "canceled"


@pytest.mark.parametrize("first", ["customer.subscription.deleted", "customer.deleted"])
async def test_a_subscription_ends_with_its_customer_when_stripe_says_whichever_end_is_told_first(
    shop: Shop, first: str
) -> None:
    org = await shop.signed_up("starter")
    await shop.later(days=3)
    shop.double.deliveries.faults.drop = 1
    known = {each["id"] for each in shop.double.account.find("event")}
    await ask(stripe(shop).customers.delete_async(await shop.customer(org)))
    told = [each for each in shop.double.account.find("event") if each["id"] not in known]
    for event in sorted(told, key=lambda each: each["type"] != first):
        await shop.tell(event)
        await shop.settled()
    (ended,) = [each["valid_from"] for each in await states(shop, org) if each["status"] == "canceled"]
    assert {int(ended.timestamp())} == {each["created"] for each in told}
    assert [kind for kind, _ in await movements(shop, org)] == ["new", "churn"]


async def test_a_change_is_of_the_day_that_stripe_says_though_the_invoice_tells_of_it_first(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.later(days=3)
    shop.double.deliveries.faults.drop = 1
    (item,) = (await shop.subscription(org))["items"]["data"]
    known = {each["id"] for each in shop.double.account.find("event")}
    await change(shop, org, 0, items=[{"id": item["id"], "quantity": 2}], proration_behavior="always_invoice")
    told = [each for each in shop.double.account.find("event") if each["id"] not in known]
    by_invoice = [each for each in told if each["type"] == "invoice.paid"]
    assert by_invoice
    for event in [*by_invoice, *told]:
        await shop.tell(event)
        await shop.settled()
    assert [each["valid_from"].timestamp() for each in await states(shop, org)][1:] == [by_invoice[0]["created"]]
    assert await movements(shop, org) == [("new", Decimal(MONTH)), ("expansion", Decimal(MONTH))]


async def test_a_subscription_that_is_seen_late_has_the_history_that_stripe_tells_of_it(shop: Shop) -> None:
    shop.double.account.clock.offset_seconds = -40 * DAY
    customer = await ask(stripe(shop).customers.create_async({"payment_method": "pm_card_visa"}))
    price = await price_of(shop, "starter", "year")
    made = {"customer": customer["id"], "items": [{"price": price}], "trial_period_days": 10}
    subscription = await ask(stripe(shop).subscriptions.create_async(made))
    await shop.later(days=30)
    await ask(stripe(shop).subscriptions.cancel_async(subscription["id"]))
    org = await shop.signed_up("starter")
    await shop.admin.put(f"/v1/organizations/{org}/customer", json={"customer": customer["id"]})
    await shop.settled()
    kept = [each for each in await states(shop, org) if each["subscription"] == subscription["id"]]
    assert [(each["status"], each["annual_stripe"], each["assumed"]) for each in kept] == [
        ("trialing", 0, True),
        ("active", YEAR, True),
        ("canceled", 0, False),
    ]
    assert [(later["valid_from"] - kept[0]["valid_from"]).days for later in kept] == [0, 10, 30]


def test_subscriptions_from_before_there_was_a_history_have_one_at_list_prices(postgres_server: str) -> None:
    postgres.execute(postgres_server, "CREATE DATABASE before_history")
    dsn = f"{postgres_server.rpartition('/')[0]}/before_history"
    version = next(each.version for each in schema.migrations() if "subscription_history" in each.file.name)
    schema.migrate(dsn, revision=f"{int(version) - 1:04}")
    plan = "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"
    content = '{{"created": {}, "trial_end": {}, "ended_at": {}, "cancel_at": null, "items": [{}]}}'
    item, metered = '{"price": "price_1", "quantity": 2}', '{"price": "price_m", "quantity": null}'
    day = 1_700_000_000
    postgres.execute(
        dsn,
        f"""
        INSERT INTO organization (id, name, created_at) VALUES ('o', 'O', now());
        INSERT INTO plan (id, code, version, name, policy, currency, demo, contact, created_at)
            VALUES ('{plan}', 'p', 1, 'P', 'HARD_STOP', 'usd', false, false, now());
        INSERT INTO plan_price VALUES ('{plan}', 'year', 1000);
        INSERT INTO stripe_price VALUES ('price_1', '{plan}', 'year', NULL, false, now()),
            ('price_m', '{plan}', 'year', 'calls', false, now());
        INSERT INTO subscription VALUES
            ('sub_active', 'o', 'c', 'active', '{content.format(day, "null", "null", f"{item}, {metered}")}', now()),
            ('sub_tried', 'o', 'c', 'past_due', '{content.format(day, day + 864000, "null", item)}', now()),
            ('sub_trial', 'o', 'c', 'trialing', '{content.format(day, day + 864000, "null", item)}', now()),
            ('sub_over', 'o', 'c', 'canceled', '{content.format(day, "null", day + 86400, item)}', now()),
            ('sub_odd', 'o', 'c', 'active', '{content.format(day, "null", "null", '{"price": "other"}')}', now());
        """,
    )
    assert version in schema.migrate(dsn)
    rows = postgres.execute(
        dsn,
        "SELECT subscription, status, annual_stripe, extract(epoch FROM valid_from)::bigint - 1700000000, priced, plan"
        " FROM subscription_history ORDER BY 1, valid_from",
    )
    assert rows.split() == [
        "sub_active|active|2000|0|t|p",
        "sub_over|active|2000|0|t|p",
        "sub_over|canceled|0|86400|t|p",
        "sub_trial|trialing|0|0|t|p",
        "sub_tried|trialing|0|0|t|p",
        "sub_tried|past_due|2000|864000|t|p",
    ]
    moved = postgres.execute(
        dsn, "SELECT kind, annual_after FROM mrr_movement WHERE definition = 'stripe' ORDER BY day"
    )
    assert moved.split() == ["new|4000", "contraction|2000", "expansion|4000"]

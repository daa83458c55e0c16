"""Overage of a subscription that ends, or of an item that goes, is billed, or an admin is told what was not."""

import asyncio
from typing import Any

import pytest

from common.settings_file import load
from control.billing import products
from control.billing.client import ask
from control.billing.overage import closing
from control.billing.overage.overage_price import OveragePrice
from control.entitlements.catalogue import apply_plans
from control.entitlements.plans import PlansFile, PlanTerms
from control.journal import Author
from quota.model import Admitted, Status
from tests import charging
from tests.control.billing.shop import DAY, WAIT_SECONDS, MovingClock, Shop

ALLOWANCE, BEYOND = 100_000, 50_000
CENTS = 15_000  # of 50,000 calls at 0.3 cents
Object = dict[str, Any]


def stripe(shop: Shop) -> Any:
    """Stripe's dashboard."""
    assert shop.context.billing is not None
    return shop.context.billing.client.v1


async def uses(shop: Shop, org: str, units: int, request_id: str = "r1") -> None:
    assert isinstance(await charging.take(shop.context.ledger, org, request_id, {"api_calls": units}), Admitted)


async def written(shop: Shop) -> None:
    while await shop.context.writer.lag_seconds():
        await shop.settled()


async def send_overage(shop: Shop) -> None:
    assert shop.context.billing is not None
    await written(shop)
    await shop.context.billing.overage.freeze()
    await shop.context.billing.overage.send()


def usage_lines(shop: Shop) -> list[tuple[str, int, int]]:
    """Of all invoices: status, units, amount."""
    return [
        (invoice["status"], line["quantity"], line["amount"])
        for invoice in shop.double.account.find("invoice")
        for line in invoice["lines"]["data"]
        if line["description"] == "Usage" and line["quantity"]
    ]


async def unbilled(shop: Shop, org: str) -> list[Object]:
    """What open incidents tell of it."""
    query = "SELECT content FROM incident WHERE kind = 'overage_unbilled' AND org = $1 AND closed_at IS NULL"
    async with shop.context.db.connection() as connection:
        return [row["content"] for row in await connection.fetch(query, org)]


def units_and_amount(line: list[Object]) -> list[tuple[int, int, str]]:
    return [(each["units"], each["amount_minor"], each["currency"]) for each in line]


async def checked(shop: Shop, clock: MovingClock, **later: float) -> None:
    assert shop.context.billing is not None
    clock.move(**later)
    await written(shop)
    await shop.context.billing.overage.check_closed()


async def test_what_was_used_beyond_the_plan_is_on_the_last_invoice_of_a_subscription_that_is_cancelled_at_once(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    response = await shop.post(f"/v1/organizations/{org}/subscription/cancel", when="now")
    assert response.status_code == 200, response.text
    assert await shop.enforced(org) is Status.ENDED
    assert usage_lines(shop) == [("paid", BEYOND, CENTS)]
    await checked(shop, shop_clock, seconds=closing.SETTLED_SECONDS + 1)
    assert await unbilled(shop, org) == []


async def test_what_was_used_beyond_the_plan_is_on_the_invoice_of_a_switch_that_removes_its_item(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="starter", when="now")
    assert response.status_code == 200, response.text
    assert [units for _, units, _ in usage_lines(shop)] == [BEYOND]
    await checked(shop, shop_clock, seconds=closing.SETTLED_SECONDS + 1)
    assert await unbilled(shop, org) == []


async def test_a_switch_to_another_metered_plan_bills_each_unit_once_at_the_price_of_its_time(
    shop: Shop, shop_clock: MovingClock
) -> None:
    terms = {
        "name": "Dear",
        "policy": "METERED",
        "currency": "usd",
        "price_minor": {"month": 90_000},
        "meters": {"api_calls": {"allowance": 10, "overage": {"amount_minor": 1, "units": 1}}},
    }
    plans = {**load(None, "plans.yaml", PlansFile).plans, "dear": PlanTerms.model_validate(terms)}
    await apply_plans(shop.context.db, plans, shop.clock(), Author("tests", "tests"))
    await products.apply(shop.context.db, shop.context.billing.client, shop.clock(), dry_run=False)  # type: ignore[union-attr]  # a shop bills
    shop.double.account.clock.offset_seconds = -DAY
    org = await shop.signed_up("growth")
    shop.double.account.clock.offset_seconds = 0
    await uses(shop, org, ALLOWANCE + 1000)
    assert (await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="dear")).status_code == 200
    assert [(units, cents) for _, units, cents in usage_lines(shop)] == [(1000, 300)]
    await uses(shop, org, 200, "r2")
    shop_clock.move(seconds=5)
    await shop.period_over(org)
    assert sorted((units, cents) for _, units, cents in usage_lines(shop)) == [(200, 200), (1000, 300)]
    await checked(shop, shop_clock, seconds=closing.SETTLED_SECONDS + 1)
    assert await unbilled(shop, org) == []


async def test_a_subscription_that_ends_at_its_periods_end_is_billed_by_itself_and_nothing_is_told(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    await shop.post(f"/v1/organizations/{org}/subscription/cancel")
    await shop.period_over(org)
    assert await shop.enforced(org) is Status.ENDED
    assert await unbilled(shop, org) == []
    assert usage_lines(shop) == [("paid", BEYOND, CENTS)]
    shop_clock.move(seconds=shop.double.account.clock.now() - shop_clock())
    await checked(shop, shop_clock, seconds=closing.SETTLED_SECONDS + 1)
    assert await unbilled(shop, org) == []


async def test_of_a_subscription_that_was_deleted_at_stripe_an_admin_is_told_what_was_not_billed(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    await written(shop)
    await ask(stripe(shop).subscriptions.cancel_async((await shop.subscription(org))["id"]))
    await shop.settled()
    assert await shop.enforced(org) is Status.ENDED
    assert units_and_amount(await unbilled(shop, org)) == [(BEYOND, CENTS, "usd")]
    assert await shop.incidents() == ["overage_unbilled"]
    start = (await shop.subscription(org))["items"]["data"][0]["current_period_start"]
    await shop.usage(org, start, 1000, 1000)  # what the gateways admitted before they knew
    async with asyncio.timeout(WAIT_SECONDS):
        # The service may have looked just before, and looks again only later.
        while units_and_amount(await unbilled(shop, org)) != [(BEYOND + 1000, CENTS + 300, "usd")]:
            await checked(shop, shop_clock, seconds=closing.CHECK_EVERY_SECONDS + 1)


async def test_who_asks_stripe_for_a_last_invoice_has_billed_what_it_was_told_and_is_told_the_rest(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    await send_overage(shop)
    await uses(shop, org, 20, "r2")
    await written(shop)
    await ask(stripe(shop).subscriptions.cancel_async((await shop.subscription(org))["id"], {"invoice_now": True}))
    await shop.settled()
    assert [units for _, units, _ in usage_lines(shop)] == [BEYOND]
    assert units_and_amount(await unbilled(shop, org)) == [(20, 6, "usd")]


async def test_of_a_customer_that_was_deleted_at_stripe_an_admin_is_told_what_was_not_billed(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    await send_overage(shop)
    await ask(stripe(shop).customers.delete_async(await shop.customer(org)))
    await shop.settled()
    assert units_and_amount(await unbilled(shop, org)) == [(BEYOND, CENTS, "usd")]


@pytest.mark.parametrize("mode", ["flexible", "classic"])
async def test_of_an_item_that_was_removed_at_stripe_what_is_not_billed_is_told(
    shop: Shop, shop_clock: MovingClock, mode: str
) -> None:
    org = await shop.signed_up("growth")
    subscription = await shop.subscription(org)
    subscription["billing_mode"]["type"] = mode
    await uses(shop, org, ALLOWANCE + BEYOND)
    await send_overage(shop)
    (item,) = [i for i in subscription["items"]["data"] if i["price"]["recurring"]["usage_type"] == "metered"]
    await ask(
        stripe(shop).subscriptions.update_async(subscription["id"], {"items": [{"id": item["id"], "deleted": True}]})
    )
    await shop.settled()
    lost = [(BEYOND, CENTS, "usd")]
    assert units_and_amount(await unbilled(shop, org)) == (lost if mode == "classic" else [])
    await shop.period_over(org)
    shop_clock.move(seconds=shop.double.account.clock.now() - shop_clock())
    await checked(shop, shop_clock, seconds=closing.SETTLED_SECONDS + 1)
    assert units_and_amount(await unbilled(shop, org)) == (lost if mode == "classic" else [])
    assert [units for _, units, _ in usage_lines(shop)] == ([] if mode == "classic" else [BEYOND])


async def test_overage_that_stripe_refuses_keeps_nobody_from_leaving_and_is_told(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    (meter,) = shop.double.account.objects["billing.meter"].values()
    meter["status"] = "inactive"
    response = await shop.post(f"/v1/organizations/{org}/subscription/cancel", when="now")
    assert response.status_code == 200, response.text
    assert await shop.enforced(org) is Status.ENDED
    assert units_and_amount(await unbilled(shop, org)) == [(BEYOND, CENTS, "usd")]


async def test_an_incident_that_an_admin_has_closed_is_not_opened_again_for_the_same_units(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, ALLOWANCE + BEYOND)
    await send_overage(shop)
    await ask(stripe(shop).subscriptions.cancel_async((await shop.subscription(org))["id"]))
    await shop.settled()
    listed = (await shop.admin.get("/v1/incidents", params={"status": "open"})).json()["incidents"]
    (incident,) = [each for each in listed if each["org"] == org]
    assert (await shop.admin.post(f"/v1/incidents/{incident['id']}/resolve")).status_code == 200
    await checked(shop, shop_clock, seconds=closing.CHECK_EVERY_SECONDS + 1)
    assert await unbilled(shop, org) == []


def test_an_amount_is_rounded_half_up_as_on_an_invoice() -> None:
    assert [OveragePrice(300, 1000).of(units) for units in (1, 2, 5, 50_000)] == [0, 1, 2, 15_000]

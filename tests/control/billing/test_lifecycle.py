"""A customer's life, from sign-up to the end, as Stripe tells it and the gateways enforce it."""

import time
from datetime import datetime

from common.settings_file import load
from control.billing import products
from control.entitlements.catalogue import apply_plans
from control.entitlements.plans import PlansFile
from control.journal import Author
from quota.model import Admitted, Status
from tests import charging
from tests.control.billing.shop import DAY, Shop


async def test_a_sign_up_is_an_organization_with_a_plan_once_it_is_paid(shop: Shop) -> None:
    org, url = await shop.order("starter")
    page = await shop.page.get(url)
    assert page.status_code == 200
    assert "Starter" in page.text
    assert await shop.enforced(org) is Status.NONE
    assert (await shop.page.post(url, data={"action": "decline"})).status_code == 402
    await shop.settled()
    assert await shop.enforced(org) is Status.NONE, "nothing is given before it is paid"
    assert (await shop.page.post(url, data={"action": "pay"})).headers["location"] == "https://vendor.example/thanks"
    await shop.settled()
    entitlement = await shop.entitlement(org)
    assert (entitlement["plan"], entitlement["status"], entitlement["meters"][0]["allowance"]) == (
        "starter",
        "active",
        10_000,
    )
    assert await shop.enforced(org) is Status.ACTIVE
    assert len(await shop.journal(org, "entitlement.subscribed")) == 1
    invoices = (await shop.admin.get(f"/v1/organizations/{org}/invoices")).json()["invoices"]
    assert [(each["status"], each["total_minor"]) for each in invoices] == [("paid", 4900)]
    assert await shop.incidents() == []


async def test_a_trial_is_served_without_a_payment_sells_no_overage_and_becomes_active(shop: Shop) -> None:
    org = await shop.signed_up("growth", trial_days=14)
    entitlement = await shop.entitlement(org)
    assert (entitlement["status"], entitlement["policy"]) == ("trialing", "HARD_STOP")
    await shop.later(days=14, hours=2)
    entitlement = await shop.entitlement(org)
    assert (entitlement["status"], entitlement["policy"]) == ("active", "METERED")


async def test_a_switch_of_who_is_trialing_answers_trialing(shop: Shop) -> None:
    org = await shop.signed_up("starter", trial_days=14)
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth", when="now")
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "trialing"
    assert (await shop.entitlement(org))["status"] == "trialing"
    later = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="starter", when="period_end")
    assert (later.json()["status"], later.json()["when"]) == ("trialing", "period_end")


async def test_an_upgrade_is_granted_when_its_prorated_invoice_is_paid_and_keeps_what_was_used(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    before = (await shop.entitlement(org))["period"]
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth")
    assert response.status_code == 200, response.text
    entitlement = await shop.entitlement(org)
    assert (entitlement["plan"], entitlement["meters"][0]["allowance"], entitlement["period"]) == (
        "growth",
        100_000,
        before,
    )
    invoices = (await shop.admin.get(f"/v1/organizations/{org}/invoices")).json()["invoices"]
    assert [each["billing_reason"] for each in invoices] == ["subscription_update", "subscription_create"]
    assert 34_900 < invoices[0]["total_minor"] <= 35_000, "the difference, for nearly all of the period"


async def test_an_upgrade_whose_payment_fails_gives_nothing_until_it_is_paid(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.card(org, "declines")
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth")
    assert response.json()["pending"]
    assert (await shop.entitlement(org))["plan"] == "starter"
    assert (await shop.entitlement(org))["status"] == "active"
    await shop.card(org, "good")
    invoice = next(shop.double.account.find("invoice", status="open"))
    assert (await shop.page.post(f"{shop.double.url}/invoice/{invoice['id']}")).status_code == 200
    await shop.settled()
    assert (await shop.entitlement(org))["plan"] == "growth"


async def test_an_upgrade_that_is_never_paid_is_dropped(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.card(org, "declines")
    await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth")
    await shop.later(hours=24)
    assert (await shop.subscription(org))["pending_update"] is None
    assert (await shop.entitlement(org))["plan"] == "starter"


async def test_a_downgrade_waits_for_the_end_of_what_is_paid_and_can_be_taken_back(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    path = f"/v1/organizations/{org}/subscription"
    response = await shop.post(f"{path}/switch", plan="starter")
    assert response.json()["when"] == "period_end"
    assert (await shop.entitlement(org))["plan"] == "growth"
    (change,) = (await shop.journal(org, "entitlement.subscribed"))[-1:]
    assert [each["plan"] for each in change["after"]["terms"]] == ["growth", "starter"]
    await shop.post(f"{path}/stay")
    (change,) = (await shop.journal(org, "entitlement.subscribed"))[-1:]
    assert [each["plan"] for each in change["after"]["terms"]] == ["growth"]
    await shop.post(f"{path}/switch", plan="starter")
    await shop.period_over(org)
    assert (await shop.entitlement(org))["plan"] == "starter"


async def test_a_failed_payment_is_grace_then_the_end_and_paying_brings_it_back(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.card(org, "declines")
    await shop.period_over(org)
    assert await shop.enforced(org) is Status.GRACE
    await shop.later(days=16)
    assert (await shop.subscription(org))["status"] == "unpaid"
    assert await shop.enforced(org) is Status.ENDED
    await shop.card(org, "good")
    invoice = next(shop.double.account.find("invoice", status="open"))
    await shop.page.post(f"{shop.double.url}/invoice/{invoice['id']}")
    await shop.settled()
    assert await shop.enforced(org) is Status.ACTIVE


async def test_a_failed_payment_is_an_incident_that_counts_the_attempts_until_it_is_paid(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.card(org, "declines")
    await shop.period_over(org)

    async def failed() -> list[tuple[int, str, bool]]:
        incidents = (await shop.admin.get("/v1/incidents")).json()["incidents"]
        return [
            (each["count"], each["content"]["invoice"], each["closed_at"] is None)
            for each in incidents
            if (each["kind"], each["org"]) == ("payment_failed", org)
        ]

    invoice = next(shop.double.account.find("invoice", status="open"))
    assert await failed() == [(1, invoice["id"], True)]
    await shop.later(days=16)
    tries = shop.double.account.get("invoice", invoice["id"])["attempt_count"]
    assert tries > 1
    assert await failed() == [(tries, invoice["id"], True)]
    await shop.card(org, "good")
    await shop.page.post(f"{shop.double.url}/invoice/{invoice['id']}")
    await shop.settled()
    assert await failed() == [(tries, invoice["id"], False)]


async def test_a_cancellation_ends_it_at_the_periods_end_or_at_once(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    path = f"/v1/organizations/{org}/subscription"
    assert (await shop.post(f"{path}/cancel")).json()["when"] == "period_end"
    assert await shop.enforced(org) is Status.ACTIVE
    await shop.post(f"{path}/stay")
    await shop.post(f"{path}/cancel", when="now")
    assert await shop.enforced(org) is Status.ENDED
    again = await shop.post("/v1/checkout-sessions", org=org, plan="growth", success_url="https://vendor.example/")
    assert again.status_code == 201, "who left may come back"


async def test_overage_is_billed_to_the_unit_with_the_period_that_it_was_used_in(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    assert isinstance(await charging.take(shop.context.ledger, org, "r1", {"api_calls": 101_234}), Admitted)
    await shop.period_over(org)
    invoice = next(shop.double.account.find("invoice", billing_reason="subscription_cycle"))
    used = [each["quantity"] for each in invoice["lines"]["data"] if each["description"] == "Usage"]
    assert used == [1234]
    assert invoice["total"] == 39_900 + 370, "1,234 calls at 0.3 cents"
    assert (await shop.journal(org, "overage.frozen"))[0]["after"]["units"] == 1234


async def test_a_plan_that_is_paid_by_the_year_has_its_allowance_each_month(shop: Shop) -> None:
    org = await shop.signed_up("growth", interval="year")
    entitlement = await shop.entitlement(org)
    start, end = (datetime.fromisoformat(entitlement["period"][name]) for name in ("start", "end"))
    assert 28 <= (end - start).days <= 31
    assert (entitlement["meters"][0]["allowance"], entitlement["policy"]) == (100_000, "METERED")
    (invoice,) = (await shop.admin.get(f"/v1/organizations/{org}/invoices")).json()["invoices"]
    assert invoice["total_minor"] == 399_000
    item = (await shop.subscription(org))["items"]["data"][0]
    assert (item["current_period_end"] - item["current_period_start"]) / 86_400 >= 365


async def test_seats_multiply_the_allowance_and_a_switch_of_their_number_is_paid_for(shop: Shop) -> None:
    org = await shop.signed_up("starter", quantity=3)
    assert (await shop.entitlement(org))["meters"][0]["allowance"] == 30_000
    await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="starter", quantity=5)
    assert (await shop.entitlement(org))["meters"][0]["allowance"] == 50_000
    invoices = (await shop.admin.get(f"/v1/organizations/{org}/invoices")).json()["invoices"]
    assert invoices[0]["billing_reason"] == "subscription_update"


async def test_a_plan_that_people_sell_is_known_by_the_price_they_made_for_it(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    billing = shop.context.billing
    assert billing is not None
    v1 = billing.client.v1
    price = await v1.prices.create_async(
        {
            "currency": "usd",
            "unit_amount": 500_000,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Scale for one customer"},
            "metadata": {"quotagate_plan": "scale"},
        }
    )
    subscription = await shop.subscription(org)
    item = subscription["items"]["data"][0]["id"]
    await v1.subscriptions.update_async(subscription["id"], {"items": [{"id": item, "price": price.id}]})
    await shop.settled()
    entitlement = await shop.entitlement(org)
    assert entitlement["plan"] == "scale"
    assert 9_990_000 < entitlement["meters"][0]["allowance"] <= 10_000_000, "for nearly all of the period"


async def test_what_an_admin_laid_over_a_plan_stays_over_a_switch_and_whoever_is_held_is_held(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    path = f"/v1/entitlements/{org}"
    response = await shop.admin.put(path, json={"plan": "starter", "meters": {"api_calls": 12_345}})
    assert response.status_code == 200, response.text
    assert (await shop.admin.put(path, json={"plan": "growth"})).status_code == 409, "what is paid for decides the plan"
    assert (await shop.admin.delete(path)).status_code == 409
    await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth")
    entitlement = await shop.entitlement(org)
    assert (entitlement["plan"], entitlement["meters"][0]["allowance"]) == ("growth", 12_345)
    held = {"plan": "growth", "meters": {"api_calls": 12_345}, "status": "suspended"}
    assert (await shop.admin.put(path, json=held)).status_code == 200
    await shop.card(org, "good")
    assert await shop.enforced(org) is Status.SUSPENDED
    assert (await shop.admin.put(path, json={"plan": "growth"})).status_code == 200
    assert await shop.enforced(org) is Status.ACTIVE


async def test_a_plan_that_changes_leaves_those_alone_who_subscribed_before(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    plans = load(None, "plans.yaml", PlansFile).plans
    starter = plans["starter"].model_copy(update={"price_minor": {"month": 5900}})
    assert shop.context.billing is not None
    await apply_plans(shop.context.db, {**plans, "starter": starter}, time.time(), Author("tests", "tests"))
    lines = await products.apply(shop.context.db, shop.context.billing.client, time.time(), dry_run=False)
    assert [line for line in lines if "5900 usd" in line]
    assert await products.apply(shop.context.db, shop.context.billing.client, time.time(), dry_run=False) == []
    version = (await shop.entitlement(org))["plan_version"]
    other = await shop.signed_up("starter")
    assert (await shop.entitlement(org))["plan_version"] == version
    assert (await shop.entitlement(other))["plan_version"] == version + 1
    await apply_plans(shop.context.db, plans, time.time(), Author("tests", "tests"))


async def test_a_late_upgrade_adds_the_share_of_the_period_that_is_left_and_the_whole_with_the_next(
    shop: Shop,
) -> None:
    account = shop.double.account
    account.clock.offset_seconds = -20 * DAY
    org = await shop.signed_up("starter")
    account.clock.offset_seconds = 0
    period = (await shop.entitlement(org))["period"]
    start, end = (datetime.fromisoformat(period[name]).timestamp() for name in ("start", "end"))
    await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth")
    entitlement = await shop.entitlement(org)
    share = (end - time.time()) / (end - start)
    assert (entitlement["plan"], entitlement["period"]) == ("growth", period)
    assert abs(entitlement["meters"][0]["allowance"] - (10_000 + 90_000 * share)) < 10
    journal = await shop.journal(org, "entitlement.subscribed")
    await shop.card(org, "good")  # another look changes nothing
    assert len(await shop.journal(org, "entitlement.subscribed")) == len(journal)
    assert (await shop.entitlement(org))["meters"] == entitlement["meters"]
    await shop.post(f"/v1/organizations/{org}/subscription/cancel")
    await shop.post(f"/v1/organizations/{org}/subscription/stay")
    assert (await shop.entitlement(org))["meters"] == entitlement["meters"]
    async with shop.context.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT effective_from, prorated FROM entitlement WHERE org = $1 AND (effective_to IS NULL OR"
            " effective_to > now()) ORDER BY effective_from",
            org,
        )
    assert [bool(row["prorated"]) for row in rows] == [True, False]
    assert rows[1]["effective_from"].timestamp() == end, "then the whole"

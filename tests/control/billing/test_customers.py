"""One organization, one open page to pay at; and where it has paid as two customers, what is paid for is served."""

import asyncio
from typing import Any

from control.billing.client import ask
from quota.model import Status
from tests import charging
from tests.control.billing.shop import DAY, Shop


def stripe(shop: Shop) -> Any:
    """Stripe's dashboard."""
    assert shop.context.billing is not None
    return shop.context.billing.client.v1


async def pay(shop: Shop, url: str) -> int:
    response = await shop.page.post(url, data={"action": "pay"})
    await shop.settled()
    return response.status_code


def open_sessions(shop: Shop, org: str) -> list[str]:
    return [each["id"] for each in shop.double.account.find("checkout.session", status="open", client_reference_id=org)]


async def paid_twice(shop: Shop) -> tuple[str, str, str]:
    """An organization that has paid as two customers, who bought starter first and growth then."""
    shop.double.account.clock.offset_seconds = -DAY
    org = await shop.signed_up("starter")
    shop.double.account.clock.offset_seconds = 0
    first = await shop.customer(org)
    second = await subscribed_by_hand(shop, org, "growth")
    return org, first, second


async def subscribed_by_hand(shop: Shop, org: str, plan: str) -> str:
    """A new customer that pays for the organization."""
    async with shop.context.db.connection() as connection:
        query = (
            "SELECT s.id FROM stripe_price s JOIN plan ON plan.id = s.plan_id WHERE plan.code = $1"
            " AND plan.superseded_at IS NULL AND s.billing_interval = 'month' ORDER BY s.meter NULLS FIRST"
        )
        prices = [row["id"] for row in await connection.fetch(query, plan)]
    customer = await ask(
        stripe(shop).customers.create_async({"payment_method": "pm_card_visa", "metadata": {"quotagate_org": org}})
    )
    items = [{"price": price} for price in prices]
    await ask(stripe(shop).subscriptions.create_async({"customer": customer["id"], "items": items}))
    await shop.settled()
    return str(customer["id"])


async def cancelled(shop: Shop, customer: str) -> None:
    (subscription,) = list(shop.double.account.find("subscription", customer=customer))
    await ask(stripe(shop).subscriptions.cancel_async(subscription["id"]))
    await shop.settled()


async def test_a_second_checkout_page_of_an_organization_ends_the_first(shop: Shop) -> None:
    org, first = await shop.order("starter")
    _, second = await shop.order("growth", org=org)
    assert len(open_sessions(shop, org)) == 1
    assert await pay(shop, first) != 303
    assert await shop.enforced(org) is Status.NONE
    assert await pay(shop, second) == 303
    assert (await shop.entitlement(org))["plan"] == "growth"
    assert len(list(shop.double.account.find("subscription", customer=await shop.customer(org)))) == 1


async def test_of_pages_that_are_asked_for_at_once_one_is_open_in_the_end(shop: Shop) -> None:
    org, _ = await shop.order("starter")
    await asyncio.gather(*(shop.order("starter", org=org) for _ in range(5)))
    assert len(open_sessions(shop, org)) == 1


async def test_a_page_that_is_asked_for_again_by_its_key_is_the_same_and_ends_no_other(shop: Shop) -> None:
    org, _ = await shop.order("starter")
    body = {"org": org, "plan": "starter", "success_url": "https://vendor.example/thanks"}
    headers = {"idempotency-key": f"again-{org}"}
    first, again = [await shop.admin.post("/v1/checkout-sessions", json=body, headers=headers) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    assert open_sessions(shop, org) == [first.json()["id"]]


async def test_a_page_is_not_opened_where_the_one_before_was_paid_a_moment_ago(shop: Shop) -> None:
    org, first = await shop.order("starter")
    listeners, shop.double.account.listeners = shop.double.account.listeners, []  # what Stripe tells comes later
    assert (await shop.page.post(first, data={"action": "pay"})).status_code == 303
    body = {"org": org, "plan": "growth", "success_url": "https://vendor.example/thanks"}
    response = await shop.admin.post("/v1/checkout-sessions", json=body)
    assert response.status_code == 409, response.text
    assert open_sessions(shop, org) == []
    shop.double.account.listeners = listeners


async def test_a_page_that_stripe_refuses_ends_no_page_that_is_open(shop: Shop) -> None:
    org, _ = await shop.order("starter")
    body = {"org": org, "plan": "growth", "success_url": "https://vendor.example/", "coupon": "none-such"}
    response = await shop.admin.post("/v1/checkout-sessions", json=body)
    assert 400 <= response.status_code < 500
    assert len(open_sessions(shop, org)) == 1


async def test_an_organization_that_has_paid_as_two_customers_is_served_until_neither_pays(shop: Shop) -> None:
    org, first, second = await paid_twice(shop)
    assert (await shop.entitlement(org))["plan"] == "growth", "the newest"
    assert await shop.incidents() == ["stripe_customer_conflict", "stripe_subscriptions_several"]
    await cancelled(shop, second)
    entitlement = await shop.entitlement(org)
    assert (entitlement["plan"], entitlement["status"]) == ("starter", "active")
    assert await shop.incidents() == ["stripe_customer_conflict"]
    await cancelled(shop, first)
    assert await shop.enforced(org) is Status.ENDED


async def test_when_the_followed_customer_is_deleted_the_other_is_served_and_is_the_organizations(shop: Shop) -> None:
    org, first, second = await paid_twice(shop)
    await ask(stripe(shop).customers.delete_async(first))
    await shop.settled()
    assert (await shop.entitlement(org))["plan"] == "growth"
    portal = await shop.admin.post(
        f"/v1/organizations/{org}/portal-sessions", json={"return_url": "https://vendor.example/"}
    )
    assert portal.status_code == 201, portal.text
    assert next(shop.double.account.find("billing_portal.session"))["customer"] == second
    assert await shop.incidents() == []


async def test_overage_is_billed_to_the_customer_whose_subscription_is_followed(shop: Shop) -> None:
    org, _, second = await paid_twice(shop)
    await charging.take(shop.context.ledger, org, "r1", {"api_calls": 100_020})
    while await shop.context.writer.lag_seconds():
        await shop.settled()
    assert shop.context.billing is not None
    await shop.context.billing.overage.freeze()
    assert await shop.context.billing.overage.send()
    events = shop.double.account.objects["billing.meter_event"].values()
    values = [(each["payload"]["stripe_customer_id"], each["payload"]["value"]) for each in events]
    assert values == [(second, "20")]


async def test_an_admin_says_which_customer_an_organization_is(shop: Shop) -> None:
    org, _, second = await paid_twice(shop)
    response = await shop.admin.put(f"/v1/organizations/{org}/customer", json={"customer": second})
    assert response.status_code == 200, response.text
    await shop.settled()
    assert await shop.incidents() == ["stripe_subscriptions_several"], "who pays twice is told still"
    response = await shop.post(f"/v1/organizations/{org}/credits", amount_minor=500, currency="usd", reason="sorry")
    assert response.status_code == 201, response.text
    assert shop.double.account.get("customer", second)["balance"] == -500


async def test_a_customer_that_was_linked_with_the_wrong_organization_is_moved_with_all_that_it_pays(
    shop: Shop,
) -> None:
    wrong = await shop.signed_up("growth")
    right = f"{wrong}-right"
    await shop.admin.put(f"/v1/organizations/{right}", json={"name": right})
    customer = await shop.customer(wrong)
    response = await shop.admin.put(f"/v1/organizations/{right}/customer", json={"customer": customer})
    assert response.status_code == 200, response.text
    await shop.settled()
    assert (await shop.entitlement(right))["plan"] == "growth"
    assert await shop.enforced(wrong) is Status.ENDED
    invoices = [(await shop.admin.get(f"/v1/organizations/{o}/invoices")).json()["invoices"] for o in (wrong, right)]
    assert [len(each) for each in invoices] == [0, 1]
    assert [each["action"] for each in await shop.journal(wrong)][-2:] == [
        "organization.customer_unlinked",
        "entitlement.subscribed",
    ]
    await shop.card(right, "good")  # a look afterwards changes nothing
    assert (await shop.entitlement(right))["plan"] == "growth"
    assert await shop.incidents() == []


async def test_a_customer_or_an_organization_that_nobody_knows_is_linked_with_nothing(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    response = await shop.admin.put(f"/v1/organizations/{org}/customer", json={"customer": "cus_of_nobody"})
    assert 400 <= response.status_code < 500, response.text
    customer = await shop.customer(org)
    response = await shop.admin.put("/v1/organizations/nobody-here/customer", json={"customer": customer})
    assert response.status_code == 404, response.text
    assert await shop.enforced(org) is Status.ACTIVE

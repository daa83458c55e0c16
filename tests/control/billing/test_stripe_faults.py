"""Stripe that fails, and what nobody foresaw there: no wrong entitlement, an incident where an admin must act."""

import asyncio
from typing import Any

import pytest
from httpx import AsyncClient

from control.billing.client import ask
from control.billing.subscriptions.inbox import BACKOFF
from control.billing.subscriptions.price_meanings import PLAN
from control.settings.control_plane import Settings
from quota.model import Status
from tests.control.billing.shop import MovingClock, Shop

HANG_SECONDS = 4.0


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Where Stripe hangs, it is given up after a fourth of that."""
    how = request.node.callspec.params.get("how", {}) if hasattr(request.node, "callspec") else {}
    if "hang_seconds" not in how:
        return settings
    impatient = settings.stripe.model_copy(update={"timeout_seconds": HANG_SECONDS / 4})
    return settings.model_copy(update={"stripe": impatient})


async def fails(shop: Shop, **how: Any) -> None:
    """From now on, until `works`."""
    fault = {"times": 1000, "path": "/v1/(customers|subscriptions|invoices)", **how}
    await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": fault})


async def works(shop: Shop) -> None:
    await fails(shop, times=0)


async def tried(shop: Shop, times: int) -> None:
    """All events that wait were tried so often."""
    assert isinstance(shop.clock, MovingClock)
    query = "SELECT count(*) FROM webhook_event WHERE outcome IS NULL AND (attempts < $1 OR last_error IS NULL)"
    async with asyncio.timeout(120):
        while True:
            async with shop.context.db.connection() as connection:
                if not await connection.fetchval(query, times):
                    return
            if shop.context.billing is not None and not shop.context.billing.inbox._at_work:
                shop.clock.move(seconds=BACKOFF.max_seconds * 2)
                wake(shop)
            await asyncio.sleep(0.05)


async def recovered(shop: Shop) -> None:
    assert isinstance(shop.clock, MovingClock)
    shop.clock.move(seconds=BACKOFF.max_seconds * 2)
    wake(shop)
    await shop.settled()


def wake(shop: Shop) -> None:
    assert shop.context.billing is not None
    shop.context.billing.inbox.wake()


def stripe(shop: Shop) -> Any:
    """Stripe's dashboard."""
    assert shop.context.billing is not None
    return shop.context.billing.client.v1


@pytest.mark.parametrize("how", [{"status": 429}, {"status": 500}, {"hang_seconds": HANG_SECONDS}], ids=str)
async def test_while_stripe_fails_nothing_is_given_or_taken_and_afterwards_all_is_right(
    shop: Shop, how: dict[str, Any]
) -> None:
    leaving = await shop.signed_up("starter")
    coming, url = await shop.order("growth")
    await fails(shop, **how)
    await shop.page.post(url, data={"action": "pay"})
    customer = await shop.customer(leaving)
    await shop.page.post(f"{shop.double.url}/_double/customers/{customer}/card", json={"card": "declines"})
    await shop.double.deliveries.flush()
    await tried(shop, 2)
    assert await shop.enforced(coming) is Status.NONE
    assert await shop.enforced(leaving) is Status.ACTIVE
    waiting = (await shop.admin.get("/api/admin/webhooks", params={"state": "waiting"})).json()["events"]
    assert waiting
    assert all(each["last_error"] for each in waiting)
    await works(shop)
    await recovered(shop)
    assert await shop.enforced(coming) is Status.ACTIVE
    assert len(await shop.journal(coming, "entitlement.subscribed")) == 1
    assert len(await shop.journal(leaving, "entitlement.subscribed")) == 1
    assert await shop.incidents() == []


async def test_a_request_that_needs_stripe_while_it_fails_is_answered_503(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await fails(shop, status=429)
    response = await shop.admin.post(f"/v1/organizations/{org}/subscription/cancel", json={})
    assert response.status_code == 503, response.text
    assert response.headers["retry-after"]
    assert await shop.enforced(org) is Status.ACTIVE


async def test_a_price_that_is_in_no_plan_keeps_what_there_is_and_opens_an_incident_until_it_is_in_one(
    shop: Shop,
) -> None:
    org = await shop.signed_up("starter")
    price = await ask(
        stripe(shop).prices.create_async(
            {
                "product": "quotagate_growth",
                "currency": "usd",
                "unit_amount": 25_000,
                "recurring": {"interval": "month"},
            }
        )
    )
    subscription = await shop.subscription(org)
    items = [{"id": subscription["items"]["data"][0]["id"], "price": price["id"]}]
    await ask(stripe(shop).subscriptions.update_async(subscription["id"], {"items": items}))
    await shop.settled()
    assert (await shop.entitlement(org))["plan"] == "starter"
    assert await shop.enforced(org) is Status.ACTIVE
    assert await shop.incidents() == ["stripe_price_unknown"]
    await ask(stripe(shop).prices.update_async(price["id"], {"metadata": {PLAN: "growth"}}))
    await shop.settled()
    assert (await shop.entitlement(org))["plan"] == "growth"
    assert await shop.incidents() == []


async def test_a_subscription_of_a_customer_that_nobody_knows_opens_an_incident_until_it_is_linked(shop: Shop) -> None:
    customer = await ask(
        stripe(shop).customers.create_async({"email": "somebody@customer.example", "payment_method": "pm_card_visa"})
    )
    async with shop.context.db.connection() as connection:
        price = await connection.fetchval(
            "SELECT s.id FROM stripe_price s JOIN plan ON plan.id = s.plan_id WHERE plan.code = 'starter'"
        )
    await ask(stripe(shop).subscriptions.create_async({"customer": customer["id"], "items": [{"price": price}]}))
    await shop.settled()
    assert await shop.incidents() == ["stripe_customer_unknown"]
    await ask(stripe(shop).customers.update_async(customer["id"], {"metadata": {"quotagate_org": "sold-by-hand"}}))
    await shop.settled()
    assert await shop.enforced("sold-by-hand") is Status.ACTIVE
    assert await shop.incidents() == []


async def test_a_second_customer_for_an_organization_changes_nothing_and_opens_an_incident(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await ask(stripe(shop).customers.create_async({"metadata": {"quotagate_org": org}}))
    await shop.settled()
    assert await shop.incidents() == ["stripe_customer_conflict"]
    assert await shop.enforced(org) is Status.ACTIVE


async def test_a_customer_that_is_deleted_has_nothing_any_more(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await ask(stripe(shop).customers.delete_async(await shop.customer(org)))
    await shop.settled()
    assert await shop.enforced(org) is Status.ENDED
    await shop.signed_up("growth", org=org)
    assert await shop.enforced(org) is Status.ACTIVE, "who was deleted may come back"
    assert await shop.incidents() == []


@pytest.mark.parametrize("decision", ["won", "lost"])
async def test_a_dispute_is_an_incident_until_the_bank_has_decided(shop: Shop, decision: str) -> None:
    org = await shop.signed_up("starter")
    invoice = next(shop.double.account.find("invoice", status="paid"))
    await shop.page.post(f"{shop.double.url}/_double/disputes", json={"invoice": invoice["id"]})
    await shop.settled()
    assert await shop.incidents() == ["stripe_dispute"]
    assert await shop.enforced(org) is Status.ACTIVE
    await shop.page.post(f"{shop.double.url}/_double/disputes", json={"invoice": invoice["id"], "status": decision})
    await shop.settled()
    assert await shop.incidents() == []
    (entry,) = (await shop.admin.get(f"/v1/organizations/{org}/billing-entries")).json()["entries"]
    assert (entry["kind"], entry["status"], entry["amount_minor"]) == ("dispute", decision, 4900)


@pytest.mark.parametrize("webhook_attempts_max", [2])
async def test_an_event_that_was_tried_for_the_last_time_is_dead_until_it_is_replayed(shop: Shop) -> None:
    org, url = await shop.order("starter")
    await fails(shop, status=429)
    await shop.page.post(url, data={"action": "pay"})
    await shop.double.deliveries.flush()
    await tried(shop, 3)
    assert await shop.incidents() == ["stripe_event_dead"]
    dead = (await shop.admin.get("/api/admin/webhooks", params={"state": "dead"})).json()["events"]
    assert dead
    await works(shop)
    await recovered(shop)
    assert await shop.enforced(org) is Status.NONE, "dead is dead"
    response = await shop.post("/api/admin/webhooks/replay", events=[each["id"] for each in dead])
    assert response.json() == {"replayed": len(dead), "fetched": 0, "unknown": []}
    assert await shop.enforced(org) is Status.ACTIVE
    assert (await shop.admin.get("/api/admin/webhooks", params={"state": "dead"})).json()["events"] == []
    assert await shop.incidents() == []


async def test_events_that_stripe_refuses_for_good_are_dead_at_once_and_an_admin_may_have_them_tried_again(
    shop: Shop,
) -> None:
    org, url = await shop.order("starter")
    await fails(shop, status=400)
    await shop.page.post(url, data={"action": "pay"})
    await shop.settled()
    assert await shop.incidents() == ["stripe_event_dead"]
    dead = (await shop.admin.get("/api/admin/webhooks", params={"state": "dead"})).json()["events"]
    assert {each["attempts"] for each in dead} == {1}
    assert await shop.enforced(org) is Status.NONE
    await works(shop)
    response = await shop.post("/api/admin/webhooks/replay", events=[each["id"] for each in dead])
    assert response.json()["replayed"] == len(dead)
    assert await shop.enforced(org) is Status.ACTIVE
    assert await shop.incidents() == []


async def test_a_dead_event_is_shown_with_what_stripe_sent_and_all_that_are_dead_are_tried_again_at_once(
    shop: Shop,
) -> None:
    org, url = await shop.order("starter")
    await fails(shop, status=400)
    await shop.page.post(url, data={"action": "pay"})
    await shop.settled()
    [first, *_] = dead = (await shop.admin.get("/api/admin/webhooks", params={"state": "dead"})).json()["events"]
    shown = (await shop.admin.get(f"/api/admin/webhooks/{first['id']}")).json()
    assert shown["payload"]["id"] == first["id"]
    assert [each["attempt"] for each in shown["failed_attempts"]] == [1]
    assert shown["failed_attempts"][0]["error"] == first["last_error"]
    for body in ({}, {"state": "dead", "events": [first["id"]]}, {"state": "done"}):
        assert (await shop.admin.post("/api/admin/webhooks/replay", json=body)).status_code == 422, body
    await works(shop)
    assert (await shop.post("/api/admin/webhooks/replay", state="dead")).json()["replayed"] == len(dead)
    assert await shop.enforced(org) is Status.ACTIVE
    assert await shop.incidents() == []
    kept = (await shop.admin.get(f"/api/admin/webhooks/{first['id']}")).json()
    assert (kept["state"], len(kept["failed_attempts"])) == ("done", 1)
    assert (await shop.admin.get("/api/admin/webhooks/evt_nobody")).status_code == 404
    assert (await shop.admin.get("/api/admin/webhooks/a%00b")).status_code == 422


async def test_what_one_customer_waits_for_holds_up_no_other(shop: Shop) -> None:
    stuck = await shop.signed_up("starter")
    await fails(shop, status=429, path=f"customers/{await shop.customer(stuck)}")
    await shop.page.post(
        f"{shop.double.url}/_double/customers/{await shop.customer(stuck)}/card", json={"card": "declines"}
    )
    org, url = await shop.order("growth")
    async with AsyncClient() as page:
        await page.post(url, data={"action": "pay"})
    async with asyncio.timeout(60):
        while await shop.enforced(org) is not Status.ACTIVE:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
    await works(shop)
    await recovered(shop)

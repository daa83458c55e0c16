"""Each object that the double answers or tells of has the shape that Stripe publishes for its kind."""

from typing import Any

import pytest
from httpx import AsyncClient
from stripe._v1_services import V1Services

from devstack.stripe.account import Account
from tests.devstack.stripe.selling import items_of, metered_price, price, subscribed
from tests.devstack.stripe.shapes import KINDS, class_of, faults_of, fields


async def everything_happens(client: V1Services, account: Account, raw: AsyncClient) -> None:
    """A vendor's months, in which each kind of object comes to be."""
    await client.webhook_endpoints.create_async({"url": "http://127.0.0.1:9/", "enabled_events": ["customer.deleted"]})
    plan, dear, used = await price(client), await price(client, 3000), await metered_price(client)
    await client.coupons.create_async({"id": "half", "percent_off": 50, "duration": "forever"})
    code = await client.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": "half"}, "code": "HALF"}
    )
    subscription = await subscribed(
        client, plan, discounts=[{"promotion_code": code.id}], automatic_tax={"enabled": True}
    )
    wanted: Any = {"items": [{"price": used}], "metadata": {"a": "b"}}
    await client.subscriptions.update_async(subscription.id, wanted)
    payload = {"stripe_customer_id": subscription.customer, "value": "12"}
    event = await client.billing.meter_events.create_async({"event_name": "calls", "payload": payload})
    assert faults_of(event.to_dict()) == []
    wanted = {"items": [{"id": items_of(subscription)[0]["id"], "price": dear}], "proration_behavior": "always_invoice"}
    await client.subscriptions.update_async(subscription.id, wanted | {"payment_behavior": "pending_if_incomplete"})
    account.advance_to(items_of(subscription)[0]["current_period_end"] + 3601)
    paid = (await client.invoices.list_async({"customer": subscription.customer, "status": "paid"})).data[0]
    note: Any = {"invoice": paid.id, "amount": 20, "refund_amount": 10, "credit_amount": 10}
    await client.credit_notes.create_async(note)
    await raw.post("/_double/disputes", json={"invoice": paid.id, "status": "lost"})
    schedule = await client.subscription_schedules.create_async({"from_subscription": subscription.id})
    phase = schedule.to_dict()["phases"][0]
    now: Any = {"start_date": phase["start_date"], "end_date": phase["end_date"], "items": [{"price": dear}]}
    await client.subscription_schedules.update_async(schedule.id, {"phases": [now, {"items": [{"price": plan}]}]})
    other = await subscribed(client, plan, trial_period_days=10)
    none: Any = {"pause_collection": None}
    await client.subscriptions.update_async(other.id, none | {"cancel_at_period_end": True})
    sent = await subscribed(client, plan, collection_method="send_invoice", days_until_due=9)
    await raw.post(f"/_double/customers/{sent.customer}/card", json={"card": "declines"})
    await client.billing_portal.configurations.create_async(
        {"features": {"invoice_history": {"enabled": True}, "subscription_cancel": {"enabled": True}}}
    )
    await client.invoice_items.create_async({"customer": subscription.customer, "amount": 7, "currency": "usd"})
    await client.billing_portal.sessions.create_async({"customer": subscription.customer})
    lines = [{"price": plan, "quantity": 1}]
    page: Any = {"mode": "subscription", "success_url": "http://vendor.example/", "line_items": lines}
    session = await client.checkout.sessions.create_async(page | {"allow_promotion_codes": True})
    assert (await raw.post(f"/checkout/{session.id}", data={"action": "pay", "code": "HALF"})).status_code == 303
    await client.checkout.sessions.create_async(page | {"discounts": [{"coupon": "half"}]})
    account.advance_to(account.clock.now() + 70 * 86_400)
    await client.subscriptions.cancel_async(sent.id, {"invoice_now": True, "prorate": True})


async def test_each_object_has_the_shape_that_stripe_publishes(
    client: V1Services, account: Account, raw: AsyncClient
) -> None:
    await everything_happens(client, account, raw)
    assert sorted(account.objects.keys() & set(KINDS)) == sorted(KINDS)
    faults = {each for kind in KINDS for value in account.objects[kind].values() for each in faults_of(value)}
    faults |= {each for event in account.objects["event"].values() for each in faults_of(event["data"]["object"])}
    assert sorted(faults) == []


async def test_each_answer_has_the_shape_that_stripe_publishes(
    client: V1Services, account: Account, raw: AsyncClient
) -> None:
    """Those of single objects, of lists and of what the account keeps differently."""
    await everything_happens(client, account, raw)
    faults: set[str] = set()
    for kind, path in PATHS.items():
        answer = (await raw.get(f"/v1/{path}")).json()
        assert answer["data"], path
        for each in answer["data"]:
            faults.update(faults_of(each))
            assert each["object"] == kind
            if path not in ONLY_LISTED:
                faults.update(faults_of((await raw.get(f"/v1/{path}/{each['id']}")).json()))
    meter = next(account.find("billing.meter"))
    event = next(iter(account.objects["billing.meter_event"].values()))
    start = event["timestamp"] // 60 * 60
    times = {"customer": event["payload"]["stripe_customer_id"], "start_time": start, "end_time": start + 60}
    summed = (await raw.get(f"/v1/billing/meters/{meter['id']}/event_summaries", params=times)).json()
    assert [each["aggregated_value"] for each in summed["data"]] == [12.0]
    for each in summed["data"]:
        faults.update(faults_of(each))
    assert sorted(faults) == []


PATHS = {
    "billing.meter": "billing/meters",
    "billing_portal.configuration": "billing_portal/configurations",
    "checkout.session": "checkout/sessions",
    "credit_note": "credit_notes",
    "customer": "customers",
    "event": "events",
    "invoice": "invoices",
    "invoice_payment": "invoice_payments",
    "invoiceitem": "invoiceitems",
    "payment_method": "payment_methods",
    "price": "prices",
    "product": "products",
    "promotion_code": "promotion_codes",
    "refund": "refunds",
    "subscription": "subscriptions",
    "subscription_schedule": "subscription_schedules",
    "webhook_endpoint": "webhook_endpoints",
}
ONLY_LISTED = ("invoice_payments", "payment_methods", "promotion_codes", "webhook_endpoints")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"valid": None}, "coupon.valid: None is no bool"),
        ({"valid": "yes"}, "coupon.valid: 'yes' is no bool"),
        ({"duration": "ever"}, "coupon.duration: 'ever' is none of ('forever', 'once', 'repeating')"),
        ({"colour": "red"}, "coupon.colour: unknown"),
        ({"metadata": {"a": 1}}, "coupon.metadata.a: 1 is no str"),
    ],
)
async def test_a_fault_of_a_shape_is_seen(
    client: V1Services, account: Account, change: dict[str, Any], fault: str
) -> None:
    await client.coupons.create_async({"id": "half", "percent_off": 50, "duration": "forever"})
    coupon = account.get("coupon", "half")
    assert faults_of(coupon) == []
    assert faults_of({**coupon, **change}) == [fault]
    assert set(coupon) <= set(fields(class_of("coupon")))

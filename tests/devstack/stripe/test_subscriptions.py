"""How the double begins, changes and ends subscriptions, with the pages of Stripe's that say so."""

from typing import Any

import pytest
import stripe
from stripe._v1_services import V1Services

from devstack.stripe.account import Account
from devstack.stripe.resources import customers
from tests.devstack.stripe.selling import items_of, metered_price, price, subscribed

DAY = 86_400


async def invoices_of(client: V1Services, subscription_id: str) -> list[Any]:
    """The oldest first."""
    invoices: list[Any] = (await client.invoices.list_async({"subscription": subscription_id})).data
    return invoices[::-1]


async def test_an_invoice_that_is_sent_is_due_after_its_days_and_the_subscription_is_active_meanwhile(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/billing/collection-method"""
    plan = await price(client)
    subscription = await subscribed(client, plan, collection_method="send_invoice", days_until_due=10)
    (first,) = await invoices_of(client, subscription.id)
    assert (subscription.status, first.status, first.amount_remaining) == ("active", "open", 1000)
    assert first.due_date == first.status_transitions.finalized_at + 10 * DAY
    account.advance_to(first.due_date)
    assert (await client.subscriptions.retrieve_async(subscription.id)).status == "past_due"
    await client.invoices.pay_async(first.id)
    assert (await client.subscriptions.retrieve_async(subscription.id)).status == "active"
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        await subscribed(client, plan, collection_method="send_invoice")


async def test_how_invoices_are_collected_can_be_changed_for_those_that_come(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/api/subscriptions/update#update_subscription-collection_method"""
    subscription = await subscribed(client, await price(client))
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        await client.subscriptions.update_async(subscription.id, {"collection_method": "send_invoice"})
    await client.subscriptions.update_async(subscription.id, {"collection_method": "send_invoice", "days_until_due": 5})
    account.advance_to(items_of(subscription)[0]["current_period_end"] + 3601)
    first, second = await invoices_of(client, subscription.id)
    assert [each.collection_method for each in (first, second)] == ["charge_automatically", "send_invoice"]
    assert (second.status, second.due_date) == ("open", second.status_transitions.finalized_at + 5 * DAY)
    changed = await client.subscriptions.update_async(subscription.id, {"collection_method": "charge_automatically"})
    assert changed.days_until_due is None


@pytest.mark.parametrize(("proration", "total"), [(None, 500), ("create_prorations", 500), ("none", 0)])
async def test_an_anchor_sets_when_the_first_full_period_begins_and_what_is_before_is_prorated(
    client: V1Services, account: Account, proration: str | None, total: int
) -> None:
    """https://docs.stripe.com/billing/subscriptions/billing-cycle"""
    plan = await price(client, interval="week")
    anchor = account.clock.now() + 7 * DAY // 2
    more = {} if proration is None else {"proration_behavior": proration}
    subscription = await subscribed(client, plan, billing_cycle_anchor=anchor, **more)
    assert subscription.billing_cycle_anchor == items_of(subscription)[0]["current_period_end"] == anchor
    (first,) = await invoices_of(client, subscription.id)
    assert first.total == pytest.approx(total, abs=1)
    assert first.status == "paid"
    account.advance_to(anchor + 3601)
    renewed = await client.subscriptions.retrieve_async(subscription.id)
    assert items_of(renewed)[0]["current_period_end"] == anchor + 7 * DAY
    assert [each.total for each in (await invoices_of(client, subscription.id))[1:]] == [1000]


@pytest.mark.parametrize("days", [-1, 8])
async def test_an_anchor_lies_before_the_next_natural_billing_date(
    client: V1Services, account: Account, days: int
) -> None:
    plan = await price(client, interval="week")
    with pytest.raises(stripe.InvalidRequestError, match="billing_cycle_anchor"):
        await subscribed(client, plan, billing_cycle_anchor=account.clock.now() + days * DAY)


async def test_the_anchor_is_moved_to_now_for_a_new_period_and_what_was_left_is_given_back(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/billing/subscriptions/billing-cycle#changing"""
    subscription = await subscribed(client, await price(client, interval="week"))
    item = items_of(subscription)[0]
    now = item["current_period_start"] + 7 * DAY // 2
    account.advance_to(now)
    wanted: Any = {"billing_cycle_anchor": {"type": "now"}, "proration_behavior": "create_prorations"}
    changed = await client.subscriptions.update_async(subscription.id, wanted)
    moved = items_of(changed)[0]
    assert moved["current_period_start"] == changed.billing_cycle_anchor == pytest.approx(now, abs=30)
    assert moved["current_period_end"] == moved["current_period_start"] + 7 * DAY
    newest = (await invoices_of(client, subscription.id))[-1]
    assert [line.amount for line in newest.lines.data] == [pytest.approx(-500, abs=1), 1000]


@pytest.mark.parametrize("how", ["cancel_at_period_end", "min_period_end", "at the end"])
async def test_a_subscription_is_begun_with_its_end_and_bills_its_usage_then(
    client: V1Services, account: Account, how: str
) -> None:
    """https://docs.stripe.com/billing/subscriptions/cancel"""
    plan, used = await price(client, interval="week"), await metered_price(client, interval="week")
    at_end = account.clock.now() + 7 * DAY
    end: Any = {"cancel_at": at_end if how == "at the end" else how}
    if how == "at the end":
        account.clock.stopped_at = at_end - 7 * DAY  # the period ends in the very second that is named
    if how == "cancel_at_period_end":
        end = {"cancel_at_period_end": True}
    customer = await client.customers.create_async({"payment_method": "pm_card_visa"})
    items: Any = [{"price": plan}, {"price": used}]
    subscription = await client.subscriptions.create_async({"customer": customer.id, "items": items} | end)
    account.clock.stopped_at = None
    ends = items_of(subscription)[0]["current_period_end"]
    assert (subscription.cancel_at, subscription.cancel_at_period_end) == (ends, how == "cancel_at_period_end")
    payload = {"stripe_customer_id": customer.id, "value": "7"}
    await client.billing.meter_events.create_async({"event_name": "calls", "payload": payload})
    account.advance_to(ends + 3601)
    over = await client.subscriptions.retrieve_async(subscription.id)
    assert (over.status, over.ended_at) == ("canceled", ends)
    first, last = await invoices_of(client, subscription.id)
    assert (first.total, last.total, last.lines.data[0].quantity) == (1000, 7, 7)


async def test_an_end_inside_of_the_period_comes_then_where_nothing_is_prorated(
    client: V1Services, account: Account
) -> None:
    plan = await price(client)
    subscription = await subscribed(client, plan)
    at = account.clock.now() + DAY
    with pytest.raises(stripe.InvalidRequestError, match="stand-in"):
        await client.subscriptions.update_async(subscription.id, {"cancel_at": at})
    await client.subscriptions.update_async(subscription.id, {"cancel_at": at, "proration_behavior": "none"})
    account.advance_to(at)
    over = await client.subscriptions.retrieve_async(subscription.id)
    assert (over.status, over.ended_at) == ("canceled", at)
    for wrong in ({"cancel_at": account.clock.now() - DAY}, {"cancel_at": at + 90 * DAY, "cancel_at_period_end": True}):
        with pytest.raises(stripe.InvalidRequestError, match="cancel_at"):
            await subscribed(client, plan, **wrong)


async def test_a_trial_is_made_longer_and_shorter_and_the_first_payment_moves_with_it(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/billing/subscriptions/trials"""
    subscription = await subscribed(client, await price(client), trial_period_days=10)
    longer = subscription.trial_end + 20 * DAY
    changed = await client.subscriptions.update_async(subscription.id, {"trial_end": longer})
    assert changed.trial_end == items_of(changed)[0]["current_period_end"] == longer
    account.advance_to(subscription.trial_end + DAY)
    assert (await client.subscriptions.retrieve_async(subscription.id)).status == "trialing"
    assert [each["type"] for each in account.find("event", type="customer.subscription.trial_will_end")] == []
    account.advance_to(longer - 3 * DAY)
    assert len(list(account.find("event", type="customer.subscription.trial_will_end"))) == 1
    shorter = account.clock.now() + DAY
    await client.subscriptions.update_async(subscription.id, {"trial_end": shorter})
    account.advance_to(shorter + 3601)
    over = await client.subscriptions.retrieve_async(subscription.id)
    assert (over.status, items_of(over)[0]["current_period_start"]) == ("active", shorter)
    assert [each.total for each in await invoices_of(client, subscription.id)] == [0, 1000]
    with pytest.raises(stripe.InvalidRequestError, match="trial_end"):
        await client.subscriptions.update_async(subscription.id, {"trial_end": account.clock.now() + DAY})


async def test_a_subscription_keeps_its_currency_and_a_customer_has_one(client: V1Services) -> None:
    """https://docs.stripe.com/billing/customer#currency"""
    yen, dollars = await price(client, currency="jpy"), await price(client)
    subscription = await subscribed(client, yen)
    assert subscription.currency == "jpy"
    wanted: Any = {"items": [{"id": items_of(subscription)[0]["id"], "price": dollars}]}
    for refused in (
        client.subscriptions.update_async(subscription.id, wanted),
        client.subscriptions.create_async({"customer": subscription.customer, "items": [{"price": dollars}]}),
        subscribed(client, dollars, currency="jpy"),
    ):
        with pytest.raises(stripe.InvalidRequestError, match="expected currency: `jpy`"):
            await refused
    assert items_of(await client.subscriptions.retrieve_async(subscription.id))[0]["price"]["id"] == yen


@pytest.mark.parametrize(("mode", "billed"), [("flexible", [7]), ("classic", [])])
async def test_usage_of_a_metered_item_that_is_removed_is_billed_as_the_billing_mode_says(
    client: V1Services, mode: str, billed: list[int]
) -> None:
    """https://docs.stripe.com/billing/subscriptions/billing-mode"""
    plan, used = await price(client), await metered_price(client)
    customer = await client.customers.create_async({"payment_method": "pm_card_visa"})
    items: Any = [{"price": plan}, {"price": used}]
    wanted: Any = {"customer": customer.id, "items": items, "billing_mode": {"type": mode}}
    subscription = await client.subscriptions.create_async(wanted)
    payload = {"stripe_customer_id": customer.id, "value": "7"}
    await client.billing.meter_events.create_async({"event_name": "calls", "payload": payload})
    gone: Any = {
        "items": [{"id": items_of(subscription)[1]["id"], "deleted": True}],
        "proration_behavior": "always_invoice",
    }
    await client.subscriptions.update_async(subscription.id, gone)
    later = (await invoices_of(client, subscription.id))[1:]
    assert [line.quantity for each in later for line in each.lines.data] == billed


async def test_a_payment_that_fails_leaves_the_subscription_as_it_was_where_an_error_was_asked_for(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/api/subscriptions/update#update_subscription-payment_behavior"""
    cheap, dear = await price(client), await price(client, 3000, interval="year")
    subscription = await subscribed(client, cheap)
    customers.set_card(account, subscription.customer, "declines")
    before = (await client.subscriptions.retrieve_async(subscription.id)).to_dict()
    updates = len(list(account.find("event", type="customer.subscription.updated")))
    wanted: Any = {
        "items": [
            {"id": items_of(subscription)[0]["id"], "price": dear, "metadata": {"a": "b"}},
            {"price": await price(client, 5, interval="year")},
        ],
        "proration_behavior": "always_invoice",
        "payment_behavior": "error_if_incomplete",
        "metadata": {"c": "d"},
    }
    with pytest.raises(stripe.CardError, match="declined"):
        await client.subscriptions.update_async(subscription.id, wanted)
    assert (await client.subscriptions.retrieve_async(subscription.id)).to_dict() == before
    assert len(list(account.find("event", type="customer.subscription.updated"))) == updates
    assert (await invoices_of(client, subscription.id))[-1].status == "void"
    account.advance_to(items_of(subscription)[0]["current_period_end"])
    assert [item["price"]["id"] for item in items_of(await client.subscriptions.retrieve_async(subscription.id))] == [
        cheap
    ]


async def test_phases_end_with_periods_and_carry_discounts_and_a_running_trial(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/billing/subscriptions/subscription-schedules"""
    plan, dear = await price(client), await price(client, 3000)
    await client.coupons.create_async({"id": "half", "percent_off": 50, "duration": "forever"})
    subscription = await subscribed(client, plan, trial_period_days=10)
    made = await client.subscription_schedules.create_async({"from_subscription": subscription.id})
    start, end = subscription.trial_start, subscription.trial_end
    now: Any = {"start_date": start, "end_date": end, "trial_end": end, "items": [{"price": plan}]}
    then: Any = {"items": [{"price": dear}], "discounts": [{"coupon": "half"}]}
    for wrong in ([{**now, "end_date": end - DAY, "trial_end": end - DAY}, then], [now, {**then, "trial": True}]):
        with pytest.raises(stripe.InvalidRequestError, match="stand-in"):
            await client.subscription_schedules.update_async(made.id, {"phases": wrong})
    await client.subscription_schedules.update_async(made.id, {"phases": [now, then]})
    assert (await client.subscriptions.retrieve_async(subscription.id)).trial_end == end
    account.advance_to(end + 3601)
    assert [each.total for each in await invoices_of(client, subscription.id)] == [0, 1500]


async def test_a_discount_that_there_is_goes_on_and_is_not_redeemed_again(client: V1Services, account: Account) -> None:
    """https://docs.stripe.com/billing/subscriptions/coupons"""
    await client.coupons.create_async({"id": "half", "percent_off": 50, "duration": "forever"})
    subscription = await subscribed(client, await price(client), discounts=[{"coupon": "half"}])
    (discount,) = subscription.discounts
    changed = await client.subscriptions.update_async(subscription.id, {"discounts": [{"discount": discount}]})
    assert changed.discounts == [discount]
    assert account.get("coupon", "half")["times_redeemed"] == 1


async def test_what_is_left_is_given_back_when_a_subscription_is_ended_at_once(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/api/subscriptions/cancel#cancel_subscription-prorate"""
    subscription = await subscribed(client, await price(client, interval="week"))
    account.advance_to(items_of(subscription)[0]["current_period_start"] + 7 * DAY // 2)
    ended = await client.subscriptions.cancel_async(subscription.id, {"prorate": True, "invoice_now": True})
    assert ended.status == "canceled"
    assert account.get("customer", subscription.customer)["balance"] == pytest.approx(-500, abs=1)

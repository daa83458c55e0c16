"""A switch that waits for the period's end replaces the phases of a schedule, and loses nothing of what they had."""

from typing import Any

import pytest
import stripe

from control.billing import phases
from control.billing.client import ask
from control.billing.failures import StripeRefused
from devstack.stripe.parameters import _hints, _resolved, checked
from quota.model import Status
from tests.control.billing.shop import DAY, Shop

Object = dict[str, Any]
START, END = 1_800_000_000, 1_800_000_000 + 30 * DAY
PHASE, ITEM = (
    stripe.params.SubscriptionScheduleUpdateParamsPhase,
    stripe.params.SubscriptionScheduleUpdateParamsPhaseItem,
)


def stripe_of(shop: Shop) -> Any:
    """Stripe's dashboard."""
    assert shop.context.billing is not None
    return shop.context.billing.client.v1


def test_each_field_of_a_phase_that_stripe_takes_is_carried_over_or_named_with_its_reason() -> None:
    assert set(_resolved(PHASE)) == {*phases.SETTINGS, *phases.RUNNING, *phases.DERIVED}
    assert set(_resolved(ITEM)) == {*phases.ITEM, *phases.ITEM_DERIVED}
    assert all([*phases.DERIVED.values(), *phases.ITEM_DERIVED.values()])


def full_phase() -> Object:
    """A phase that has everything, as Stripe tells it."""
    return {
        "add_invoice_items": [
            {
                "discountable": True,
                "discounts": [{"coupon": "c", "discount": None, "promotion_code": None}],
                "metadata": {"a": "b"},
                "period": {"end": {"timestamp": END, "type": "timestamp"}, "start": {"type": "phase_start"}},
                "price": "price_once",
                "quantity": 2,
                "tax_rates": [{"id": "txr_1", "object": "tax_rate"}],
            }
        ],
        "application_fee_percent": 1.5,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": True,
            "liability": {"type": "account", "account": {"id": "acct_1", "object": "account"}},
        },
        "billing_cycle_anchor": "phase_start",
        "billing_thresholds": {"amount_gte": 1000, "reset_billing_cycle_anchor": False},
        "collection_method": "send_invoice",
        "currency": "usd",
        "default_payment_method": {"id": "pm_1", "object": "payment_method"},
        "default_tax_rates": [{"id": "txr_2", "object": "tax_rate"}],
        "description": "by hand",
        "discounts": [],
        "end_date": END + DAY,
        "invoice_settings": {
            "account_tax_ids": ["atxi_1"],
            "custom_fields": [{"name": "PO", "value": "42"}],
            "days_until_due": 30,
            "description": "thanks",
            "footer": "bye",
            "issuer": {"type": "self", "account": None},
        },
        "items": [
            {
                "billing_thresholds": {"usage_gte": 5},
                "discounts": [],
                "metadata": {"seat": "1"},
                "plan": "price_growth",
                "price": "price_growth",
                "quantity": 3,
                "tax_rates": [{"id": "txr_3", "object": "tax_rate"}],
            }
        ],
        "metadata": {"deal": "7"},
        "on_behalf_of": "acct_2",
        "proration_behavior": "create_prorations",
        "start_date": START,
        "transfer_data": {"amount_percent": 10.0, "destination": "acct_3"},
        "trial": None,
        "trial_end": START + DAY,
    }


def standing() -> Object:
    """The subscription of that phase."""
    items = [
        {"id": "si_1", "price": {"id": "price_growth"}, "quantity": 3, "metadata": {}, "discounts": ["di_item"]},
        {"id": "si_2", "price": {"id": "price_addon"}, "quantity": 4, "metadata": {"own": "yes"}, "discounts": []},
    ]
    return {"id": "sub_1", "status": "active", "discounts": ["di_1", "di_2"], "items": {"data": items}}


def test_a_running_phase_is_sent_again_with_all_that_it_has() -> None:
    subscription = standing()
    sent = phases.running(full_phase(), subscription, subscription["items"]["data"], END)
    assert set(sent) == {*phases.SETTINGS, *phases.RUNNING, "end_date", "items"} - {"trial"}
    assert sent["discounts"] == [{"discount": "di_1"}, {"discount": "di_2"}]
    assert sent["items"] == [
        {
            "billing_thresholds": {"usage_gte": 5},
            "discounts": [{"discount": "di_item"}],
            "metadata": {"seat": "1"},
            "price": "price_growth",
            "quantity": 3,
            "tax_rates": ["txr_3"],
        },
        {"metadata": {"own": "yes"}, "price": "price_addon", "quantity": 4},
    ]
    assert (sent["start_date"], sent["end_date"], sent["trial_end"]) == (START, END, START + DAY)
    assert sent["automatic_tax"] == {"enabled": True, "liability": {"type": "account", "account": "acct_1"}}
    assert sent["invoice_settings"]["days_until_due"] == 30
    assert sent["add_invoice_items"][0]["tax_rates"] == ["txr_1"]
    following = phases.following(full_phase(), subscription, [{"price": "price_starter"}], "month")
    assert set(following) == {*phases.SETTINGS, "items", "duration", "proration_behavior"}
    for each in (sent, following):
        checked({"phases": [_as_text(each)]}, "SubscriptionScheduleUpdateParams")  # Stripe's own types take it


def test_what_only_the_subscription_says_is_carried_over_too() -> None:
    bare = {name: None for name in _hints("SubscriptionScheduleUpdateParamsPhase") if name != "expand"}
    phase: dict[str, Any] = {**bare, "items": [], "start_date": START, "end_date": END}
    subscription = {
        **standing(),
        "status": "trialing",
        "trial_end": END,
        "collection_method": "send_invoice",
        "days_until_due": 14,
        "default_payment_method": "pm_1",
        "default_tax_rates": [{"id": "txr_1"}],
    }
    sent = phases.running(phase, subscription, subscription["items"]["data"], END)
    assert (sent["trial_end"], sent["collection_method"], sent["default_payment_method"]) == (
        END,
        "send_invoice",
        "pm_1",
    )
    assert (sent["invoice_settings"], sent["default_tax_rates"]) == ({"days_until_due": 14}, ["txr_1"])
    assert "trial_end" not in phases.following(phase, subscription, [], "month")


@pytest.mark.parametrize("where", ["phase", "item"])
def test_a_phase_with_what_is_not_known_here_is_refused_by_name(where: str) -> None:
    phase, subscription = full_phase(), standing()
    (phase if where == "phase" else phase["items"][0])["of_tomorrow"] = {"a": 1}
    with pytest.raises(StripeRefused, match="of_tomorrow"):
        phases.running(phase, subscription, subscription["items"]["data"], END)


async def test_a_downgrade_at_the_periods_end_keeps_discount_add_on_and_what_else_the_subscription_has(
    shop: Shop,
) -> None:
    v1 = stripe_of(shop)
    org = await shop.signed_up("growth")
    coupon = await ask(v1.coupons.create_async({"percent_off": 20, "duration": "forever"}))
    recurring = {"interval": "month"}
    addon = await ask(
        v1.prices.create_async(
            {"currency": "usd", "unit_amount": 1000, "recurring": recurring, "product_data": {"name": "Add-on"}}
        )
    )
    subscription = await shop.subscription(org)
    change = {
        "discounts": [{"coupon": coupon["id"]}],
        "items": [{"price": addon["id"], "quantity": 2}],
        "metadata": {"deal": "7"},
    }
    await ask(v1.subscriptions.update_async(subscription["id"], change))
    await shop.settled()
    method = next(shop.double.account.find("payment_method"))["id"]
    subscription["default_payment_method"] = method
    (discount,) = subscription["discounts"]
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="starter")
    assert response.json()["when"] == "period_end", response.text
    subscribed = await shop.subscription(org)
    assert subscribed["discounts"] == [discount], "of the running phase"
    assert (subscribed["default_payment_method"], subscribed["metadata"]["deal"]) == (method, "7")
    assert addon["id"] in {item["price"]["id"] for item in subscribed["items"]["data"]}
    await shop.period_over(org)
    subscribed = await shop.subscription(org)
    assert (await shop.entitlement(org))["plan"] == "starter"
    assert subscribed["discounts"] == [discount], "of the next phase"
    assert (subscribed["default_payment_method"], subscribed["metadata"]["deal"]) == (method, "7")
    quantities = {item["price"]["id"]: item.get("quantity") for item in subscribed["items"]["data"]}
    assert quantities[addon["id"]] == 2
    invoice = next(shop.double.account.find("invoice", billing_reason="subscription_cycle"))
    full = sum(
        line["amount"]
        for line in invoice["lines"]["data"]
        if not line["parent"]["subscription_item_details"]["proration"]
    )
    assert full == 4900 + 2000
    assert invoice["total_discount_amounts"][0]["amount"] == full // 5


async def test_a_downgrade_of_a_trial_leaves_the_trial_as_long_as_it_was(shop: Shop) -> None:
    org = await shop.signed_up("growth", trial_days=14)
    ends = (await shop.subscription(org))["trial_end"]
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="starter")
    assert response.json()["when"] == "period_end", response.text
    subscribed = await shop.subscription(org)
    assert (subscribed["status"], subscribed["trial_end"]) == ("trialing", ends)
    assert await shop.enforced(org) is Status.TRIALING
    await shop.later(days=14, hours=2)
    assert (await shop.entitlement(org))["plan"] == "starter"
    assert await shop.enforced(org) is Status.ACTIVE


def _as_text(value: Any) -> Any:
    """As it is on the wire."""
    if isinstance(value, dict):
        return {name: _as_text(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return ("true" if value else "false") if isinstance(value, bool) else str(value)

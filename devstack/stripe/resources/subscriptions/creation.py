"""A subscription begins: its first period, its first invoice, and the payment of that."""

from typing import NamedTuple

from devstack.stripe.account import Account, Object, RequestRefused, card_declined, timer, unsupported, unused
from devstack.stripe.resources import amounts, customers, discounts, invoices
from devstack.stripe.resources.subscriptions.endings import set_end
from devstack.stripe.resources.subscriptions.items import (
    added,
    check_prices,
    item_of,
    licensed_lines,
    metered,
)
from devstack.stripe.resources.subscriptions.payment_status import set_status
from devstack.stripe.resources.subscriptions.trials import requested_trial_end, trial_will_end_at

INCOMPLETE_SECONDS = 23 * 3600
NULL_AT_FIRST = (
    "application application_fee_percent billing_cycle_anchor_config billing_thresholds cancel_at canceled_at"
    " customer_account default_source ended_at latest_invoice managed_payments next_pending_invoice_item_invoice"
    " on_behalf_of pause_collection pending_invoice_item_interval pending_setup_intent pending_update schedule"
    " test_clock transfer_data"
)


class FirstPeriod(NamedTuple):
    start: int
    end: int
    trial_end: int | None
    anchor: int | None
    """Where one is asked for: the end of a shorter period, with which the billing cycle begins."""


def make(account: Account, params: Object, payment_behavior: str = "default_incomplete") -> Object:
    """Begins a subscription and its first invoice. `payment_behavior`: where the parameters name none.

    Raises RequestRefused."""
    customer = customers.alive(account, params["customer"])
    prices = [account.get("price", each["price"]) for each in params["items"]]
    currency = params.get("currency") or customer["currency"] or prices[0]["currency"]
    check_prices(currency, prices)
    if (params.get("collection_method") == "send_invoice") != ("days_until_due" in params):
        raise RequestRefused(
            "days_until_due is needed where invoices are sent, and only there.", param="days_until_due"
        )
    period = first_period(params, prices[0], account.clock.now())
    subscription_id = account.new_id("sub")
    items = [
        item_of(account, subscription_id, price, each, period.start, period.end)
        for price, each in zip(prices, params["items"], strict=True)
    ]
    discount_ids = discounts.redeem_all(account, params.get("discounts") or [], subscription_id)
    subscription = account.add(
        {
            "id": subscription_id,
            "object": "subscription",
            "currency": currency,
            "customer": customer["id"],
            "discounts": discount_ids,
            **unused(NULL_AT_FIRST),
            **_of_items(subscription_id, items),
            **_of_period(period),
            **_of_params(params),
        }
    )
    customer["currency"] = customer["currency"] or currency
    set_end(account, subscription, params)
    first = _first_invoice(account, customer, subscription, period, params)
    _collect_first(account, subscription, first, params.get("payment_behavior", payment_behavior))
    if period.trial_end is not None:
        account.at(trial_will_end_at(period.start, period.trial_end), "trial_will_end", subscription_id)
    if subscription["status"] == "incomplete":
        account.at(period.start + INCOMPLETE_SECONDS, "incomplete", subscription_id)
    account.at(period.end, "renew", subscription_id)
    return subscription


def first_period(params: Object, price: Object, now: int) -> FirstPeriod:
    """Raises RequestRefused."""
    trial_end = requested_trial_end(params, now)
    anchor = _requested_anchor(params, price, now)
    return FirstPeriod(now, trial_end or anchor or added(now, price, 1), trial_end, anchor)


def billing_mode(params: Object) -> Object:
    mode = params.get("billing_mode") or {"type": "flexible"}
    if mode["type"] == "classic":
        return {"type": "classic", "flexible": None}
    return {"type": "flexible", "flexible": {"proration_discounts": "included"}}


def _requested_anchor(params: Object, price: Object, now: int) -> int | None:
    """When the first full period begins, where that is asked for.

    https://docs.stripe.com/billing/subscriptions/billing-cycle"""
    anchor: int | None = params.get("billing_cycle_anchor")
    if anchor is None:
        return None
    if params.get("trial_end") or params.get("trial_period_days"):
        message = "The stand-in for Stripe does not support billing_cycle_anchor together with a trial."
        raise unsupported(message, "billing_cycle_anchor")
    if not now < anchor <= added(now, price, 1):
        message = "billing_cycle_anchor must be a future time, and not later than the next natural billing date."
        raise RequestRefused(message, param="billing_cycle_anchor")
    return anchor


def _of_items(subscription_id: str, items: list[Object]) -> Object:
    return {
        "items": {
            "object": "list",
            "data": items,
            "has_more": False,
            "total_count": len(items),
            "url": f"/v1/subscription_items?subscription={subscription_id}",
        },
    }


def _of_period(period: FirstPeriod) -> Object:
    return {
        "billing_cycle_anchor": period.trial_end or period.anchor or period.start,
        "created": period.start,
        "start_date": period.start,
        "status": "trialing" if period.trial_end else "incomplete",
        "trial_end": period.trial_end,
        "trial_start": period.start if period.trial_end else None,
    }


def _of_params(params: Object) -> Object:
    """What the request says, or Stripe where it does not."""
    return {
        "automatic_tax": {
            "enabled": (params.get("automatic_tax") or {}).get("enabled", False),
            **unused("disabled_reason liability"),
        },
        "billing_mode": billing_mode(params),
        "billing_schedules": [],
        "cancel_at_period_end": False,
        "cancellation_details": unused("comment feedback feedback_option reason"),
        "collection_method": params.get("collection_method", "charge_automatically"),
        "days_until_due": params.get("days_until_due"),
        "default_payment_method": params.get("default_payment_method"),
        "default_tax_rates": [],
        "description": params.get("description"),
        "invoice_settings": {
            "issuer": {"type": "self"},
            **unused("account_tax_ids custom_fields description footer"),
        },
        "livemode": False,
        "metadata": params.get("metadata") or {},
        "payment_settings": {
            "save_default_payment_method": "off",
            **unused("payment_method_options payment_method_types"),
        },
        "trial_settings": {
            "end_behavior": {
                "billing_cycle_anchor": None,
                "missing_payment_method": "create_invoice",
                **(params.get("trial_settings") or {}).get("end_behavior", {}),
            }
        },
    }


def _first_invoice(
    account: Account, customer: Object, subscription: Object, period: FirstPeriod, params: Object
) -> Object:
    if period.anchor is not None:
        proration = params.get("proration_behavior", "create_prorations")
        lines = [] if proration == "none" else _lines_until(account, subscription, period.anchor)
    else:
        lines = licensed_lines(account, subscription, free=period.trial_end is not None)
    first = invoices.draft(account, customer, subscription, "subscription_create", lines, (period.start, period.start))
    invoices.finalize(account, first)
    if period.trial_end is None:
        discounts.drop_spent(account, subscription)
    return first


def _lines_until(account: Account, subscription: Object, anchor: int) -> list[Object]:
    """The part of a period that is before the anchor."""
    lines = []
    for item in subscription["items"]["data"]:
        if metered(item):
            continue
        price, quantity, now = item["price"], item["quantity"], account.clock.now()
        amount = amounts.prorated(amounts.amount_of(price, quantity), added(anchor, price, -1), anchor, now)
        text = f"Time until the first full period on {quantity} x {price['product']}"
        lines.append(
            invoices.line(
                account,
                subscription,
                price,
                amount,
                quantity,
                (now, anchor),
                text,
                item=item["id"],
                proration=True,
            )
        )
    return lines


def _collect_first(account: Account, subscription: Object, first: Object, payment_behavior: str) -> None:
    """Raises RequestRefused where the payment fails and nothing is to begin without it; the subscription is gone then.

    https://docs.stripe.com/api/subscriptions/create#create_subscription-payment_behavior"""
    trialing = subscription["status"] == "trialing"
    confirmed_later = payment_behavior == "default_incomplete" and not trialing and first["amount_remaining"]
    if not confirmed_later and invoices.attempt(account, first, final=True):
        if not trialing:
            subscription["status"] = "active"
    elif not confirmed_later and payment_behavior == "error_if_incomplete":
        del account.objects["subscription"][subscription["id"]]
        invoices.void(account, first)
        raise card_declined()
    account.emit("customer.subscription.created", subscription)


@timer("incomplete")
def expire_incomplete(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    if subscription["status"] == "incomplete":
        set_status(account, subscription, "incomplete_expired")

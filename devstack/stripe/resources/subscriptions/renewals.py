"""A period of a subscription ends: it is renewed, paused, or ends with the period."""

from collections.abc import Sequence
from enum import Enum, auto

from devstack.stripe.account import Account, Object, Occurrence, timer
from devstack.stripe.resources import customers, discounts, invoices
from devstack.stripe.resources.subscriptions.endings import ENDED, end
from devstack.stripe.resources.subscriptions.items import (
    licensed_lines,
    next_end,
    usage_of,
)


class PeriodEnd(Enum):
    """What becomes of a subscription when its period is over."""

    ENDS = auto()
    PAUSES = auto()
    RENEWS = auto()


def at_period_end(subscription: Object, now: int, *, can_pay: bool) -> PeriodEnd:
    """`can_pay`: there is a payment method to charge, which a trial needs to go on."""
    cancel_at = subscription["cancel_at"]
    if subscription["cancel_at_period_end"] or (cancel_at and cancel_at <= now):
        return PeriodEnd.ENDS
    if subscription["status"] == "trialing" and not can_pay:
        match subscription["trial_settings"]["end_behavior"]["missing_payment_method"]:
            case "cancel":
                return PeriodEnd.ENDS
            case "pause":
                return PeriodEnd.PAUSES
    return PeriodEnd.RENEWS


@timer("renew")
def end_period(account: Account, subscription_id: str) -> None:
    subscription, now = account.get("subscription", subscription_id), account.clock.now()
    if subscription["status"] in (*ENDED, "incomplete", "paused"):
        return
    if subscription["items"]["data"][0]["current_period_end"] > now:
        return  # its period was moved meanwhile; another timer is set for the new end
    customer = account.get("customer", subscription["customer"])
    can_pay = bool(customers.method_of(customer, subscription))
    match at_period_end(subscription, now, can_pay=can_pay):
        case PeriodEnd.ENDS:
            _end_with_period(account, customer, subscription)
        case PeriodEnd.PAUSES:
            _pause(account, subscription)
        case PeriodEnd.RENEWS:
            _renew(account, customer, subscription)


def _end_with_period(account: Account, customer: Object, subscription: Object) -> None:
    usage, period = _billed_usage(subscription), _current_period(subscription)
    if usage:
        last = invoices.draft(account, customer, subscription, "subscription_cycle", [], period, usage)
        invoices.finalize_later(account, last)
    end(account, subscription, "cancellation_requested")


def _pause(account: Account, subscription: Object) -> None:
    subscription["status"] = "paused"
    account.emit("customer.subscription.paused", subscription, {"status": "trialing"})
    account.emit("customer.subscription.updated", subscription, {"status": "trialing"})


def _renew(account: Account, customer: Object, subscription: Object) -> None:
    now, usage, period = account.clock.now(), _billed_usage(subscription), _current_period(subscription)
    trial_over = subscription["status"] == "trialing"
    account.follow_up(Occurrence.PERIOD_RENEWED, subscription)
    items = subscription["items"]["data"]
    for item in items:
        item["current_period_start"], item["current_period_end"] = now, next_end(subscription, now, item["price"])
    if trial_over:
        subscription["status"] = "active"
    previous: Object = {"items": {"data": [{**item, "current_period_start": period[0]} for item in items]}}
    account.emit("customer.subscription.updated", subscription, previous)
    account.at(items[0]["current_period_end"], "renew", subscription["id"])
    prorations = account.note(subscription["id"]).pop("lines", [])
    lines = [*prorations, *licensed_lines(account, subscription)]
    discounts.drop_ended(account, subscription)
    renewal = invoices.draft(account, customer, subscription, "subscription_cycle", lines, period, usage)
    discounts.drop_spent(account, subscription)
    _collect(account, subscription, renewal)


def _collect(account: Account, subscription: Object, renewal: Object) -> None:
    """The invoice is finalized later, unless its collection is paused.

    https://docs.stripe.com/billing/subscriptions/pause-payment"""
    pause = subscription["pause_collection"]
    if pause is None and subscription["status"] != "unpaid":
        invoices.finalize_later(account, renewal)
        return
    renewal["auto_advance"] = False
    if pause is not None and pause["behavior"] == "void":
        invoices.void(account, renewal)
    elif pause is not None and pause["behavior"] == "mark_uncollectible":
        renewal["status"] = "uncollectible"
        account.emit("invoice.marked_uncollectible", renewal)


def _billed_usage(subscription: Object) -> Sequence[invoices.Usage]:
    """What is used in a trial is free."""
    return [] if subscription["status"] == "trialing" else usage_of(subscription)


def _current_period(subscription: Object) -> tuple[int, int]:
    first = subscription["items"]["data"][0]
    return first["current_period_start"], first["current_period_end"]


@timer("resume_collection")
def resume_collection(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    pause = subscription["pause_collection"]
    if pause is not None and (pause["resumes_at"] or 0) <= account.clock.now():
        subscription["pause_collection"] = None
        account.emit("customer.subscription.updated", subscription, {"pause_collection": pause})

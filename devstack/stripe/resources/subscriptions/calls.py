"""The calls that create, change and end subscriptions."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import invoices, products
from devstack.stripe.resources.subscriptions import changes, life
from devstack.stripe.resources.subscriptions.items import licensed_lines, restart, used_by
from devstack.stripe.resources.subscriptions.life import ENDED


@route("POST", "/v1/subscriptions", "SubscriptionCreateParams")
def create(account: Account, params: Object) -> Object:
    return life.make(account, params, "allow_incomplete")


@route("GET", "/v1/subscriptions", "SubscriptionListParams")
def list_(account: Account, params: Object) -> Object:
    status, price = params.get("status"), params.get("price")

    def fits(found: str) -> bool:
        if status is None:
            return found != "canceled"
        return status == "all" or found == status or (status == "ended" and found in ENDED)

    customer, collection = params.get("customer"), params.get("collection_method")
    found = (
        each
        for each in account.find("subscription", customer=customer, collection_method=collection)
        if fits(each["status"]) and (price is None or price in {i["price"]["id"] for i in each["items"]["data"]})
    )
    return listing(found, params, "/v1/subscriptions")


@route("GET", "/v1/subscriptions/{subscription}", "SubscriptionRetrieveParams")
def retrieve(account: Account, params: Object, subscription: str) -> Object:
    return account.get("subscription", subscription)


@route("POST", "/v1/subscriptions/{subscription}", "SubscriptionUpdateParams")
def update(account: Account, params: Object, subscription: str) -> Object:
    found, now = account.get("subscription", subscription), account.clock.now()
    if found["status"] in ENDED:
        raise RequestRefused("A canceled subscription can only update its cancellation_details.", param="id")
    trial_end = _new_trial_end(found, params, now)
    before: Object = {name: found[name] for name in params if name in found and name != "items"}
    anew = (params.get("billing_cycle_anchor") or {}).get("type") == "now"
    if "items" in params or anew:
        before["items"] = {"data": [dict(item) for item in found["items"]["data"]]}
        if not _change(account, found, params, anew=anew):
            return found
    _set_plain(account, found, params)
    if trial_end is not None:
        life.end_trial(account, found, trial_end)
        if trial_end == now:
            account.run_due()
            return found
    account.emit("customer.subscription.updated", found, before)
    return found


def _new_trial_end(found: Object, params: Object, now: int) -> int | None:
    """https://docs.stripe.com/billing/subscriptions/trials"""
    wanted = params.get("trial_end")
    if wanted is None or (wanted == "now" and found["status"] != "trialing"):
        return None
    if found["status"] != "trialing":
        message = "The stand-in for Stripe moves the trial_end of trialing subscriptions only."
        raise RequestRefused(message, code="parameter_not_in_stand_in", param="trial_end")
    if wanted != "now" and not now < wanted <= now + life.TRIAL_SECONDS_MAX:
        raise RequestRefused("trial_end must be a future time, at most five years ahead.", param="trial_end")
    return now if wanted == "now" else int(wanted)


@route("GET", "/v1/subscription_items", "SubscriptionItemListParams")
def list_items(account: Account, params: Object) -> Object:
    found = account.get("subscription", params["subscription"])
    return listing(found["items"]["data"], params, "/v1/subscription_items")


@route("POST", "/v1/subscriptions/{subscription}/resume", "SubscriptionResumeParams")
def resume(account: Account, params: Object, subscription: str) -> Object:
    found, now = account.get("subscription", subscription), account.clock.now()
    if found["status"] != "paused":
        raise RequestRefused("Only paused subscriptions can be resumed.", param="id")
    restart(account, found, now)
    made = invoices.draft(
        account,
        account.get("customer", found["customer"]),
        found,
        "subscription_update",
        licensed_lines(account, found),
        (now, now),
    )
    invoices.finalize(account, made)
    if invoices.attempt(account, made):
        found["status"] = "active"
        account.emit("customer.subscription.resumed", found, {"status": "paused"})
        account.emit("customer.subscription.updated", found, {"status": "paused"})
    return found


@route("DELETE", "/v1/subscriptions/{subscription}", "SubscriptionCancelParams")
def cancel(account: Account, params: Object, subscription: str) -> Object:
    found, now = account.get("subscription", subscription), account.clock.now()
    if found["status"] == "canceled":
        raise RequestRefused(f"No such subscription: '{subscription}'", status=404, code="resource_missing", param="id")
    lines: list[Object] = []
    if params.get("prorate"):
        lines = [
            each
            for each in changes.prorations(account, found, found["items"]["data"], [], now, restarted=False)
            if each["amount"] < 0
        ]
    used: Iterable[Any] = used_by(found) if params.get("invoice_now") else ()
    waiting = params.get("invoice_now") and invoices.pending_of(account, found["customer"], found)
    if lines or used or waiting:
        start = found["items"]["data"][0]["current_period_start"]
        customer = account.get("customer", found["customer"])
        last = invoices.draft(account, customer, found, "subscription_update", lines, (start, now), list(used))
        invoices.finalize(account, last)
        invoices.attempt(account, last)
    found["cancellation_details"].update(params.get("cancellation_details") or {})
    life.end(account, found, "cancellation_requested")
    return found


def _change(account: Account, found: Object, params: Object, *, anew: bool) -> bool:
    """Other items; False where they wait for a payment."""
    now, wanted = account.clock.now(), params.get("items") or []
    proration = params.get("proration_behavior", "create_prorations")
    at, behaviour = params.get("proration_date", now), params.get("payment_behavior", "allow_incomplete")
    if found["collection_method"] == "send_invoice" and behaviour == "pending_if_incomplete":
        raise RequestRefused(
            "Updates of subscriptions whose invoices are sent cannot be pending.", param="payment_behavior"
        )
    if proration == "always_invoice" and behaviour == "pending_if_incomplete":
        made = changes.change_when_paid(account, found, wanted, at, anew=anew)
        if made is None:
            return True
        if not invoices.attempt(account, made, final=True):
            account.emit("customer.subscription.updated", found, {"pending_update": None})
        return False  # where it was paid, it was applied and told then
    before = deepcopy(found)
    made = changes.change_items(account, found, wanted, proration, at, anew=anew)
    if made is None:
        return True
    invoices.finalize(account, made)
    if not invoices.attempt(account, made, final=behaviour == "error_if_incomplete"):
        if behaviour == "error_if_incomplete":
            # Nothing is changed then: https://docs.stripe.com/api/subscriptions/update#update_subscription-payment_behavior
            found.update(before)
            invoices.void(account, made)
            raise RequestRefused("Your card was declined.", status=402, kind="card_error", code="card_declined")
        life.unpaid(account, made)
    return True


def _set_plain(account: Account, found: Object, params: Object) -> None:
    if "discounts" in params:
        wanted = params["discounts"] or []
        found["discounts"] = [products.redeemed(account, each, found["id"])["id"] for each in wanted]
    life.set_end(account, found, params)
    if "pause_collection" in params:
        given = params["pause_collection"]
        found["pause_collection"] = {"resumes_at": None, **given} if given else None
        if given and given.get("resumes_at"):
            account.at(given["resumes_at"], "resume_collection", found["id"])
    for name in ("default_payment_method", "description"):
        if name in params:
            found[name] = params[name] or None
    _set_collection(found, params)
    for name in ("automatic_tax", "cancellation_details"):
        found[name].update(params.get(name) or {})
    found["trial_settings"]["end_behavior"].update((params.get("trial_settings") or {}).get("end_behavior", {}))
    found["metadata"].update(params.get("metadata") or {})


def _set_collection(found: Object, params: Object) -> None:
    """How invoices that come from now on are collected; those that are there stay as they are."""
    method = params.get("collection_method", found["collection_method"])
    days = params.get("days_until_due", found["days_until_due"])
    if method == "charge_automatically" and params.get("days_until_due") is not None:
        raise RequestRefused("days_until_due is for invoices that are sent only.", param="days_until_due")
    if method == "send_invoice" and days is None:
        raise RequestRefused("days_until_due is needed where invoices are sent.", param="days_until_due")
    found["collection_method"], found["days_until_due"] = method, days if method == "send_invoice" else None

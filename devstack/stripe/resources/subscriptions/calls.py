"""The calls that create, change and end subscriptions."""

from collections.abc import Sequence
from copy import deepcopy

from devstack.stripe.account import Account, Object, Occurrence, RequestRefused, card_declined
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import discounts, invoices
from devstack.stripe.resources.subscriptions import changes, creation, trials
from devstack.stripe.resources.subscriptions.endings import ENDED, end, set_end
from devstack.stripe.resources.subscriptions.items import licensed_lines, restart, usage_of


@route("POST", "/v1/subscriptions", "SubscriptionCreateParams")
def create(account: Account, params: Object) -> Object:
    return creation.make(account, params, "allow_incomplete")


@route("GET", "/v1/subscriptions", "SubscriptionListParams")
def list_(account: Account, params: Object) -> Object:
    requested, price_id = params.get("status"), params.get("price")

    def matches(status: str) -> bool:
        if requested is None:
            return status != "canceled"
        return requested == "all" or status == requested or (requested == "ended" and status in ENDED)

    customer, collection = params.get("customer"), params.get("collection_method")
    subscriptions = (
        each
        for each in account.find("subscription", customer=customer, collection_method=collection)
        if matches(each["status"])
        and (price_id is None or price_id in {item["price"]["id"] for item in each["items"]["data"]})
    )
    return listing(subscriptions, params, "/v1/subscriptions")


@route("GET", "/v1/subscriptions/{subscription_id}", "SubscriptionRetrieveParams")
def retrieve(account: Account, params: Object, subscription_id: str) -> Object:
    return account.get("subscription", subscription_id)


@route("GET", "/v1/subscription_items", "SubscriptionItemListParams")
def list_items(account: Account, params: Object) -> Object:
    subscription = account.get("subscription", params["subscription"])
    return listing(subscription["items"]["data"], params, "/v1/subscription_items")


@route("POST", "/v1/subscriptions/{subscription_id}", "SubscriptionUpdateParams")
def update(account: Account, params: Object, subscription_id: str) -> Object:
    subscription, now = account.get("subscription", subscription_id), account.clock.now()
    if subscription["status"] in ENDED:
        raise RequestRefused("A canceled subscription can only update its cancellation_details.", param="id")
    trial_end = trials.requested_move(subscription, params, now)
    previous: Object = {name: subscription[name] for name in params if name in subscription and name != "items"}
    restarts = (params.get("billing_cycle_anchor") or {}).get("type") == "now"
    if "items" in params or restarts:
        previous["items"] = {"data": [dict(item) for item in subscription["items"]["data"]]}
        if not _change(account, subscription, params, restarts=restarts):
            return subscription
    _set_fields(account, subscription, params)
    if trial_end is not None:
        trials.move_trial_end(account, subscription, trial_end)
        if trial_end == now:
            account.run_due()
            return subscription
    account.emit("customer.subscription.updated", subscription, previous)
    return subscription


@route("POST", "/v1/subscriptions/{subscription_id}/resume", "SubscriptionResumeParams")
def resume(account: Account, params: Object, subscription_id: str) -> Object:
    subscription, now = account.get("subscription", subscription_id), account.clock.now()
    if subscription["status"] != "paused":
        raise RequestRefused("Only paused subscriptions can be resumed.", param="id")
    restart(account, subscription, now)
    customer, lines = account.get("customer", subscription["customer"]), licensed_lines(account, subscription)
    invoice = invoices.draft(account, customer, subscription, "subscription_update", lines, (now, now))
    invoices.finalize(account, invoice)
    if invoices.attempt(account, invoice):
        subscription["status"] = "active"
        account.emit("customer.subscription.resumed", subscription, {"status": "paused"})
        account.emit("customer.subscription.updated", subscription, {"status": "paused"})
    return subscription


@route("DELETE", "/v1/subscriptions/{subscription_id}", "SubscriptionCancelParams")
def cancel(account: Account, params: Object, subscription_id: str) -> Object:
    subscription = account.get("subscription", subscription_id)
    if subscription["status"] == "canceled":
        message = f"No such subscription: '{subscription_id}'"
        raise RequestRefused(message, status=404, code="resource_missing", param="id")
    credit = _unused_time(account, subscription) if params.get("prorate") else []
    _bill_before_end(account, subscription, credit, invoice_now=bool(params.get("invoice_now")))
    subscription["cancellation_details"].update(params.get("cancellation_details") or {})
    end(account, subscription, "cancellation_requested")
    return subscription


def _unused_time(account: Account, subscription: Object) -> list[Object]:
    """What is given back of the current period."""
    items, now = subscription["items"]["data"], account.clock.now()
    lines = changes.prorations(account, subscription, items, [], now, restarted=False)
    return [line for line in lines if line["amount"] < 0]


def _bill_before_end(account: Account, subscription: Object, credit: Sequence[Object], *, invoice_now: bool) -> None:
    """A last invoice where there is something to be on it. `invoice_now`: usage and invoice items are."""
    usage = usage_of(subscription) if invoice_now else []
    pending = invoices.pending_items(account, subscription["customer"], subscription) if invoice_now else []
    if not (credit or usage or pending):
        return
    customer = account.get("customer", subscription["customer"])
    period = (subscription["items"]["data"][0]["current_period_start"], account.clock.now())
    last = invoices.draft(account, customer, subscription, "subscription_update", credit, period, usage)
    invoices.finalize(account, last)
    invoices.attempt(account, last)


def _change(account: Account, subscription: Object, params: Object, *, restarts: bool) -> bool:
    """Other items; False where they wait for a payment. Raises RequestRefused."""
    now, item_changes = account.clock.now(), params.get("items") or []
    proration = params.get("proration_behavior", "create_prorations")
    at, behaviour = params.get("proration_date", now), params.get("payment_behavior", "allow_incomplete")
    if subscription["collection_method"] == "send_invoice" and behaviour == "pending_if_incomplete":
        raise RequestRefused(
            "Updates of subscriptions whose invoices are sent cannot be pending.", param="payment_behavior"
        )
    if proration == "always_invoice" and behaviour == "pending_if_incomplete":
        invoice = changes.change_when_paid(account, subscription, item_changes, at, restarts=restarts)
        if invoice is None:
            return True
        if not invoices.attempt(account, invoice, final=True):
            account.emit("customer.subscription.updated", subscription, {"pending_update": None})
        return False  # where it was paid, the change was applied and announced by that
    before = deepcopy(subscription)
    invoice = changes.change_items(account, subscription, item_changes, proration, at, restarts=restarts)
    if invoice is not None:
        _collect_change(account, subscription, before, invoice, all_or_nothing=behaviour == "error_if_incomplete")
    return True


def _collect_change(
    account: Account, subscription: Object, before: Object, invoice: Object, *, all_or_nothing: bool
) -> None:
    """Raises RequestRefused where the payment fails and nothing is to change without it.

    https://docs.stripe.com/api/subscriptions/update#update_subscription-payment_behavior"""
    invoices.finalize(account, invoice)
    if invoices.attempt(account, invoice, final=all_or_nothing):
        return
    if all_or_nothing:
        subscription.update(before)
        invoices.void(account, invoice)
        raise card_declined()
    account.follow_up(Occurrence.PAYMENT_FAILED, invoice)


def _set_fields(account: Account, subscription: Object, params: Object) -> None:
    if "discounts" in params:
        subscription["discounts"] = discounts.redeem_all(account, params["discounts"] or [], subscription["id"])
    set_end(account, subscription, params)
    if "pause_collection" in params:
        pause = params["pause_collection"]
        subscription["pause_collection"] = {"resumes_at": None, **pause} if pause else None
        if pause and pause.get("resumes_at"):
            account.at(pause["resumes_at"], "resume_collection", subscription["id"])
    for name in ("default_payment_method", "description"):
        if name in params:
            subscription[name] = params[name] or None
    _set_collection(subscription, params)
    for name in ("automatic_tax", "cancellation_details"):
        subscription[name].update(params.get(name) or {})
    subscription["trial_settings"]["end_behavior"].update((params.get("trial_settings") or {}).get("end_behavior", {}))
    subscription["metadata"].update(params.get("metadata") or {})


def _set_collection(subscription: Object, params: Object) -> None:
    """How invoices from now on are collected; those that exist stay as they are. Raises RequestRefused."""
    method = params.get("collection_method", subscription["collection_method"])
    days = params.get("days_until_due", subscription["days_until_due"])
    if method == "charge_automatically" and params.get("days_until_due") is not None:
        raise RequestRefused("days_until_due is for invoices that are sent only.", param="days_until_due")
    if method == "send_invoice" and days is None:
        raise RequestRefused("days_until_due is needed where invoices are sent.", param="days_until_due")
    subscription["collection_method"] = method
    subscription["days_until_due"] = days if method == "send_invoice" else None

"""A subscription's life: begun, renewed, past due, paused, ended."""

from devstack.stripe.account import (
    Account,
    Object,
    Occurrence,
    RequestRefused,
    consequence,
    timer,
    unused,
)
from devstack.stripe.resources import amounts, customers, invoices, products
from devstack.stripe.resources.subscriptions.changes import apply_pending
from devstack.stripe.resources.subscriptions.items import (
    DAY,
    added,
    check_prices,
    item_of,
    licensed_lines,
    metered,
    next_end,
    used_by,
)

ENDED = ("canceled", "incomplete_expired")
INCOMPLETE_SECONDS = 23 * 3600
TRIAL_SECONDS_MAX = 5 * 366 * DAY


def make(account: Account, params: Object, card_behaviour: str = "default_incomplete") -> Object:
    """Begins a subscription and its first invoice. Raises RequestRefused."""
    customer = customers.alive(account, params["customer"])
    prices = [account.get("price", each["price"]) for each in params["items"]]
    currency = params.get("currency") or customer["currency"] or prices[0]["currency"]
    check_prices(currency, prices)
    now = account.clock.now()
    collection = params.get("collection_method", "charge_automatically")
    if (collection == "send_invoice") != ("days_until_due" in params):
        raise RequestRefused(
            "days_until_due is needed where invoices are sent, and only there.", param="days_until_due"
        )
    trial_end = _trial_end(params, now)
    subscription_id = account.new_id("sub")
    anchor = _anchor(params, prices[0], now)
    start, end = now, trial_end or anchor or added(now, prices[0], 1)
    items = [
        item_of(account, subscription_id, price, each, start, end)
        for price, each in zip(prices, params["items"], strict=True)
    ]
    discounts = [products.redeemed(account, each, subscription_id)["id"] for each in params.get("discounts") or []]
    subscription = account.add(
        {
            "id": subscription_id,
            "object": "subscription",
            "application": None,
            "application_fee_percent": None,
            "automatic_tax": {
                "disabled_reason": None,
                "enabled": (params.get("automatic_tax") or {}).get("enabled", False),
                "liability": None,
            },
            "billing_cycle_anchor": trial_end or anchor or now,
            "billing_cycle_anchor_config": None,
            "billing_mode": billing_mode(params),
            "billing_schedules": [],
            "billing_thresholds": None,
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "cancellation_details": unused("comment feedback feedback_option reason"),
            "collection_method": collection,
            "created": now,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "days_until_due": params.get("days_until_due"),
            "default_payment_method": params.get("default_payment_method"),
            "default_source": None,
            "default_tax_rates": [],
            "description": params.get("description"),
            "discounts": discounts,
            "ended_at": None,
            "invoice_settings": {
                "issuer": {"type": "self"},
                **unused("account_tax_ids custom_fields description footer"),
            },
            "items": {
                "object": "list",
                "data": items,
                "has_more": False,
                "total_count": len(items),
                "url": f"/v1/subscription_items?subscription={subscription_id}",
            },
            "latest_invoice": None,
            "livemode": False,
            "managed_payments": None,
            "metadata": params.get("metadata") or {},
            "next_pending_invoice_item_invoice": None,
            "on_behalf_of": None,
            "pause_collection": None,
            "payment_settings": {
                "payment_method_options": None,
                "payment_method_types": None,
                "save_default_payment_method": "off",
            },
            "pending_invoice_item_interval": None,
            "pending_setup_intent": None,
            "pending_update": None,
            "schedule": None,
            "start_date": now,
            "status": "trialing" if trial_end else "incomplete",
            "test_clock": None,
            "transfer_data": None,
            "trial_end": trial_end,
            "trial_settings": {
                "end_behavior": {
                    "billing_cycle_anchor": None,
                    "missing_payment_method": "create_invoice",
                    **(params.get("trial_settings") or {}).get("end_behavior", {}),
                }
            },
            "trial_start": now if trial_end else None,
        }
    )
    customer["currency"] = customer["currency"] or subscription["currency"]
    set_end(account, subscription, params)
    lines = licensed_lines(account, subscription, trial_end)
    if anchor is not None:
        lines = _until_anchor(account, subscription, anchor, params.get("proration_behavior", "create_prorations"))
    first = invoices.draft(account, customer, subscription, "subscription_create", lines, (now, now))
    invoices.finalize(account, first)
    if not trial_end:
        _drop_spent_discounts(account, subscription)
    behaviour = params.get("payment_behavior", card_behaviour)
    if behaviour == "default_incomplete" and not trial_end and first["amount_remaining"]:
        account.emit("customer.subscription.created", subscription)  # somebody confirms the payment later
    elif invoices.attempt(account, first, final=True):
        if not trial_end:
            subscription["status"] = "active"
        account.emit("customer.subscription.created", subscription)
    elif behaviour == "error_if_incomplete":
        del account.objects["subscription"][subscription_id]
        invoices.void(account, first)
        raise RequestRefused("Your card was declined.", status=402, kind="card_error", code="card_declined")
    else:
        account.emit("customer.subscription.created", subscription)
    if trial_end:
        account.at(max(now, trial_end - 3 * DAY), "trial_will_end", subscription_id)
    if subscription["status"] == "incomplete":
        account.at(now + INCOMPLETE_SECONDS, "incomplete", subscription_id)
    account.at(end, "renew", subscription_id)
    return subscription


def set_end(account: Account, subscription: Object, params: Object) -> None:
    """Has it end later, or not any more.

    https://docs.stripe.com/billing/subscriptions/cancel"""
    now, ends = account.clock.now(), subscription["items"]["data"][0]["current_period_end"]
    if params.get("cancel_at") and params.get("cancel_at_period_end"):
        raise RequestRefused(
            "You may only specify one of these parameters: cancel_at, cancel_at_period_end.", param="cancel_at"
        )
    if "cancel_at_period_end" in params:
        wanted = params["cancel_at_period_end"]
        subscription["cancel_at_period_end"] = wanted
        subscription["cancel_at"], subscription["canceled_at"] = (ends, now) if wanted else (None, None)
    if "cancel_at" in params:
        at = params["cancel_at"] or None
        if at in ("min_period_end", "max_period_end"):  # the same here, as all items have one interval
            at = ends
        if isinstance(at, str):
            message = f"The stand-in for Stripe does not know cancel_at={at}."
            raise RequestRefused(message, code="parameter_not_in_stand_in", param="cancel_at")
        if at is not None and at <= now:
            raise RequestRefused("cancel_at must be a future time.", param="cancel_at")
        if at is not None and at < ends and params.get("proration_behavior", "create_prorations") != "none":
            message = (
                "The stand-in for Stripe knows a cancel_at inside of the period with proration_behavior=none only."
            )
            raise RequestRefused(message, code="parameter_not_in_stand_in", param="cancel_at")
        subscription["cancel_at"], subscription["canceled_at"] = at, (now if at else None)
        subscription["cancel_at_period_end"] = False
        if at:
            account.at(at, "cancel_at", subscription["id"])


def end(account: Account, subscription: Object, reason: str) -> None:
    now = account.clock.now()
    subscription["status"], subscription["ended_at"] = "canceled", now
    subscription["canceled_at"] = subscription["canceled_at"] or now
    subscription["cancellation_details"]["reason"] = reason
    schedule = account.objects.get("subscription_schedule", {}).get(subscription["schedule"] or "")
    if schedule is not None and schedule["status"] == "active":
        schedule["status"], schedule["canceled_at"] = "canceled", now
        account.emit("subscription_schedule.canceled", schedule)
    account.emit("customer.subscription.deleted", subscription)


@consequence(Occurrence.CUSTOMER_DELETED)
def end_all(account: Account, customer: Object) -> None:
    for each in list(account.find("subscription", customer=customer["id"])):
        if each["status"] not in ENDED:
            end(account, each, "cancellation_requested")


@consequence(Occurrence.INVOICE_PAID)
def paid(account: Account, invoice: Object) -> None:
    """What follows for its subscription when an invoice is paid."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription is None:
        return
    pending = account.note(subscription["id"]).get("pending")
    if pending is not None and pending["invoice"] == invoice["id"]:
        apply_pending(account, subscription, pending)
        return
    status = subscription["status"]
    if (status == "incomplete" and invoice["billing_reason"] == "subscription_create") or (
        status in ("past_due", "unpaid")
        and (subscription["latest_invoice"] == invoice["id"] or not invoices.open_of(account, subscription))
    ):
        set_status(account, subscription, "active")


@consequence(Occurrence.PAYMENT_FAILED)
def unpaid(account: Account, invoice: Object) -> None:
    """What follows when a payment failed."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription is None or subscription["status"] not in ("active", "trialing", "past_due"):
        return
    if invoice["next_payment_attempt"] is not None:
        if subscription["status"] != "past_due":
            set_status(account, subscription, "past_due")
    elif account.settings["after_retries"] == "cancel":
        end(account, subscription, "payment_failed")
    else:
        set_status(account, subscription, "unpaid")


@consequence(Occurrence.INVOICE_OVERDUE)
def overdue(account: Account, invoice: Object) -> None:
    """What follows when an invoice that was sent is not paid in time."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription is not None and subscription["status"] == "active":
        set_status(account, subscription, "past_due")


def end_trial(account: Account, subscription: Object, at: int) -> None:
    """Has a trial end then."""
    subscription["trial_end"] = subscription["billing_cycle_anchor"] = at
    for item in subscription["items"]["data"]:
        item["current_period_end"] = at
    account.at(max(account.clock.now(), at - 3 * DAY), "trial_will_end", subscription["id"])
    account.at(at, "renew", subscription["id"])


def set_status(account: Account, subscription: Object, status: str) -> None:
    before = subscription["status"]
    subscription["status"] = status
    account.emit("customer.subscription.updated", subscription, {"status": before})


def billing_mode(params: Object) -> Object:
    given = params.get("billing_mode") or {"type": "flexible"}
    if given["type"] == "classic":
        return {"type": "classic", "flexible": None}
    return {"type": "flexible", "flexible": {"proration_discounts": "included"}}


def _trial_end(params: Object, now: int) -> int | None:
    if params.get("trial_end") not in (None, "now"):
        if params.get("trial_period_days"):
            raise RequestRefused("You may only specify one of these: trial_end, trial_period_days.", param="trial_end")
        if not now < params["trial_end"] <= now + TRIAL_SECONDS_MAX:
            raise RequestRefused("trial_end must be a future time, at most five years ahead.", param="trial_end")
        return int(params["trial_end"])
    days = params.get("trial_period_days")
    return now + days * DAY if days else None


def _anchor(params: Object, price: Object, now: int) -> int | None:
    """When the first full period begins, where that is asked for.

    https://docs.stripe.com/billing/subscriptions/billing-cycle"""
    anchor: int | None = params.get("billing_cycle_anchor")
    if anchor is None:
        return None
    if params.get("trial_end") or params.get("trial_period_days"):
        message = "The stand-in for Stripe does not know billing_cycle_anchor together with a trial."
        raise RequestRefused(message, code="parameter_not_in_stand_in", param="billing_cycle_anchor")
    if not now < anchor <= added(now, price, 1):
        message = "billing_cycle_anchor must be a future time, and not later than the next natural billing date."
        raise RequestRefused(message, param="billing_cycle_anchor")
    return anchor


def _until_anchor(account: Account, subscription: Object, anchor: int, proration: str) -> list[Object]:
    """The part of a period that is before the anchor; with no proration it costs nothing."""
    lines = []
    for item in subscription["items"]["data"]:
        if metered(item) or proration == "none":
            continue
        price, now = item["price"], account.clock.now()
        amount = amounts.prorated(amounts.amount_of(price, item["quantity"]), added(anchor, price, -1), anchor, now)
        text = f"Time until the first full period on {item['quantity']} x {price['product']}"
        lines.append(
            invoices.line(
                account,
                subscription,
                price,
                amount,
                item["quantity"],
                (now, anchor),
                text,
                item=item["id"],
                proration=True,
            )
        )
    return lines


@timer("renew")
def _renew(account: Account, subscription_id: str) -> None:
    subscription, now = account.get("subscription", subscription_id), account.clock.now()
    items = subscription["items"]["data"]
    if subscription["status"] in (*ENDED, "incomplete", "paused"):
        return
    if items[0]["current_period_end"] > now:
        return  # its period was moved meanwhile; another timer is set for the new end
    customer, used, old = account.get("customer", subscription["customer"]), used_by(subscription), items[0]
    period = (old["current_period_start"], old["current_period_end"])
    trial_over = subscription["status"] == "trialing"
    if subscription["cancel_at_period_end"] or (subscription["cancel_at"] or now + 1) <= now:
        if used and not trial_over:
            last = invoices.draft(account, customer, subscription, "subscription_cycle", [], period, used)
            account.at(now + invoices.DRAFT_SECONDS, "finalize", last["id"])
        end(account, subscription, "cancellation_requested")
        return
    if trial_over:
        missing = customers.card_of(account, customer, subscription) == "none"
        behaviour = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
        if missing and behaviour == "cancel":
            end(account, subscription, "cancellation_requested")
            return
        if missing and behaviour == "pause":
            subscription["status"] = "paused"
            account.emit("customer.subscription.paused", subscription, {"status": "trialing"})
            account.emit("customer.subscription.updated", subscription, {"status": "trialing"})
            return
    account.follow_up(Occurrence.PERIOD_RENEWED, subscription)
    for item in subscription["items"]["data"]:
        item["current_period_start"], item["current_period_end"] = now, next_end(subscription, now, item["price"])
    ends = subscription["items"]["data"][0]["current_period_end"]
    if trial_over:
        subscription["status"] = "active"
    previous: Object = {"items": {"data": [{**item, "current_period_start": period[0]} for item in items]}}
    account.emit("customer.subscription.updated", subscription, previous)
    account.at(ends, "renew", subscription_id)
    lines = [*account.note(subscription_id).pop("lines", []), *licensed_lines(account, subscription)]
    made = invoices.draft(
        account, customer, subscription, "subscription_cycle", lines, period, () if trial_over else used
    )
    _drop_spent_discounts(account, subscription)
    collection = subscription["pause_collection"]
    if collection is not None or subscription["status"] == "unpaid":
        made["auto_advance"] = False
        if collection is not None and collection["behavior"] == "void":
            invoices.void(account, made)
        elif collection is not None and collection["behavior"] == "mark_uncollectible":
            made["status"] = "uncollectible"
            account.emit("invoice.marked_uncollectible", made)
        return
    account.at(now + invoices.DRAFT_SECONDS, "finalize", made["id"])


def _drop_spent_discounts(account: Account, subscription: Object) -> None:
    def lasts(discount_id: str) -> bool:
        discount = account.get("discount", discount_id)
        coupon = account.get("coupon", discount["source"]["coupon"])
        return coupon["duration"] == "forever" or bool(discount["end"] and discount["end"] > account.clock.now())

    subscription["discounts"] = [each for each in subscription["discounts"] if lasts(each)]


@timer("trial_will_end")
def _trial_will_end(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    due = (subscription["trial_end"] or 0) - 3 * DAY <= account.clock.now()  # it may have been moved
    if subscription["status"] == "trialing" and due:
        account.emit("customer.subscription.trial_will_end", subscription)


@timer("incomplete")
def _incomplete(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    if subscription["status"] == "incomplete":
        set_status(account, subscription, "incomplete_expired")


@timer("cancel_at")
def _cancel_at(account: Account, subscription_id: str) -> None:
    subscription, now = account.get("subscription", subscription_id), account.clock.now()
    due = subscription["cancel_at"]
    if due is None or due > now or subscription["status"] in ENDED:
        return
    if subscription["items"]["data"][0]["current_period_end"] <= now:
        return  # the renewal of the same moment ends it, and bills its usage
    end(account, subscription, "cancellation_requested")


@timer("resume_collection")
def _resume_collection(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    collection = subscription["pause_collection"]
    if collection is not None and (collection["resumes_at"] or 0) <= account.clock.now():
        subscription["pause_collection"] = None
        account.emit("customer.subscription.updated", subscription, {"pause_collection": collection})

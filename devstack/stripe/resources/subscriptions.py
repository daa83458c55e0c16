"""Subscriptions: begun, renewed, changed, paused, past due, ended."""

from collections.abc import Iterable, Sequence
from typing import Any

from devstack.stripe.account import Account, Object, Refused, timer, unused
from devstack.stripe.resources import catalogue, customers, invoices, meters, money
from devstack.stripe.routes import listing, route
from quota.periods import add_months

DAY = 86_400
INCOMPLETE_SECONDS = PENDING_SECONDS = 23 * 3600


def make(account: Account, params: Object, card_behaviour: str = "default_incomplete") -> Object:
    """Begins a subscription and its first invoice. Raises Refused."""
    customer = customers.alive(account, params["customer"])
    prices = [account.get("price", each["price"]) for each in params["items"]]
    if len({(p["recurring"]["interval"], p["recurring"]["interval_count"]) for p in prices}) > 1:
        raise Refused("All prices of a subscription must have the same interval.", param="items")
    now = account.clock.now()
    collection = params.get("collection_method", "charge_automatically")
    if (collection == "send_invoice") != ("days_until_due" in params):
        raise Refused("days_until_due is needed where invoices are sent, and only there.", param="days_until_due")
    trial_end = _trial_end(params, now)
    anchor = trial_end or now
    subscription_id = account.new_id("sub")
    start, end = (now, trial_end) if trial_end else (now, _add(anchor, prices[0], 1))
    items = [
        _item(account, subscription_id, price, each.get("quantity", 1), start, end)
        for price, each in zip(prices, params["items"], strict=True)
    ]
    discounts = [catalogue.redeemed(account, each, subscription_id)["id"] for each in params.get("discounts") or []]
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
            "billing_cycle_anchor": anchor,
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
            "currency": prices[0]["currency"],
            "customer": customer["id"],
            "customer_account": None,
            "days_until_due": params.get("days_until_due"),
            "default_payment_method": params.get("default_payment_method"),
            "default_source": None,
            "default_tax_rates": [],
            "description": None,
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
    first = invoices.draft(
        account, customer, subscription, "subscription_create", _licensed(account, subscription, trial_end), (now, now)
    )
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
        raise Refused("Your card was declined.", status=402, kind="card_error", code="card_declined")
    else:
        account.emit("customer.subscription.created", subscription)
    if trial_end:
        account.at(max(now, trial_end - 3 * DAY), "trial_will_end", subscription_id)
    if subscription["status"] == "incomplete":
        account.at(now + INCOMPLETE_SECONDS, "incomplete", subscription_id)
    account.at(end, "renew", subscription_id)
    return subscription


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


def paid(account: Account, invoice: Object) -> None:
    """What follows for its subscription when an invoice is paid."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription is None:
        return
    pending = account.note(subscription["id"]).get("pending")
    if pending is not None and pending["invoice"] == invoice["id"]:
        _apply_pending(account, subscription, pending)
        return
    status = subscription["status"]
    if (status == "incomplete" and invoice["billing_reason"] == "subscription_create") or (
        status in ("past_due", "unpaid")
        and (subscription["latest_invoice"] == invoice["id"] or not invoices.open_of(account, subscription))
    ):
        _set_status(account, subscription, "active")


def unpaid(account: Account, invoice: Object) -> None:
    """What follows when a payment failed."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription is None or subscription["status"] not in ("active", "trialing", "past_due"):
        return
    if invoice["next_payment_attempt"] is not None:
        if subscription["status"] != "past_due":
            _set_status(account, subscription, "past_due")
    elif account.settings["after_retries"] == "cancel":
        end(account, subscription, "payment_failed")
    else:
        _set_status(account, subscription, "unpaid")


def overdue(account: Account, invoice: Object) -> None:
    """What follows when an invoice that was sent is not paid in time."""
    subscription = invoices.subscription_of(account, invoice)
    if subscription is not None and subscription["status"] == "active":
        _set_status(account, subscription, "past_due")


def change_items(
    account: Account, subscription: Object, wanted: Sequence[Object], proration: str, at: int
) -> Object | None:
    """Other items from now on; an invoice where `always_invoice` makes one, not paid yet."""
    before = list(subscription["items"]["data"])
    after = _with(account, subscription, wanted)
    lines, restart = _prorations(account, subscription, before, after, at), _interval(before) != _interval(after)
    if proration == "none":
        lines = [each for each in lines if restart and not each["parent"]["subscription_item_details"]["proration"]]
    _have_items(account, subscription, after, at if restart else None)
    if subscription["status"] == "trialing" or not lines:
        return None
    if proration == "create_prorations" and not restart:
        account.note(subscription["id"]).setdefault("lines", []).extend(lines)
        return None
    customer = account.get("customer", subscription["customer"])
    return invoices.draft(account, customer, subscription, "subscription_update", lines, (at, at))


def end_trial(account: Account, subscription: Object, at: int) -> None:
    """Has a trial end then."""
    subscription["trial_end"] = subscription["billing_cycle_anchor"] = at
    for item in subscription["items"]["data"]:
        item["current_period_end"] = at
    account.at(at, "renew", subscription["id"])


def billing_mode(params: Object) -> Object:
    given = params.get("billing_mode") or {"type": "flexible"}
    if given["type"] == "classic":
        return {"type": "classic", "flexible": None}
    return {"type": "flexible", "flexible": {"proration_discounts": "included"}}


def _trial_end(params: Object, now: int) -> int | None:
    if params.get("trial_end") not in (None, "now"):
        return int(params["trial_end"])
    days = params.get("trial_period_days")
    return now + days * DAY if days else None


def _item(account: Account, subscription_id: str, price: Object, quantity: int, start: int, end_: int) -> Object:
    item: Object = {
        "id": account.new_id("si"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": account.clock.now(),
        "current_trial": None,
        "current_period_end": end_,
        "current_period_start": start,
        "discounts": [],
        "metadata": {},
        "plan": catalogue.plan_of(price),
        "price": price,
        "subscription": subscription_id,
        "tax_rates": [],
    }
    return item if _metered(item) else {**item, "quantity": quantity}


def _metered(item: Object) -> bool:
    return bool(item["price"]["recurring"]["usage_type"] == "metered")


def _interval(items: Sequence[Object]) -> tuple[str, int]:
    recurring = items[0]["price"]["recurring"]
    return recurring["interval"], recurring["interval_count"]


def _add(anchor: int, price: Object, periods: int) -> int:
    interval, count = price["recurring"]["interval"], int(price["recurring"]["interval_count"]) * periods
    match interval:
        case "month":
            return add_months(anchor, count)
        case "year":
            return add_months(anchor, 12 * count)
        case "week":
            return anchor + 7 * DAY * count
        case _:
            return anchor + DAY * count


def next_end(subscription: Object, start: int, price: Object) -> int:
    """The end of the period that starts then, counted from the anchor so that day 31 comes back."""
    anchor, number = subscription["billing_cycle_anchor"], 0
    while _add(anchor, price, number) <= start:
        number += 1
    return _add(anchor, price, number)


def _licensed(account: Account, subscription: Object, trial_end: int | None = None) -> list[Object]:
    lines = []
    for item in subscription["items"]["data"]:
        if not _metered(item):
            period = (item["current_period_start"], item["current_period_end"])
            amount = 0 if trial_end else money.amount_of(item["price"], item["quantity"])
            text = "Trial period" if trial_end else f"{item['quantity']} x {item['price']['product']}"
            lines.append(
                invoices.line(
                    account, subscription, item["price"], amount, item["quantity"], period, text, item=item["id"]
                )
            )
    return lines


def _used(subscription: Object) -> list[tuple[str, str, int, int]]:
    return [
        (item["id"], item["price"]["id"], _counts_from(item), item["current_period_end"])
        for item in subscription["items"]["data"]
        if _metered(item)
    ]


def _counts_from(item: Object) -> int:
    """An item that came in mid period counts from then on."""
    start, created = int(item["current_period_start"]), int(item["created"])
    return created + 1 if created > start else start


def _with(account: Account, subscription: Object, wanted: Sequence[Object]) -> list[Object]:
    """The items after a change, as `subscriptions.update` takes it."""
    items = {item["id"]: dict(item) for item in subscription["items"]["data"]}
    first = subscription["items"]["data"][0]
    for each in wanted:
        if "id" in each:
            if each["id"] not in items:
                raise Refused(f"No such subscription item: '{each['id']}'", code="resource_missing", param="items")
            if each.get("deleted"):
                del items[each["id"]]
                continue
            item = items[each["id"]]
            if each.get("price"):
                item["price"] = account.get("price", each["price"])
                item["plan"] = catalogue.plan_of(item["price"])
            if "quantity" in each:
                item["quantity"] = each["quantity"]
        else:
            price = account.get("price", each["price"])
            start, end_ = first["current_period_start"], first["current_period_end"]
            made = _item(account, subscription["id"], price, each.get("quantity", 1), start, end_)
            items[made["id"]] = made
    after = list(items.values())
    if not after:
        raise Refused("A subscription must have at least one item.", param="items")
    if len({_interval([item]) for item in after}) > 1:
        raise Refused("All prices of a subscription must have the same interval.", param="items")
    return after


def _have_items(account: Account, subscription: Object, items: Sequence[Object], restart_at: int | None) -> None:
    subscription["items"]["data"][:] = items
    subscription["items"]["total_count"] = len(items)
    if restart_at is not None and subscription["status"] != "trialing":
        _restart(account, subscription, restart_at)


def _restart(account: Account, subscription: Object, at: int) -> None:
    subscription["billing_cycle_anchor"] = at
    for item in subscription["items"]["data"]:
        item["current_period_start"], item["current_period_end"] = at, _add(at, item["price"], 1)
    account.at(subscription["items"]["data"][0]["current_period_end"], "renew", subscription["id"])


def _prorations(
    account: Account, subscription: Object, before: Sequence[Object], after: Sequence[Object], at: int
) -> list[Object]:
    """What is left of the old items is given back, what is left of the period is paid for the new ones."""
    old, new = {item["id"]: item for item in before}, {item["id"]: item for item in after}
    restart, lines = bool(after) and _interval(before) != _interval(after), []
    for item_id in dict.fromkeys([*old, *new]):
        was, is_ = old.get(item_id), new.get(item_id)
        same = was and is_ and (was["price"]["id"], was.get("quantity")) == (is_["price"]["id"], is_.get("quantity"))
        if same and not restart:
            continue
        for item, sign in ((was, -1), (is_, 1)):
            if item is not None and sign < 0 and _metered(item):
                lines += _until_removal(account, subscription, item, at)
            if item is None or _metered(item):
                continue
            price, quantity = item["price"], item["quantity"]
            start, end_ = item["current_period_start"], item["current_period_end"]
            amount = money.amount_of(price, quantity)
            if sign < 0 or not restart:
                amount, period = money.prorated(amount, start, end_, at), (at, end_)
            else:
                period = (at, _add(at, price, 1))
            text = f"{'Unused' if sign < 0 else 'Remaining'} time on {quantity} x {price['product']}"
            proration = sign < 0 or not restart
            lines.append(
                invoices.line(
                    account,
                    subscription,
                    price,
                    sign * amount,
                    quantity,
                    period,
                    text,
                    item=item["id"],
                    proration=proration,
                )
            )
    return lines


def _until_removal(account: Account, subscription: Object, item: Object, at: int) -> list[Object]:
    """What was used of a metered item that goes: flexible subscriptions bill it, classic ones do not.

    https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup"""
    if subscription["billing_mode"]["type"] != "flexible" or subscription["status"] == "trialing":
        return []
    price, start = item["price"], _counts_from(item)
    used = max(0, meters.usage(account, price["recurring"]["meter"], subscription["customer"], start, at + 1))
    amount = money.amount_of(price, used)
    if not used:
        return []
    return [
        invoices.line(account, subscription, price, amount, used, (start, at), "Usage", item=item["id"], proration=True)
    ]


def _apply_pending(account: Account, subscription: Object, pending: Object) -> None:
    del account.note(subscription["id"])["pending"]
    restart = _interval(subscription["items"]["data"]) != _interval(pending["items"])
    subscription["pending_update"] = None
    _have_items(account, subscription, pending["items"], account.clock.now() if restart else None)
    account.emit("customer.subscription.pending_update_applied", subscription)
    account.emit("customer.subscription.updated", subscription, {"pending_update": {}})


def _set_status(account: Account, subscription: Object, status: str) -> None:
    before = subscription["status"]
    subscription["status"] = status
    account.emit("customer.subscription.updated", subscription, {"status": before})


@timer("renew")
def _renew(account: Account, subscription_id: str) -> None:
    from devstack.stripe.resources import schedules

    subscription, now = account.get("subscription", subscription_id), account.clock.now()
    items = subscription["items"]["data"]
    if subscription["status"] in ("canceled", "incomplete_expired", "incomplete", "paused"):
        return
    if items[0]["current_period_end"] > now:
        return  # its period was moved meanwhile; another timer is set for the new end
    customer, used, old = account.get("customer", subscription["customer"]), _used(subscription), items[0]
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
    schedules.enter_phase(account, subscription)
    for item in subscription["items"]["data"]:
        item["current_period_start"], item["current_period_end"] = now, next_end(subscription, now, item["price"])
    ends = subscription["items"]["data"][0]["current_period_end"]
    if trial_over:
        subscription["status"] = "active"
    previous: Object = {"items": {"data": [{**item, "current_period_start": period[0]} for item in items]}}
    account.emit("customer.subscription.updated", subscription, previous)
    account.at(ends, "renew", subscription_id)
    lines = [*account.note(subscription_id).pop("lines", []), *_licensed(account, subscription)]
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
    if subscription["status"] == "trialing":
        account.emit("customer.subscription.trial_will_end", subscription)


@timer("incomplete")
def _incomplete(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    if subscription["status"] == "incomplete":
        _set_status(account, subscription, "incomplete_expired")


@timer("pending")
def _pending(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    pending = account.note(subscription_id).get("pending")
    if pending is None or pending["expires_at"] > account.clock.now():
        return
    del account.note(subscription_id)["pending"]
    subscription["pending_update"] = None
    invoices.void(account, account.get("invoice", pending["invoice"]))
    account.emit("customer.subscription.pending_update_expired", subscription)


@timer("cancel_at")
def _cancel_at(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    due = subscription["cancel_at"]
    if due is not None and due <= account.clock.now() and subscription["status"] != "canceled":
        if subscription["cancel_at_period_end"]:
            return  # the renewal's timer of the same moment ends it, and bills its usage
        end(account, subscription, "cancellation_requested")


@route("POST", "/v1/subscriptions", "SubscriptionCreateParams")
def create(account: Account, params: Object) -> Object:
    return make(account, params, "allow_incomplete")


@route("GET", "/v1/subscriptions", "SubscriptionListParams")
def list_(account: Account, params: Object) -> Object:
    status = params.get("status")
    found = (
        each
        for each in account.find("subscription", customer=params.get("customer"))
        if status == "all" or (each["status"] == status if status else each["status"] != "canceled")
    )
    return listing(found, params, "/v1/subscriptions")


@route("GET", "/v1/subscriptions/{subscription}", "SubscriptionRetrieveParams")
def retrieve(account: Account, params: Object, subscription: str) -> Object:
    return account.get("subscription", subscription)


@route("POST", "/v1/subscriptions/{subscription}", "SubscriptionUpdateParams")
def update(account: Account, params: Object, subscription: str) -> Object:
    found, now = account.get("subscription", subscription), account.clock.now()
    if found["status"] in ("canceled", "incomplete_expired"):
        raise Refused("A canceled subscription can only update its cancellation_details.", param="id")
    before: Object = {name: found[name] for name in params if name in found and name != "items"}
    if "items" in params:
        before["items"] = {"data": [dict(item) for item in found["items"]["data"]]}
        if not _change(account, found, params, now):
            return found
    _set_plain(account, found, params, now)
    if params.get("trial_end") == "now" and found["status"] == "trialing":
        end_trial(account, found, now)
        account.run_due()
        return found
    account.emit("customer.subscription.updated", found, before)
    return found


@route("GET", "/v1/subscription_items", "SubscriptionItemListParams")
def list_items(account: Account, params: Object) -> Object:
    found = account.get("subscription", params["subscription"])
    return listing(found["items"]["data"], params, "/v1/subscription_items")


@route("POST", "/v1/subscriptions/{subscription}/resume", "SubscriptionResumeParams")
def resume(account: Account, params: Object, subscription: str) -> Object:
    found, now = account.get("subscription", subscription), account.clock.now()
    if found["status"] != "paused":
        raise Refused("Only paused subscriptions can be resumed.", param="id")
    _restart(account, found, now)
    made = invoices.draft(
        account,
        account.get("customer", found["customer"]),
        found,
        "subscription_update",
        _licensed(account, found),
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
        raise Refused(f"No such subscription: '{subscription}'", status=404, code="resource_missing", param="id")
    lines: list[Object] = []
    if params.get("prorate"):
        lines = [each for each in _prorations(account, found, found["items"]["data"], [], now) if each["amount"] < 0]
    used: Iterable[Any] = _used(found) if params.get("invoice_now") else ()
    if lines or used:
        start = found["items"]["data"][0]["current_period_start"]
        customer = account.get("customer", found["customer"])
        last = invoices.draft(account, customer, found, "subscription_update", lines, (start, now), list(used))
        invoices.finalize(account, last)
        invoices.attempt(account, last)
    end(account, found, "cancellation_requested")
    return found


def _change(account: Account, found: Object, params: Object, now: int) -> bool:
    """Other items; False where they wait for a payment."""
    proration = params.get("proration_behavior", "create_prorations")
    at, behaviour = params.get("proration_date", now), params.get("payment_behavior", "allow_incomplete")
    if found["collection_method"] == "send_invoice" and behaviour == "pending_if_incomplete":
        raise Refused("Updates of subscriptions whose invoices are sent cannot be pending.", param="payment_behavior")
    if proration != "always_invoice" or behaviour != "pending_if_incomplete":
        made = change_items(account, found, params["items"], proration, at)
        if made is not None:
            invoices.finalize(account, made)
            if not invoices.attempt(account, made):
                if behaviour == "error_if_incomplete":
                    raise Refused("Your card was declined.", status=402, kind="card_error", code="card_declined")
                unpaid(account, made)
        return True
    old, before = [dict(item) for item in found["items"]["data"]], found["billing_cycle_anchor"]
    after = _with(account, found, params["items"])
    lines = _prorations(account, found, old, after, at)
    if found["status"] == "trialing" or not lines:
        _have_items(account, found, after, None)
        return True
    made = invoices.draft(
        account, account.get("customer", found["customer"]), found, "subscription_update", lines, (at, at)
    )
    account.note(found["id"])["pending"] = {
        "invoice": made["id"],
        "items": after,
        "expires_at": now + PENDING_SECONDS,
    }
    invoices.finalize(account, made)
    found["pending_update"] = {
        "billing_cycle_anchor": None if _interval(old) == _interval(after) else before,
        "expires_at": now + PENDING_SECONDS,
        "subscription_items": after,
        **unused("cancel_at_period_end discount discounts metadata trial_end trial_from_plan"),
    }
    if invoices.attempt(account, made, final=True):
        return False  # applied, and told, when it was paid
    account.at(now + PENDING_SECONDS, "pending", found["id"])
    account.emit("customer.subscription.updated", found, {"pending_update": None})
    return False


def _set_plain(account: Account, found: Object, params: Object, now: int) -> None:
    if "discounts" in params:
        wanted = params["discounts"] or []
        found["discounts"] = [catalogue.redeemed(account, each, found["id"])["id"] for each in wanted]
    if "cancel_at_period_end" in params:
        found["cancel_at_period_end"] = params["cancel_at_period_end"]
        ends = found["items"]["data"][0]["current_period_end"]
        found["cancel_at"] = ends if params["cancel_at_period_end"] else None
        found["canceled_at"] = now if params["cancel_at_period_end"] else None
    if "cancel_at" in params:
        at = params["cancel_at"]
        found["cancel_at"], found["canceled_at"] = (at or None), (now if at else None)
        if at:
            account.at(at, "cancel_at", found["id"])
    if "pause_collection" in params:
        given = params["pause_collection"]
        found["pause_collection"] = {"resumes_at": None, **given} if given else None
        if given and given.get("resumes_at"):
            account.at(given["resumes_at"], "resume_collection", found["id"])
    if "default_payment_method" in params:
        found["default_payment_method"] = params["default_payment_method"] or None
    found["metadata"].update(params.get("metadata") or {})


@timer("resume_collection")
def _resume_collection(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    collection = subscription["pause_collection"]
    if collection is not None and (collection["resumes_at"] or 0) <= account.clock.now():
        subscription["pause_collection"] = None
        account.emit("customer.subscription.updated", subscription, {"pause_collection": collection})

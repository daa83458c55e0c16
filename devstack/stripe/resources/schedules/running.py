"""A subscription becomes what a phase of its schedule says, and is released or ends after the last one."""

from devstack.stripe.account import Account, Object, Occurrence, consequence
from devstack.stripe.resources import discounts, invoices, subscriptions
from devstack.stripe.resources.schedules.phases import DEFAULTS, ITEM_FIELDS, phase_at


@consequence(Occurrence.PERIOD_RENEWED)
def enter_phase(account: Account, subscription: Object) -> None:
    """When its period is renewed, the subscription becomes what the phase says that begins then."""
    schedule = account.objects.get("subscription_schedule", {}).get(subscription["schedule"] or "")
    if schedule is None or schedule["status"] != "active":
        return
    now, current = account.clock.now(), schedule["current_phase"]
    phase = phase_at(schedule["phases"], now)
    if phase is None:
        _finish(account, subscription, schedule)
        return
    if current is not None and phase["start_date"] == current["start_date"]:
        return
    schedule["current_phase"] = {"start_date": phase["start_date"], "end_date": phase["end_date"]}
    subscriptions.change_items(account, subscription, replaced_items(subscription, phase), "none", now)
    _apply(account, subscription, phase)
    account.emit("subscription_schedule.updated", schedule)
    if schedule["end_behavior"] == "release" and phase is schedule["phases"][-1]:
        release(account, subscription, schedule)  # nothing is left to wait for


def apply_running(account: Account, subscription: Object, phases: list[Object], proration: str) -> None:
    """The subscription becomes what its running phase says, at once. `proration`: as in Stripe's API."""
    now = account.clock.now()
    phase = phase_at(phases, now)
    if phase is None:
        return
    changes = changed_items(subscription, phase)
    if changes:
        invoice = subscriptions.change_items(account, subscription, changes, proration, now)
        if invoice is not None:
            invoices.finalize(account, invoice)
            invoices.attempt(account, invoice)
    _apply(account, subscription, phase)
    if subscription["status"] == "trialing" and phase["trial_end"] != subscription["trial_end"]:
        subscriptions.move_trial_end(account, subscription, phase["trial_end"] or now)


def release(account: Account, subscription: Object, schedule: Object) -> None:
    """The subscription goes on as it is, without a schedule."""
    schedule["status"], schedule["released_at"] = "released", account.clock.now()
    schedule["released_subscription"], schedule["subscription"] = subscription["id"], None
    schedule["current_phase"] = None
    subscription["schedule"] = None
    account.emit("subscription_schedule.released", schedule)


def replaced_items(subscription: Object, phase: Object) -> list[Object]:
    """All items of the subscription go, and those of the phase come, as `subscriptions.update` takes them."""
    return [
        *({"id": item["id"], "deleted": True} for item in subscription["items"]["data"]),
        *(
            {"price": item["price"], **({"quantity": item["quantity"]} if item.get("quantity") else {})}
            for item in phase["items"]
        ),
    ]


def changed_items(subscription: Object, phase: Object) -> list[Object]:
    """What makes the subscription's items those of the phase, as `subscriptions.update` takes it; none: it has them."""
    wanted = {item["price"]: item.get("quantity") for item in phase["items"]}
    present = {item["price"]["id"]: item for item in subscription["items"]["data"]}
    if wanted == {price_id: item.get("quantity") for price_id, item in present.items()}:
        return []
    changes: list[Object] = [
        {"id": item["id"], "deleted": True} for price_id, item in present.items() if price_id not in wanted
    ]
    for price_id, quantity in wanted.items():
        item = {"id": present[price_id]["id"]} if price_id in present else {"price": price_id}
        changes.append(item if quantity is None else {**item, "quantity": quantity})
    return changes


def _apply(account: Account, subscription: Object, phase: Object) -> None:
    """A phase replaces what its subscription had; what it does not name is as it is by default."""
    subscription["discounts"] = [
        each["discount"] or discounts.redeem(account, _without_nulls(each), subscription["id"])["id"]
        for each in phase["discounts"]
    ]
    phase["discounts"] = [
        {"coupon": None, "discount": each, "promotion_code": None} for each in subscription["discounts"]
    ]
    for name, default in DEFAULTS.items():
        value = phase[name] if phase[name] is not None else default
        subscription[name] = {**(subscription[name] or {}), **value} if isinstance(value, dict) else value
    subscription["days_until_due"] = (phase["invoice_settings"] or {}).get("days_until_due")
    subscription["metadata"].update(phase["metadata"])
    item_by_price = {item["price"]: item for item in phase["items"]}
    for item in subscription["items"]["data"]:
        for name in ITEM_FIELDS:
            item[name] = item_by_price[item["price"]["id"]][name]


def _without_nulls(fields: Object) -> Object:
    return {name: value for name, value in fields.items() if value is not None}


def _finish(account: Account, subscription: Object, schedule: Object) -> None:
    """The last phase is over."""
    if schedule["end_behavior"] == "cancel":
        schedule["status"], schedule["completed_at"] = "completed", account.clock.now()
        account.emit("subscription_schedule.completed", schedule)
        subscriptions.end(account, subscription, "cancellation_requested")
    else:
        release(account, subscription, schedule)

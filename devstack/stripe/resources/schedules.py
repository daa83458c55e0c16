"""Subscription schedules: what a subscription will be, phase by phase."""

from typing import Any

from devstack.stripe.account import (
    Account,
    Object,
    Occurrence,
    RequestRefused,
    consequence,
    unused,
)
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import invoices, products, subscriptions

DEFAULTS: Object = {
    "application_fee_percent": None,
    "automatic_tax": {"enabled": False},
    "billing_thresholds": None,
    "collection_method": "charge_automatically",
    "default_payment_method": None,
    "default_tax_rates": [],
    "description": None,
    "on_behalf_of": None,
    "transfer_data": None,
}
"""Of a subscription whose phase does not say."""
ITEM_FIELDS = ("billing_thresholds", "discounts", "metadata", "tax_rates")


@consequence(Occurrence.PERIOD_RENEWED)
def enter_phase(account: Account, subscription: Object) -> None:
    """Has a subscription be what the phase says that begins now, when its period is renewed."""
    schedule = account.objects.get("subscription_schedule", {}).get(subscription["schedule"] or "")
    if schedule is None or schedule["status"] != "active":
        return
    now = account.clock.now()
    phase = next((p for p in schedule["phases"] if p["start_date"] <= now < p["end_date"]), None)
    current = schedule["current_phase"]
    if phase is not None and current is not None and phase["start_date"] == current["start_date"]:
        return
    if phase is None:
        _end(account, subscription, schedule)
        return
    schedule["current_phase"] = {"start_date": phase["start_date"], "end_date": phase["end_date"]}
    standing = {item["price"]["id"]: item for item in subscription["items"]["data"]}
    wanted: list[Object] = [{"id": item["id"], "deleted": True} for item in standing.values()]
    wanted += [
        {"price": each["price"], **({"quantity": each["quantity"]} if each.get("quantity") else {})}
        for each in phase["items"]
    ]
    subscriptions.change_items(account, subscription, wanted, "none", now)
    _apply(account, subscription, phase)
    account.emit("subscription_schedule.updated", schedule)
    if schedule["end_behavior"] == "release" and phase is schedule["phases"][-1]:
        _release(account, subscription, schedule)  # nothing is left to wait for


def _apply(account: Account, subscription: Object, phase: Object) -> None:
    """A phase replaces what its subscription had; what it does not name is as it is by default."""
    subscription["discounts"] = [
        each["discount"] or products.redeemed(account, _filled(each), subscription["id"])["id"]
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
    fields = {each["price"]: each for each in phase["items"]}
    for item in subscription["items"]["data"]:
        for name in ITEM_FIELDS:
            item[name] = fields[item["price"]["id"]][name]


def _filled(fields: Object) -> Object:
    return {name: value for name, value in fields.items() if value is not None}


def _end(account: Account, subscription: Object, schedule: Object) -> None:
    if schedule["end_behavior"] == "cancel":
        schedule["status"], schedule["completed_at"] = "completed", account.clock.now()
        account.emit("subscription_schedule.completed", schedule)
        subscriptions.end(account, subscription, "cancellation_requested")
    else:
        _release(account, subscription, schedule)


def _release(account: Account, subscription: Object, schedule: Object) -> None:
    schedule["status"], schedule["released_at"] = "released", account.clock.now()
    schedule["released_subscription"], schedule["subscription"] = subscription["id"], None
    schedule["current_phase"] = None
    subscription["schedule"] = None
    account.emit("subscription_schedule.released", schedule)


def _phase(account: Account, given: Object, start: int, subscription: Object) -> Object:
    items = []
    for each in given["items"]:
        price = account.get("price", each["price"])
        licensed = price["recurring"]["usage_type"] == "licensed"
        items.append(
            {
                "billing_thresholds": each.get("billing_thresholds"),
                "discounts": [_discount(account, one) for one in each.get("discounts") or []],
                "metadata": each.get("metadata") or {},
                "plan": price["id"],
                "price": price["id"],
                "tax_rates": each.get("tax_rates") or [],
                **({"quantity": each.get("quantity", 1)} if licensed else {}),
            }
        )
    end: Any = given.get("end_date")
    if end is None:
        count = (given.get("duration") or {}).get("interval_count", 1)
        price = account.get("price", items[0]["price"])
        end = start
        for _ in range(count):
            end = subscriptions.next_end(subscription, end, price)
    if given.get("currency", subscription["currency"]) != subscription["currency"]:
        raise RequestRefused("The currency of a subscription cannot be changed.", param="phases")
    trial_end = end if given.get("trial") else given.get("trial_end")
    if trial_end is not None and not start <= trial_end <= end:
        raise RequestRefused("The trial must end within its phase.", param="phases")
    return {
        **{name: given.get(name) for name in DEFAULTS},
        "add_invoice_items": given.get("add_invoice_items") or [],
        "billing_cycle_anchor": given.get("billing_cycle_anchor"),
        "currency": subscription["currency"],
        "discounts": [_discount(account, each) for each in given.get("discounts") or []],
        "end_date": end,
        "invoice_settings": given.get("invoice_settings")
        and {
            **unused("account_tax_ids custom_fields days_until_due description footer issuer"),
            **given["invoice_settings"],
        },
        "items": items,
        "metadata": given.get("metadata") or {},
        "proration_behavior": given.get("proration_behavior", "create_prorations"),
        "start_date": start,
        "trial_end": trial_end,
    }


def _take_running(account: Account, subscription: Object, phases: list[Object], proration: str) -> None:
    """The subscription is what its running phase says, at once."""
    now = account.clock.now()
    phase = next((each for each in phases if each["start_date"] <= now < each["end_date"]), None)
    if phase is None:
        return
    wanted = {each["price"]: each.get("quantity") for each in phase["items"]}
    standing = {item["price"]["id"]: item for item in subscription["items"]["data"]}
    if wanted != {price: item.get("quantity") for price, item in standing.items()}:
        items: list[Object] = [
            {"id": item["id"], "deleted": True} for price, item in standing.items() if price not in wanted
        ]
        for price, quantity in wanted.items():
            named = {"id": standing[price]["id"]} if price in standing else {"price": price}
            items.append({**named, **({} if quantity is None else {"quantity": quantity})})
        made = subscriptions.change_items(account, subscription, items, proration, now)
        if made is not None:
            invoices.finalize(account, made)
            invoices.attempt(account, made)
    _apply(account, subscription, phase)
    if subscription["status"] == "trialing" and phase["trial_end"] != subscription["trial_end"]:
        subscriptions.move_trial_end(account, subscription, phase["trial_end"] or now)


def _check_times(account: Account, subscription: Object, phase: Object, number: int) -> None:
    """Raises RequestRefused for what would be done at another time than it says."""
    end, price = phase["end_date"], account.get("price", phase["items"][0]["price"])
    if subscriptions.next_end(subscription, end - 1, price) != end:
        message = "The stand-in for Stripe knows phases that end with a period only."
        raise RequestRefused(message, code="parameter_not_in_stand_in", param=f"phases[{number}][end_date]")
    if phase["trial_end"] is not None and phase["start_date"] > account.clock.now():
        message = "The stand-in for Stripe knows the trial of a phase that runs already only."
        raise RequestRefused(message, code="parameter_not_in_stand_in", param=f"phases[{number}][trial_end]")


def _discount(account: Account, given: Object) -> Object:
    for kind in ("discount", "coupon", "promotion_code"):
        if given.get(kind):
            account.get(kind, given[kind])
    return {"coupon": None, "discount": None, "promotion_code": None, **given}


@route("POST", "/v1/subscription_schedules", "SubscriptionScheduleCreateParams")
def create(account: Account, params: Object) -> Object:
    if "from_subscription" not in params:
        raise RequestRefused("Here schedules are made from a subscription.", param="from_subscription")
    subscription = account.get("subscription", params["from_subscription"])
    if subscription["schedule"] is not None:
        raise RequestRefused("This subscription is attached to a schedule already.", param="from_subscription")
    items = subscription["items"]["data"]
    start, end = items[0]["current_period_start"], items[0]["current_period_end"]
    given = {
        **{name: subscription[name] for name in DEFAULTS},
        "discounts": [{"discount": each} for each in subscription["discounts"]],
        "end_date": end,
        "items": [
            {
                "price": item["price"]["id"],
                **({"quantity": item["quantity"]} if "quantity" in item else {}),
                **{name: item[name] for name in ITEM_FIELDS},
            }
            for item in items
        ],
        "metadata": dict(subscription["metadata"]),
        "trial_end": subscription["trial_end"] if subscription["status"] == "trialing" else None,
    }
    schedule = account.add(
        {
            "id": account.new_id("sub_sched"),
            "object": "subscription_schedule",
            "application": None,
            "billing_mode": dict(subscription["billing_mode"]),
            "canceled_at": None,
            "completed_at": None,
            "created": account.clock.now(),
            "current_phase": {"start_date": start, "end_date": end},
            "customer": subscription["customer"],
            "customer_account": None,
            "default_settings": {
                "billing_cycle_anchor": "automatic",
                "collection_method": "charge_automatically",
                "invoice_settings": {
                    "issuer": {"type": "self"},
                    **unused("account_tax_ids custom_fields days_until_due description footer"),
                },
                **unused(
                    "application_fee_percent billing_thresholds default_payment_method description on_behalf_of"
                    " transfer_data"
                ),
            },
            "end_behavior": "release",
            "livemode": False,
            "metadata": params.get("metadata") or {},
            "pause_schedules": [],
            "phases": [_phase(account, given, start, subscription)],
            "released_at": None,
            "released_subscription": None,
            "status": "active",
            "subscription": subscription["id"],
            "test_clock": None,
        }
    )
    subscription["schedule"] = schedule["id"]
    account.emit("subscription_schedule.created", schedule)
    account.emit("customer.subscription.updated", subscription, {"schedule": None})
    return schedule


@route("GET", "/v1/subscription_schedules", "SubscriptionScheduleListParams")
def list_(account: Account, params: Object) -> Object:
    found = account.find("subscription_schedule", customer=params.get("customer"))
    return listing(found, params, "/v1/subscription_schedules")


@route("GET", "/v1/subscription_schedules/{schedule}", "SubscriptionScheduleRetrieveParams")
def retrieve(account: Account, params: Object, schedule: str) -> Object:
    return account.get("subscription_schedule", schedule)


@route("POST", "/v1/subscription_schedules/{schedule}", "SubscriptionScheduleUpdateParams")
def update(account: Account, params: Object, schedule: str) -> Object:
    found = account.get("subscription_schedule", schedule)
    if found["status"] != "active":
        raise RequestRefused(f"You cannot update a subscription schedule that is {found['status']}.", param="id")
    subscription = account.get("subscription", found["subscription"])
    if "phases" in params:
        phases: list[Object] = []
        for number, given in enumerate(params["phases"]):
            start = given.get("start_date") or (phases[-1]["end_date"] if phases else None)
            if not isinstance(start, int):
                raise RequestRefused("The first phase needs a start_date.", param="phases[0][start_date]")
            phases.append(_phase(account, given, start, subscription))
            _check_times(account, subscription, phases[-1], number)
        found["phases"] = phases
        _take_running(account, subscription, phases, params.get("proration_behavior", "create_prorations"))
    found["end_behavior"] = params.get("end_behavior", found["end_behavior"])
    found["metadata"].update(params.get("metadata") or {})
    account.emit("subscription_schedule.updated", found)
    return found


@route("POST", "/v1/subscription_schedules/{schedule}/release", "SubscriptionScheduleReleaseParams")
def release(account: Account, params: Object, schedule: str) -> Object:
    found = account.get("subscription_schedule", schedule)
    if found["status"] != "active":
        raise RequestRefused(f"You cannot release a subscription schedule that is {found['status']}.", param="id")
    subscription = account.get("subscription", found["subscription"])
    _release(account, subscription, found)
    account.emit("customer.subscription.updated", subscription, {"schedule": schedule})
    return found


@route("POST", "/v1/subscription_schedules/{schedule}/cancel", "SubscriptionScheduleCancelParams")
def cancel(account: Account, params: Object, schedule: str) -> Object:
    found = account.get("subscription_schedule", schedule)
    if found["status"] != "active":
        raise RequestRefused(f"You cannot cancel a subscription schedule that is {found['status']}.", param="id")
    subscriptions.end(account, account.get("subscription", found["subscription"]), "cancellation_requested")
    return found

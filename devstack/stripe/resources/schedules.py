"""Subscription schedules: what a subscription will be, phase by phase."""

from typing import Any

from devstack.stripe.account import Account, Object, Refused
from devstack.stripe.resources import subscriptions
from devstack.stripe.routes import listing, route


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
    account.emit("subscription_schedule.updated", schedule)
    if schedule["end_behavior"] == "release" and phase is schedule["phases"][-1]:
        _release(account, subscription, schedule)  # nothing is left to wait for


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
                "billing_thresholds": None,
                "discounts": [],
                "metadata": {},
                "price": price["id"],
                "tax_rates": [],
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
    return {
        "add_invoice_items": [],
        "billing_cycle_anchor": None,
        "currency": subscription["currency"],
        "discounts": [],
        "end_date": end,
        "items": items,
        "metadata": given.get("metadata") or {},
        "proration_behavior": given.get("proration_behavior", "create_prorations"),
        "start_date": start,
        "trial_end": None,
    }


@route("POST", "/v1/subscription_schedules", "SubscriptionScheduleCreateParams")
def create(account: Account, params: Object) -> Object:
    if "from_subscription" not in params:
        raise Refused("Here schedules are made from a subscription.", param="from_subscription")
    subscription = account.get("subscription", params["from_subscription"])
    if subscription["schedule"] is not None:
        raise Refused("This subscription is attached to a schedule already.", param="from_subscription")
    items = subscription["items"]["data"]
    start, end = items[0]["current_period_start"], items[0]["current_period_end"]
    given = {
        "end_date": end,
        "items": [
            {"price": item["price"]["id"], **({"quantity": item["quantity"]} if "quantity" in item else {})}
            for item in items
        ],
    }
    schedule = account.add(
        {
            "id": account.new_id("sub_sched"),
            "object": "subscription_schedule",
            "application": None,
            "billing_mode": {"type": "flexible"},
            "canceled_at": None,
            "completed_at": None,
            "created": account.clock.now(),
            "current_phase": {"start_date": start, "end_date": end},
            "customer": subscription["customer"],
            "default_settings": {"billing_cycle_anchor": "automatic", "collection_method": "charge_automatically"},
            "end_behavior": "release",
            "livemode": False,
            "metadata": {},
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
        raise Refused(f"You cannot update a subscription schedule that is {found['status']}.", param="id")
    subscription = account.get("subscription", found["subscription"])
    if "phases" in params:
        phases: list[Object] = []
        for given in params["phases"]:
            start = given.get("start_date") or (phases[-1]["end_date"] if phases else None)
            if not isinstance(start, int):
                raise Refused("The first phase needs a start_date.", param="phases[0][start_date]")
            phases.append(_phase(account, given, start, subscription))
        found["phases"] = phases
    found["end_behavior"] = params.get("end_behavior", found["end_behavior"])
    found["metadata"].update(params.get("metadata") or {})
    account.emit("subscription_schedule.updated", found)
    return found


@route("POST", "/v1/subscription_schedules/{schedule}/release", "SubscriptionScheduleReleaseParams")
def release(account: Account, params: Object, schedule: str) -> Object:
    found = account.get("subscription_schedule", schedule)
    if found["status"] != "active":
        raise Refused(f"You cannot release a subscription schedule that is {found['status']}.", param="id")
    subscription = account.get("subscription", found["subscription"])
    _release(account, subscription, found)
    account.emit("customer.subscription.updated", subscription, {"schedule": schedule})
    return found


@route("POST", "/v1/subscription_schedules/{schedule}/cancel", "SubscriptionScheduleCancelParams")
def cancel(account: Account, params: Object, schedule: str) -> Object:
    found = account.get("subscription_schedule", schedule)
    if found["status"] != "active":
        raise Refused(f"You cannot cancel a subscription schedule that is {found['status']}.", param="id")
    subscriptions.end(account, account.get("subscription", found["subscription"]), "cancellation_requested")
    return found

"""The calls that create, change and end schedules."""

from devstack.stripe.account import Account, Object, RequestRefused, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import subscriptions
from devstack.stripe.resources.schedules import running
from devstack.stripe.resources.schedules.phases import new_phase, new_phases, present_phase


@route("POST", "/v1/subscription_schedules", "SubscriptionScheduleCreateParams")
def create(account: Account, params: Object) -> Object:
    if "from_subscription" not in params:
        message = "The stand-in for Stripe makes schedules from a subscription only."
        raise RequestRefused(message, param="from_subscription")
    subscription = account.get("subscription", params["from_subscription"])
    if subscription["schedule"] is not None:
        raise RequestRefused("This subscription is attached to a schedule already.", param="from_subscription")
    start = subscription["items"]["data"][0]["current_period_start"]
    phase = new_phase(account, present_phase(subscription), start, subscription)
    schedule = account.add(
        {
            "id": account.new_id("sub_sched"),
            "object": "subscription_schedule",
            "billing_mode": dict(subscription["billing_mode"]),
            "created": account.clock.now(),
            "current_phase": {"start_date": start, "end_date": phase["end_date"]},
            "customer": subscription["customer"],
            "default_settings": _default_settings(),
            "end_behavior": "release",
            "livemode": False,
            "metadata": params.get("metadata") or {},
            "pause_schedules": [],
            "phases": [phase],
            "status": "active",
            "subscription": subscription["id"],
            **unused(
                "application canceled_at completed_at customer_account released_at released_subscription test_clock"
            ),
        }
    )
    subscription["schedule"] = schedule["id"]
    account.emit("subscription_schedule.created", schedule)
    account.emit("customer.subscription.updated", subscription, {"schedule": None})
    return schedule


@route("GET", "/v1/subscription_schedules", "SubscriptionScheduleListParams")
def list_(account: Account, params: Object) -> Object:
    schedules = account.find("subscription_schedule", customer=params.get("customer"))
    return listing(schedules, params, "/v1/subscription_schedules")


@route("GET", "/v1/subscription_schedules/{schedule_id}", "SubscriptionScheduleRetrieveParams")
def retrieve(account: Account, params: Object, schedule_id: str) -> Object:
    return account.get("subscription_schedule", schedule_id)


@route("POST", "/v1/subscription_schedules/{schedule_id}", "SubscriptionScheduleUpdateParams")
def update(account: Account, params: Object, schedule_id: str) -> Object:
    schedule = _active(account, schedule_id, "update")
    subscription = account.get("subscription", schedule["subscription"])
    if "phases" in params:
        schedule["phases"] = new_phases(account, subscription, params["phases"])
        proration = params.get("proration_behavior", "create_prorations")
        running.apply_running(account, subscription, schedule["phases"], proration)
    schedule["end_behavior"] = params.get("end_behavior", schedule["end_behavior"])
    schedule["metadata"].update(params.get("metadata") or {})
    account.emit("subscription_schedule.updated", schedule)
    return schedule


@route("POST", "/v1/subscription_schedules/{schedule_id}/release", "SubscriptionScheduleReleaseParams")
def release(account: Account, params: Object, schedule_id: str) -> Object:
    schedule = _active(account, schedule_id, "release")
    subscription = account.get("subscription", schedule["subscription"])
    running.release(account, subscription, schedule)
    account.emit("customer.subscription.updated", subscription, {"schedule": schedule_id})
    return schedule


@route("POST", "/v1/subscription_schedules/{schedule_id}/cancel", "SubscriptionScheduleCancelParams")
def cancel(account: Account, params: Object, schedule_id: str) -> Object:
    schedule = _active(account, schedule_id, "cancel")
    subscriptions.end(account, account.get("subscription", schedule["subscription"]), "cancellation_requested")
    return schedule


def _active(account: Account, schedule_id: str, verb: str) -> Object:
    """The schedule. Raises RequestRefused where it is not active any more."""
    schedule = account.get("subscription_schedule", schedule_id)
    if schedule["status"] != "active":
        raise RequestRefused(f"You cannot {verb} a subscription schedule that is {schedule['status']}.", param="id")
    return schedule


def _default_settings() -> Object:
    return {
        "billing_cycle_anchor": "automatic",
        "collection_method": "charge_automatically",
        "invoice_settings": {
            "issuer": {"type": "self"},
            **unused("account_tax_ids custom_fields days_until_due description footer"),
        },
        **unused(
            "application_fee_percent billing_thresholds default_payment_method description on_behalf_of transfer_data"
        ),
    }

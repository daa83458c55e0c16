"""A subscription ends: at once, at a time that is set before, or with its customer."""

from devstack.stripe.account import Account, Object, Occurrence, RequestRefused, consequence, timer, unsupported

ENDED = ("canceled", "incomplete_expired")


def end(account: Account, subscription: Object, reason: str) -> None:
    """Ends it now, and its schedule with it."""
    now = account.clock.now()
    subscription["status"], subscription["ended_at"] = "canceled", now
    subscription["canceled_at"] = subscription["canceled_at"] or now
    subscription["cancellation_details"]["reason"] = reason
    schedule = account.objects.get("subscription_schedule", {}).get(subscription["schedule"] or "")
    if schedule is not None and schedule["status"] == "active":
        schedule["status"], schedule["canceled_at"] = "canceled", now
        account.emit("subscription_schedule.canceled", schedule)
    account.emit("customer.subscription.deleted", subscription)


def set_end(account: Account, subscription: Object, params: Object) -> None:
    """Sets when it ends, or that it does not end any more. Raises RequestRefused.

    https://docs.stripe.com/billing/subscriptions/cancel"""
    if params.get("cancel_at") and params.get("cancel_at_period_end"):
        raise RequestRefused(
            "You may only specify one of these parameters: cancel_at, cancel_at_period_end.", param="cancel_at"
        )
    now, period_end = account.clock.now(), subscription["items"]["data"][0]["current_period_end"]
    if "cancel_at_period_end" in params:
        at_period_end = params["cancel_at_period_end"]
        subscription["cancel_at_period_end"] = at_period_end
        subscription["cancel_at"], subscription["canceled_at"] = (period_end, now) if at_period_end else (None, None)
    if "cancel_at" in params:
        cancel_at = _requested_end(params, period_end, now)
        subscription["cancel_at"], subscription["canceled_at"] = cancel_at, (now if cancel_at else None)
        subscription["cancel_at_period_end"] = False
        if cancel_at:
            account.at(cancel_at, "cancel_at", subscription["id"])


def _requested_end(params: Object, period_end: int, now: int) -> int | None:
    """None: it does not end. Raises RequestRefused."""
    cancel_at: int | str | None = params["cancel_at"] or None
    if cancel_at in ("min_period_end", "max_period_end"):  # the same here, as all items have one interval
        cancel_at = period_end
    if isinstance(cancel_at, str):
        raise unsupported(f"The stand-in for Stripe does not support cancel_at={cancel_at}.", "cancel_at")
    if cancel_at is not None and cancel_at <= now:
        raise RequestRefused("cancel_at must be a future time.", param="cancel_at")
    inside = cancel_at is not None and cancel_at < period_end
    if inside and params.get("proration_behavior", "create_prorations") != "none":
        message = "The stand-in for Stripe supports a cancel_at inside the period only with proration_behavior=none."
        raise unsupported(message, "cancel_at")
    return cancel_at


@consequence(Occurrence.CUSTOMER_DELETED)
def end_all(account: Account, customer: Object) -> None:
    for subscription in list(account.find("subscription", customer=customer["id"])):
        if subscription["status"] not in ENDED:
            end(account, subscription, "cancellation_requested")


@timer("cancel_at")
def end_when_due(account: Account, subscription_id: str) -> None:
    subscription, now = account.get("subscription", subscription_id), account.clock.now()
    cancel_at = subscription["cancel_at"]
    if cancel_at is None or cancel_at > now or subscription["status"] in ENDED:
        return
    if subscription["items"]["data"][0]["current_period_end"] <= now:
        return  # the renewal of the same moment ends it, and bills its usage
    end(account, subscription, "cancellation_requested")

"""Trials: when one ends, and that its end is announced three days before.

https://docs.stripe.com/billing/subscriptions/trials
"""

from devstack.stripe.account import Account, Object, RequestRefused, timer, unsupported
from devstack.stripe.resources.subscriptions.items import DAY

TRIAL_SECONDS_MAX = 5 * 366 * DAY
ANNOUNCED_SECONDS = 3 * DAY


def requested_trial_end(params: Object, now: int) -> int | None:
    """The end of a new subscription's trial; None: it has none. Raises RequestRefused."""
    trial_end = params.get("trial_end")
    if trial_end not in (None, "now"):
        if params.get("trial_period_days"):
            raise RequestRefused("You may only specify one of these: trial_end, trial_period_days.", param="trial_end")
        return _checked(trial_end, now)
    days = params.get("trial_period_days")
    return now + days * DAY if days else None


def requested_move(subscription: Object, params: Object, now: int) -> int | None:
    """Where the end of a running trial is to be moved to; None: it stays. Raises RequestRefused."""
    trial_end, trialing = params.get("trial_end"), subscription["status"] == "trialing"
    if trial_end is None or (trial_end == "now" and not trialing):
        return None
    if not trialing:
        raise unsupported("The stand-in for Stripe moves the trial_end of trialing subscriptions only.", "trial_end")
    return now if trial_end == "now" else _checked(trial_end, now)


def move_trial_end(account: Account, subscription: Object, trial_end: int) -> None:
    subscription["trial_end"] = subscription["billing_cycle_anchor"] = trial_end
    for item in subscription["items"]["data"]:
        item["current_period_end"] = trial_end
    account.at(trial_will_end_at(account.clock.now(), trial_end), "trial_will_end", subscription["id"])
    account.at(trial_end, "renew", subscription["id"])


def trial_will_end_at(now: int, trial_end: int) -> int:
    """When the end of a trial is announced."""
    return max(now, trial_end - ANNOUNCED_SECONDS)


@timer("trial_will_end")
def announce_trial_end(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    due = (subscription["trial_end"] or 0) - ANNOUNCED_SECONDS <= account.clock.now()  # it may have been moved
    if subscription["status"] == "trialing" and due:
        account.emit("customer.subscription.trial_will_end", subscription)


def _checked(trial_end: int, now: int) -> int:
    if not now < trial_end <= now + TRIAL_SECONDS_MAX:
        raise RequestRefused("trial_end must be a future time, at most five years ahead.", param="trial_end")
    return int(trial_end)

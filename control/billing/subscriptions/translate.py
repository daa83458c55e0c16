"""What a customer's subscriptions mean for its organization: Stripe's words become ours. Pure.

Everything follows from the objects as they are now, and nothing from the events. So order, number and age of the events
make no difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from control.billing.objects import Object, id_of
from control.billing.subscription_status import LIVE, OVER
from control.entitlements.subscribed import EntitlementTimeline, SubscribedTerms
from quota.model import Status
from quota.periods import Schedule

_RANK = {"active": 3, "trialing": 3, "past_due": 2, "paused": 1}


@dataclass(frozen=True, slots=True)
class PriceMeaning:
    """What a price stands for."""

    plan_id: UUID
    plan: str
    plan_version: int
    meter: str | None
    """Whose overage it bills; None: it is the plan's own price."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an admin must look at: an incident's kind, key and content."""

    kind: str
    key: str
    content: Mapping[str, Any]


@dataclass(slots=True)
class Translation:
    """What a customer's subscriptions mean."""

    timeline: EntitlementTimeline
    keep: bool = False
    """The organization's entitlement is left as it is: nobody can say what it should be."""
    troubles: list[Trouble] = field(default_factory=list)


PRICE_UNKNOWN = "stripe_price_unknown"
SEVERAL = "stripe_subscriptions_several"
PLANS_SEVERAL = "stripe_plans_several"
WORD_UNKNOWN = "stripe_word_unknown"

STATUSES = frozenset({*LIVE, *OVER, "incomplete", "unpaid"})
PAUSES = frozenset({"keep_as_draft", "mark_uncollectible", "void"})
SCHEDULES = frozenset({"active", "canceled", "completed", "not_started", "released"})
SCHEDULE_ENDS = frozenset({"cancel", "none", "release", "renew"})


SETTLED = frozenset({"paid", "uncollectible"})


def due_at(invoice: Object) -> int:
    """When an invoice is to be paid: one that is sent to the customer has a date, others are charged at once."""
    return int(invoice.get("due_date") or invoice["status_transitions"]["finalized_at"] or invoice["created"])


def settles(invoice: Object) -> bool:
    """Whether earlier invoices no longer matter, since this one was paid, or given up."""
    return invoice["status"] in SETTLED and invoice["total"] > 0


def counts(invoice: Object) -> bool:
    """Whether a subscription is overdue because of it. Invoices that somebody made by hand do not count."""
    return invoice["status"] == "open" and invoice.get("billing_reason") != "manual"


def translate(
    subscriptions: Sequence[Object],
    prices: Mapping[str, PriceMeaning],
    overdue_since: Mapping[str, int],
    grace_seconds: float,
    now: float,
) -> Translation:
    """`overdue_since`: for each subscription that is past due, when the first of the invoices was due that are open
    since one was paid; without one its grace begins with its period."""
    live = sorted(
        (each for each in subscriptions if each["status"] in LIVE),
        key=lambda each: (_RANK[each["status"]], each["created"], each["id"]),
        reverse=True,
    )
    reading = Translation(EntitlementTimeline(None))
    odd = {each["id"]: words for each in subscriptions if (words := _unknown_words(each))}
    for each in subscriptions:
        if each["id"] in odd:
            content = {"subscription": each["id"], "customer": id_of(each["customer"]), "words": odd[each["id"]]}
            reading.troubles.append(Trouble(WORD_UNKNOWN, each["id"], content))
    readable: list[tuple[Object, Object, PriceMeaning]] = []
    for each in live:
        plan_item = _plan_item(each["items"]["data"], prices)
        several = _plan_prices(each, prices)
        if several:
            content = {"subscription": each["id"], "customer": id_of(each["customer"]), "prices": several}
            reading.troubles.append(Trouble(PLANS_SEVERAL, each["id"], content))
        if plan_item is not None:
            readable.append((each, *plan_item))
        else:
            unknown_prices = sorted(id_of(i["price"]) or "" for i in each["items"]["data"])
            content = {"subscription": each["id"], "customer": id_of(each["customer"]), "prices": unknown_prices}
            reading.troubles.append(Trouble(PRICE_UNKNOWN, each["id"], content))
    if len(readable) > 1:
        first = readable[0][0]
        content = {"in_force": first["id"], "subscriptions": [each["id"] for each, _, _ in readable]}
        reading.troubles.append(Trouble(SEVERAL, id_of(first["customer"]) or "", content))
    if readable:
        each, item, sold = readable[0]
        reading.timeline = _timeline_of(each, item, sold, prices, overdue_since.get(each["id"]), grace_seconds, now)
        # Only a later release knows what an unknown word means.
        reading.keep = each["id"] in odd
    else:
        reading.keep = bool(live) or bool(odd)
    return reading


def _unknown_words(subscription: Object) -> Object:
    """The words of a subscription that are unknown here, by field."""
    schedule = subscription.get("schedule")
    schedule = schedule if isinstance(schedule, dict) else {}
    said = (
        ("status", subscription["status"], STATUSES),
        ("pause_collection.behavior", (subscription.get("pause_collection") or {}).get("behavior"), PAUSES),
        ("schedule.status", schedule.get("status"), SCHEDULES),
        ("schedule.end_behavior", schedule.get("end_behavior"), SCHEDULE_ENDS),
    )
    return {name: word for name, word, known_words in said if word is not None and word not in known_words}


def _plan_prices(subscription: Object, prices: Mapping[str, PriceMeaning]) -> list[str]:
    """The prices that are a plan's own where a subscription, or a phase of it to come, has more than one of them. The
    first one counts."""
    schedule = subscription.get("schedule")
    phases = schedule["phases"] if isinstance(schedule, dict) else []
    for items in (subscription["items"]["data"], *(phase["items"] for phase in phases)):
        price_ids = [id_of(item["price"]) or "" for item in items]
        plans = [each for each in price_ids if each in prices and prices[each].meter is None]
        if len(plans) > 1:
            return plans
    return []


def _timeline_of(
    subscription: Object,
    item: Object,
    sold: PriceMeaning,
    prices: Mapping[str, PriceMeaning],
    overdue_since: int | None,
    grace_seconds: float,
    now: float,
) -> EntitlementTimeline:
    schedule, subscription_id = _schedule(subscription), subscription["id"]

    def given(what: PriceMeaning, quantity: int, status: Status) -> SubscribedTerms:
        return SubscribedTerms(subscription_id, what.plan_id, what.plan, what.plan_version, status, quantity, schedule)

    status, later = _status(subscription), []
    if status is Status.GRACE:
        since = overdue_since if overdue_since is not None else int(item["current_period_start"])
        suspended_at = int(since + grace_seconds)
        if suspended_at <= now:
            status = Status.SUSPENDED
        else:
            later.append((suspended_at, given(sold, _quantity(item), Status.SUSPENDED)))
    for phase in _phases_ahead(subscription, now):
        plan_item = _plan_item(phase["items"], prices)
        # Suspension is not ended by a phase; what a phase changes then shows when the payment is there.
        if plan_item is not None and status is not Status.GRACE:
            coming = given(plan_item[1], _quantity(plan_item[0]), status)
            if status is Status.TRIALING and not phase.get("trial_end"):
                coming = given(plan_item[1], _quantity(plan_item[0]), Status.ACTIVE)
            later.append((int(phase["start_date"]), coming))
    ends_at = _ends_at(subscription)
    if ends_at is not None:
        if ends_at <= now:
            return EntitlementTimeline(None)
        later = [(at, what) for at, what in later if at < ends_at]
    first = given(sold, _quantity(item), status)
    return EntitlementTimeline(first, _changes(first, later), ends_at)


def _schedule(subscription: Object) -> Schedule:
    """Monthly from the billing cycle's anchor, a year's subscription too; a trial is a period of its own."""
    anchor, trial_start = int(subscription["billing_cycle_anchor"]), subscription.get("trial_start")
    if trial_start is None or subscription.get("trial_end") != anchor:
        return Schedule(anchor)
    return Schedule(anchor, starts_at=int(trial_start))


def _status(subscription: Object) -> Status:
    # https://docs.stripe.com/billing/subscriptions/pause-payment: `void` is for a vendor who cannot serve meanwhile,
    # the others for one who serves for free, or collects later.
    collection = subscription.get("pause_collection")
    if collection is not None and collection["behavior"] == "void":
        return Status.SUSPENDED
    match subscription["status"]:
        case "trialing":
            return Status.TRIALING
        case "past_due":
            return Status.GRACE
        case "paused":
            return Status.SUSPENDED
        case _:
            return Status.ACTIVE


def _plan_item(items: Sequence[Object], prices: Mapping[str, PriceMeaning]) -> tuple[Object, PriceMeaning] | None:
    """The item that is a plan's own price."""
    for item in items:
        sold = prices.get(id_of(item["price"]) or "")
        if sold is not None and sold.meter is None:
            return item, sold
    return None


def _quantity(item: Object) -> int:
    return max(1, int(item.get("quantity") or 1))


def _ends_at(subscription: Object) -> int | None:
    # `cancel_at` may be set without `cancel_at_period_end`, which alone sets both.
    at = subscription.get("cancel_at")
    schedule = subscription.get("schedule")
    if at is None and isinstance(schedule, dict) and schedule.get("end_behavior") == "cancel" and schedule["phases"]:
        at = schedule["phases"][-1]["end_date"]
    return None if at is None else int(at)


def _phases_ahead(subscription: Object, now: float) -> list[Object]:
    schedule = subscription.get("schedule")
    if not isinstance(schedule, dict) or schedule["status"] not in ("active", "not_started"):
        return []
    return [phase for phase in schedule["phases"] if phase["start_date"] > now]


def _changes(
    first: SubscribedTerms, later: Sequence[tuple[int, SubscribedTerms]]
) -> tuple[tuple[int, SubscribedTerms], ...]:
    changes, last = [], first
    for at, what in sorted(later, key=lambda each: each[0]):
        if what != last:
            changes.append((at, what))
            last = what
    return tuple(changes)

"""What a customer's subscriptions mean. Objects are cut down to what is read of them."""

import pytest

from control.billing.subscriptions.translate import PRICE_UNKNOWN, SEVERAL
from control.entitlements.subscribed import EntitlementTimeline
from quota.model import Status
from tests.control.billing.reading import ANCHOR, DAY, NOW, given, reading, subscription


@pytest.mark.parametrize(
    ("status", "meant"),
    [
        ("active", Status.ACTIVE),
        ("trialing", Status.TRIALING),
        ("paused", Status.SUSPENDED),
    ],
)
def test_a_live_subscription_gives_its_plan(status: str, meant: Status) -> None:
    assert reading(subscription(status=status)).timeline == EntitlementTimeline(given(meant))


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "unpaid", "canceled"])
def test_a_subscription_that_never_began_or_is_over_gives_nothing(status: str) -> None:
    translation = reading(subscription(status=status))
    assert translation.timeline == EntitlementTimeline(None)
    assert not translation.keep


def test_a_failed_payment_is_followed_by_grace_since_the_oldest_open_invoice_then_by_suspension() -> None:
    due = NOW - 2 * DAY
    translation = reading(subscription(status="past_due"), overdue={"sub_1": due})
    assert translation.timeline == EntitlementTimeline(given(Status.GRACE), ((due + 7 * DAY, given(Status.SUSPENDED)),))
    late = reading(subscription(status="past_due"), overdue={"sub_1": NOW - 7 * DAY})
    assert late.timeline == EntitlementTimeline(given(Status.SUSPENDED))


@pytest.mark.parametrize(
    ("behavior", "meant"),
    [("void", Status.SUSPENDED), ("keep_as_draft", Status.ACTIVE), ("mark_uncollectible", Status.ACTIVE)],
)
def test_a_pause_of_collection_suspends_only_who_cannot_be_served(behavior: str, meant: Status) -> None:
    paused = subscription(pause_collection={"behavior": behavior, "resumes_at": None})
    assert reading(paused).timeline == EntitlementTimeline(given(meant))


@pytest.mark.parametrize("flag", [True, False])
def test_a_cancellation_ends_it_when_it_says_whether_or_not_that_is_a_periods_end(flag: bool) -> None:
    ends = NOW + 5 * DAY
    assert reading(subscription(cancel_at=ends, cancel_at_period_end=flag)).timeline == EntitlementTimeline(
        given(), (), ends
    )
    assert reading(subscription(cancel_at=NOW)).timeline == EntitlementTimeline(None)


def test_a_scheduled_downgrade_is_a_change_to_come() -> None:
    starts = ANCHOR + 30 * DAY
    phases = [
        {"start_date": ANCHOR, "end_date": starts, "items": [{"price": "price_growth", "quantity": 1}]},
        {"start_date": starts, "end_date": starts + 30 * DAY, "items": [{"price": "price_starter", "quantity": 1}]},
    ]
    schedule = {"id": "sub_sched_1", "status": "active", "end_behavior": "release", "phases": phases}
    translation = reading(subscription("price_growth", schedule=schedule))
    assert translation.timeline == EntitlementTimeline(given(plan="growth"), ((starts, given()),))
    released = reading(subscription("price_growth", schedule={**schedule, "status": "released"}))
    assert released.timeline == EntitlementTimeline(given(plan="growth"))


def test_seats_are_told() -> None:
    assert reading(subscription(quantity=5)).timeline == EntitlementTimeline(given(quantity=5))


def test_an_overage_price_is_no_plan() -> None:
    both = subscription("price_overage")
    both["items"]["data"].append({**both["items"]["data"][0], "price": {"id": "price_growth"}})
    assert reading(both).timeline == EntitlementTimeline(given(plan="growth"))


def test_a_price_that_is_in_no_plan_changes_nothing_and_is_an_incident() -> None:
    translation = reading(subscription("price_of_others"))
    assert translation.keep
    assert [(each.kind, each.key) for each in translation.troubles] == [(PRICE_UNKNOWN, "sub_1")]


def test_of_several_subscriptions_the_best_then_the_newest_counts_and_an_admin_is_told() -> None:
    old = subscription("price_growth", id="sub_0", created=ANCHOR - DAY)
    translation = reading(old, subscription())
    assert translation.timeline == EntitlementTimeline(given())
    assert [each.kind for each in translation.troubles] == [SEVERAL]
    assert reading(subscription(status="past_due"), old).timeline.now is not None
    past_due = reading(subscription(status="past_due"), old).timeline.now
    assert past_due is not None
    assert past_due.plan == "growth"
    ended = reading(subscription(status="canceled"), old)
    assert ended.timeline.now is not None
    assert not ended.troubles

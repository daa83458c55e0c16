"""Subscriptions as Stripe has them, cut down to what is read of them, and what they are to mean."""

from typing import Any
from uuid import UUID

from control.billing.subscriptions.translate import PriceMeaning, Translation, translate
from control.entitlements.subscribed import SubscribedTerms
from quota.model import Status
from quota.periods import Schedule

NOW = 1_800_000_000
DAY = 86_400
STARTER, GROWTH = UUID(int=1), UUID(int=2)
PRICES = {
    "price_starter": PriceMeaning(STARTER, "starter", 1, None),
    "price_growth": PriceMeaning(GROWTH, "growth", 3, None),
    "price_overage": PriceMeaning(GROWTH, "growth", 3, "api_calls"),
}
ANCHOR = NOW - 10 * DAY


def subscription(price: str = "price_starter", status: str = "active", **fields: Any) -> dict[str, Any]:
    item = {
        "price": {"id": price},
        "quantity": fields.pop("quantity", 1),
        "current_period_start": ANCHOR,
        "current_period_end": ANCHOR + 30 * DAY,
    }
    return {
        "id": "sub_1",
        "customer": "cus_1",
        "status": status,
        "created": ANCHOR,
        "billing_cycle_anchor": ANCHOR,
        "items": {"data": [item]},
        "schedule": None,
        "cancel_at": None,
        "pause_collection": None,
        **fields,
    }


def given(status: Status = Status.ACTIVE, plan: str = "starter", quantity: int = 1) -> SubscribedTerms:
    sold = PRICES[f"price_{plan}"]
    return SubscribedTerms("sub_1", sold.plan_id, sold.plan, sold.plan_version, status, quantity, Schedule(ANCHOR))


def reading(*subscriptions: dict[str, Any], overdue: dict[str, int] | None = None) -> Translation:
    return translate(subscriptions, PRICES, overdue or {}, 7 * DAY, NOW)

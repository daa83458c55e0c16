"""Histories of subscriptions for tests, and what they come to by a reference that knows neither SQL nor decimals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from control.billing.history.annual_value import Definition, Discount, Item, annual_value
from control.db import Connection

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class State:
    """A subscription from a moment until the next of its states."""

    org: str
    subscription: str
    at: datetime
    status: str = "active"
    items: tuple[Item, ...] = ()
    discounts: tuple[Discount, ...] = ()
    currency: str = "usd"
    plan: str | None = None


def monthly(dollars: int | str, **other: Any) -> Item:
    return Item(**{"price": "p", "quantity": 1, "unit_amount": Decimal(dollars) * 100, "interval": "month",
                   "interval_count": 1, **other})  # fmt: skip


def yearly(dollars: int | str, **other: Any) -> Item:
    return monthly(dollars, interval="year", **other)


COLUMNS = (
    "subscription", "valid_from", "valid_to", "org", "customer", "status", "currency", "plan", "items", "discounts",
    "annual_stripe", "annual_chartmogul", "annual_baremetrics", "priced", "recorded_at",
)  # fmt: skip


async def keep(connection: Connection, states: Sequence[State]) -> None:
    """Writes histories, in place of all that there are, and derives the movements."""
    await connection.execute("DELETE FROM mrr_movement")
    await connection.execute("DELETE FROM subscription_history")
    orgs = sorted({each.org for each in states})
    await connection.execute(
        "INSERT INTO organization (id, name, created_at) SELECT org, org, now() FROM unnest($1::text[]) org"
        " ON CONFLICT DO NOTHING",
        orgs,
    )
    records: list[tuple[Any, ...]] = []
    for run in by_subscription(states).values():
        for state, following in zip(run, [*run[1:], None], strict=True):
            worth = {each: annual_value(each, state.status, state.items, state.discounts) for each in Definition}
            ends = None if following is None else following.at
            records.append(
                (state.subscription, state.at, ends, state.org, f"cus_{state.org}", state.status, state.currency,
                 state.plan, [], [], worth[Definition.STRIPE], worth[Definition.CHARTMOGUL],
                 worth[Definition.BAREMETRICS], True, state.at)
            )  # fmt: skip
    await connection.copy_records_to_table("subscription_history", records=records, columns=COLUMNS)
    await connection.execute("INSERT INTO mrr_movement SELECT * FROM mrr_movement_computed")


def by_subscription(states: Iterable[State]) -> dict[str, list[State]]:
    runs: dict[str, list[State]] = {}
    for each in sorted(states, key=lambda each: (each.subscription, each.at)):
        runs.setdefault(each.subscription, []).append(each)
    return runs


# The reference


COUNTS: Mapping[str, frozenset[str]] = {
    "stripe": frozenset({"active", "past_due"}),
    "baremetrics": frozenset({"active", "past_due"}),
    "chartmogul": frozenset({"active", "past_due", "unpaid"}),
}
MONTHS: Mapping[str, Fraction] = {
    "day": Fraction(12, 365),
    "week": Fraction(12, 52),
    "month": Fraction(1),
    "year": Fraction(12),
}
"""So long is an interval."""


def monthly_worth(definition: str, state: State) -> Fraction:
    """In minor units."""
    if state.status not in COUNTS[definition]:
        return Fraction(0)
    total = Fraction(0)
    for interval, count in {(item.interval, item.interval_count) for item in state.items}:
        invoice = sum(
            (
                Fraction(item.unit_amount or 0) * item.quantity
                for item in state.items
                if (item.interval, item.interval_count) == (interval, count) and not item.metered
            ),
            Fraction(0),
        )
        for discount in state.discounts:
            if discount.duration == "forever" or (discount.duration == "repeating" and definition != "stripe"):
                if discount.percent_off is not None:
                    invoice *= 1 - Fraction(discount.percent_off) / 100
                else:
                    invoice = max(Fraction(0), invoice - Fraction(discount.amount_off or 0))
        total += invoice / (MONTHS[interval] * count)
    return total


@dataclass
class Reference:
    """What one organization's recurring revenue did, day by day, in one currency."""

    kinds: list[tuple[date, str, Fraction]] = field(default_factory=list)

    @classmethod
    def of(cls, definition: str, states: Sequence[State], currency: str) -> "Reference":
        """`states`: of one organization."""
        runs = by_subscription(states).values()
        found, before, has_paid = cls(), Fraction(0), False
        for day in sorted({each.at.date() for each in states}):
            after = Fraction(0)
            for run in runs:
                until_then = [each for each in run if each.at.date() <= day]
                if until_then and until_then[-1].currency == currency:
                    after += monthly_worth(definition, until_then[-1])
            if after != before:
                if before == 0:
                    kind = "reactivation" if has_paid else "new"
                elif after == 0:
                    kind = "churn"
                else:
                    kind = "expansion" if after > before else "contraction"
                found.kinds.append((day, kind, after - before))
                has_paid = True
            before = after
        return found

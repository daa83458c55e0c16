"""What a subscription is worth in a year, under each definition of recurring revenue. Pure.

The year is what is stored: a month of a yearly price is no decimal number, a year of a monthly price is one. So sums
stay exact, and a month is a twelfth of what is shown last. The definitions, with their sources: docs/analytics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from enum import StrEnum
from typing import Final

PERIODS_OF_YEAR: Final = {"day": 365, "week": 52, "month": 12, "year": 1}
DECIMALS: Final = Decimal("1e-12")  # of a minor unit; only a price of every 7, 9 or 11 months needs more

DIGITS: Final = 80  # more than the largest amount of Stripe's, so many times, with all its decimals


class Definition(StrEnum):
    """Whose rules decide what counts."""

    STRIPE = "stripe"
    CHARTMOGUL = "chartmogul"
    BAREMETRICS = "baremetrics"


COUNTED: Final = {
    Definition.STRIPE: frozenset({"active", "past_due"}),
    # Delinquent subscriptions count until they are cancelled.
    Definition.CHARTMOGUL: frozenset({"active", "past_due", "unpaid"}),
    Definition.BAREMETRICS: frozenset({"active", "past_due"}),
}
"""The statuses that count. A trial never does, nor what has not begun."""

REDUCING: Final = {
    Definition.STRIPE: frozenset({"forever"}),
    Definition.CHARTMOGUL: frozenset({"forever", "repeating"}),
    Definition.BAREMETRICS: frozenset({"forever", "repeating"}),
}
"""The durations of coupons that lower the value while they are there. A coupon for one invoice never does."""


@dataclass(frozen=True, slots=True)
class Discount:
    """A coupon on a subscription."""

    coupon: str
    duration: str
    percent_off: Decimal | None = None
    amount_off: Decimal | None = None
    """Of each invoice, in minor units. Neither: nobody knows what the coupon was."""
    ends_at: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What is paid for, so many times in each interval."""

    price: str
    quantity: int
    unit_amount: Decimal | None
    """In minor units; None where the price has tiers, which Stripe does not tell with a subscription."""
    interval: str
    interval_count: int
    metered: bool = False
    packaged_by: int = 1
    """So many units are one package, which is what the amount is for."""
    packages_round_up: bool = True
    plan: str | None = None
    discounts: tuple[Discount, ...] = ()

    @property
    def amount(self) -> Decimal:
        """Of one interval, before discounts."""
        if self.metered or self.unit_amount is None:
            return Decimal(0)
        packages, rest = divmod(self.quantity, self.packaged_by)
        return self.unit_amount * (packages + (1 if rest and self.packages_round_up else 0))


def annual_value(definition: Definition, status: str, items: Sequence[Item], discounts: Sequence[Discount]) -> Decimal:
    """In minor units of the subscription's currency, before tax."""
    if status not in COUNTED[definition]:
        return Decimal(0)
    with localcontext(prec=DIGITS):
        return _annual(items, discounts, REDUCING[definition]).quantize(DECIMALS, ROUND_HALF_EVEN)


def _annual(items: Sequence[Item], discounts: Sequence[Discount], reducing: frozenset[str]) -> Decimal:
    # A coupon of an amount is taken off each invoice once, so items are summed for each rhythm of invoices.
    invoices: dict[tuple[str, int], Decimal] = {}
    for item in items:
        rhythm = item.interval, item.interval_count
        invoices[rhythm] = invoices.get(rhythm, Decimal(0)) + _reduced(item.amount, item.discounts, reducing)
    total = Decimal(0)
    for (interval, count), amount in invoices.items():
        total += _reduced(amount, discounts, reducing) * PERIODS_OF_YEAR[interval] / count
    return total


def _reduced(amount: Decimal, discounts: Sequence[Discount], reducing: frozenset[str]) -> Decimal:
    """One discount after the other, each of what the ones before it have left."""
    for each in discounts:
        if each.duration in reducing:
            off = amount * each.percent_off / 100 if each.percent_off is not None else each.amount_off or Decimal(0)
            amount -= min(amount, off)
    return amount

"""Amounts of a month, for who looks at them: whole minor units of which parts add up to their totals. Pure."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction


def monthly_minor(annual: Decimal) -> int:
    """The twelfth of a year's amount, in whole minor units, rounded half up (away from nothing)."""
    twelfth = Fraction(annual) / 12
    size = (abs(twelfth) + Fraction(1, 2)).__floor__()
    return size if twelfth >= 0 else -size


def monthly_steps(start: Decimal, changes: Iterable[Decimal]) -> list[int]:
    """Each change in whole minor units, such that they lead from the rounded start to the rounded end exactly.

    A change is the difference of two rounded balances. So it is off its own exact value by less than one minor unit,
    and what is shown adds up."""
    steps, balance = [], start
    for change in changes:
        before, balance = monthly_minor(balance), balance + change
        steps.append(monthly_minor(balance) - before)
    return steps


def plain(annual: Decimal) -> str:
    """An exact number, without an exponent and without zeros that say nothing."""
    text = format(annual, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def per(amount: Decimal, count: int) -> int | None:
    """An amount for each, in whole minor units; None where there is none to have it."""
    if count == 0:
        return None
    return int((amount / count).quantize(Decimal(1), ROUND_HALF_UP))

"""Amounts: whole minor units, rounded half up as Stripe rounds. Pure."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

TAX_PERCENT = Decimal(10)  # invented: each customer with automatic tax pays it on top


def rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def amount_of(price: dict[str, Any], quantity: int) -> int:
    """The amount for a quantity of a price, with its tiers or packages."""
    transform = price.get("transform_quantity")
    if transform:
        packages, remainder = divmod(quantity, transform["divide_by"])
        quantity = packages + (1 if remainder and transform["round"] == "up" else 0)
    if price["billing_scheme"] == "tiered":
        return _tiered(price, quantity)
    return rounded(Decimal(price["unit_amount_decimal"]) * quantity)


def prorated(amount: int, start: int, end: int, at: int) -> int:
    """The part of a period's amount that is for the time from `at` on, to the second."""
    return rounded(Decimal(amount) * max(0, end - at) / (end - start))


def discount_of(amount: int, coupon: dict[str, Any]) -> int:
    if coupon["percent_off"] is not None:
        return rounded(Decimal(amount) * Decimal(str(coupon["percent_off"])) / 100)
    return min(amount, int(coupon["amount_off"]))


def tax_of(amount: int) -> int:
    return rounded(Decimal(amount) * TAX_PERCENT / 100)


def _tiered(price: dict[str, Any], quantity: int) -> int:
    total, counted = Decimal(0), 0
    for tier in price["tiers"]:
        up_to = tier["up_to"]
        if price["tiers_mode"] == "volume":
            if up_to is None or quantity <= up_to:
                return rounded(Decimal(tier["unit_amount_decimal"] or 0) * quantity + (tier["flat_amount"] or 0))
            continue
        inside = (quantity if up_to is None else min(quantity, up_to)) - counted
        if inside <= 0:
            break
        total += Decimal(tier["unit_amount_decimal"] or 0) * inside + (tier["flat_amount"] or 0)
        counted += inside
    return rounded(total)

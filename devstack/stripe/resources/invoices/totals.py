"""What an invoice adds up to. Pure."""

from collections.abc import Sequence

from devstack.stripe.account import Object
from devstack.stripe.resources import amounts


def totals_of(lines: Sequence[Object], coupons: Sequence[tuple[str, Object]], *, taxed: bool) -> Object:
    """The fields of an invoice that are computed: amounts before and after discounts and tax.

    `coupons`: of each discount, its id and its coupon."""
    subtotal = sum(line["amount"] for line in lines)
    discounts = _discounts(sum(line["amount"] for line in lines if line["discountable"]), coupons)
    before_tax = subtotal - sum(each["amount"] for each in discounts)
    tax = amounts.tax_of(max(0, before_tax)) if taxed else 0
    total = before_tax + tax
    return {
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total_discount_amounts": discounts,
        "total_excluding_tax": before_tax,
        "total_taxes": [_tax(tax, before_tax)] if tax else [],
        "total": total,
        "amount_due": max(0, total),
        "amount_remaining": max(0, total),
    }


def balance_change(total: int, balance: int) -> int:
    """By how much an invoice moves the customer's balance, in which credit is below zero.

    Credit pays as much of the invoice as it can; an invoice below zero becomes credit for the next ones."""
    if total < 0:
        return total
    return min(total, max(0, -balance))


def _discounts(discountable: int, coupons: Sequence[tuple[str, Object]]) -> list[Object]:
    """One discount after the other, each of what the ones before it have left."""
    discounts = []
    for discount_id, coupon in coupons:
        off = amounts.discount_of(max(0, discountable), coupon)
        discountable -= off
        discounts.append({"amount": off, "discount": discount_id})
    return discounts


def _tax(tax: int, taxable_amount: int) -> Object:
    return {
        "amount": tax,
        "tax_behavior": "exclusive",
        "tax_rate_details": {"tax_rate": "txr_double"},
        "taxability_reason": "standard_rated",
        "taxable_amount": taxable_amount,
        "type": "tax_rate_details",
    }

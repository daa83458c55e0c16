"""What overage costs: the one rule, for what is billed as an invoice item and for what is told to be unbilled. Pure."""

from dataclasses import dataclass

from control.billing.products import exact_price


@dataclass(frozen=True, slots=True)
class OveragePrice:
    """So many units cost `amount_minor`."""

    amount_minor: int
    units: int

    def of(self, units: int) -> int:
        """What so many units cost: by the unit, rounded half up, or by packages begun, as at Stripe."""
        if units <= 0:
            return 0
        if exact_price(self.amount_minor, self.units) is not None:
            return (2 * units * self.amount_minor + self.units) // (2 * self.units)
        return -(-units // self.units) * self.amount_minor

    def of_more(self, before: int, units: int) -> int:
        """What further units cost, of which `before` are paid for: the difference of the totals, so that however many
        parts there are, it is rounded once."""
        return self.of(before + units) - self.of(before)


def unbilled(owed: int, billed: int, billed_minor: int, price: OveragePrice) -> tuple[int, int]:
    """Of what is owed, the units that were not billed, and what they cost. `billed_minor`: in money, by which an
    invoice that counts packages is compared."""
    if billed >= owed or billed_minor >= price.of(owed):
        return 0, 0
    return owed - billed, price.of_more(billed, owed - billed)

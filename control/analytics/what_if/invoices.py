"""Invoices are made again from what is kept here: states of the subscription, the plans' prices, and usage. Pure.

What is on an invoice: the plan for the period that begins, overage of the one that ends, and, where a plan changed
within a period, what that gives back and costs. Discounts are those of the subscription. What somebody added by hand,
a coupon for one invoice, or tax is not known here: it shows as the difference between what is recorded and what is made
again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from control.analytics.what_if.replay import Sold
from control.analytics.what_if.sold_plans import SoldPlan
from control.sql.what_if import Invoice, PriceMeaning, SubscriptionState
from quota.periods import add_months

MONTHS = {"month": 1, "year": 12}
SECOND = 1.0

Repriced = Callable[[SoldPlan], SoldPlan]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is sold, and what prices at Stripe stand for."""

    plans: Mapping[tuple[str, int], SoldPlan]
    prices: Mapping[str, PriceMeaning]

    def plan_of(self, price: str) -> SoldPlan | None:
        """The plan whose own price it is."""
        meaning = self.prices.get(price)
        return None if meaning is None or meaning.meter is not None else self.plans.get((meaning.code, meaning.version))


@dataclass(frozen=True, slots=True)
class Remade:
    """One invoice: as it is recorded, and made again."""

    invoice: Invoice
    again_minor: int | None
    """None: something on it has a price that is not known here."""


class NotKnown(Exception):
    """A price is not in the catalogue, or there is none for the interval or in the currency."""


def remake(
    invoices: Sequence[Invoice],
    states: Sequence[SubscriptionState],
    anchors: Callable[[str, float], int | None],
    sold: Sequence[Sold],
    catalogue: Catalogue,
    repriced: Repriced,
) -> list[Remade]:
    """`anchors`: from where a subscription's periods were counted at a moment. `repriced`: the plan in place of the one
    that it was."""
    by_subscription: dict[str, list[SubscriptionState]] = {}
    for state in states:
        by_subscription.setdefault(state.subscription, []).append(state)
    remade, billed_until = [], dict[str, float]()
    for invoice in invoices:
        of_it = by_subscription.get(invoice.subscription, [])
        maker = _Maker(catalogue, repriced, of_it, sold, invoice.currency)
        at, anchor = invoice.created_at.timestamp(), anchors(invoice.subscription, invoice.created_at.timestamp())
        try:
            again: int | None = maker.total(invoice.billing_reason or "", at, anchor, billed_until)
        except NotKnown:
            again = None
        remade.append(Remade(invoice, again))
    return remade


@dataclass(frozen=True, slots=True)
class _Maker:
    catalogue: Catalogue
    repriced: Repriced
    states: Sequence[SubscriptionState]
    sold: Sequence[Sold]
    currency: str

    def total(self, reason: str, at: float, anchor: int | None, billed_until: dict[str, float]) -> int:
        before, after = self._state(at, strictly=True), self._state(at)
        if after is None:
            raise NotKnown
        match reason:
            case "subscription_create":
                lines = [] if after.status == "trialing" else self._plan_lines(after)
                return _discounted(sum(lines), after, at)
            case "subscription_cycle":
                lines = [] if after.status == "canceled" else self._plan_lines(after)
                usage = self._usage(before or after, at, billed_until)
                return _discounted(sum(lines) + usage, before or after, at)
            case "subscription_update":
                return self._change(before, after, at, anchor, billed_until)
        raise NotKnown

    def _state(self, at: float, *, strictly: bool = False) -> SubscriptionState | None:
        """At that moment, or just before it."""
        found = None
        for state in self.states:
            starts = state.valid_from.timestamp()
            if starts < at if strictly else starts < at + SECOND:
                found = state
        return found

    def _plan_lines(self, state: SubscriptionState) -> list[int]:
        return [self._amount(item) for item in state.items if not item["metered"]]

    def _amount(self, item: Mapping[str, Any]) -> int:
        was = self.catalogue.plan_of(item["price"])
        if was is None:
            if item["unit_amount"] is None:
                raise NotKnown
            return _rounded(Decimal(item["unit_amount"]) * int(item["quantity"]))
        plan = self.repriced(was)
        amount = plan.price_minor.get(item["interval"])
        if amount is None or plan.currency != self.currency:
            raise NotKnown
        return amount * int(item["quantity"])

    def _plan(self, state: SubscriptionState) -> SoldPlan | None:
        plans = [plan for item in state.items if (plan := self.catalogue.plan_of(item["price"])) is not None]
        return self.repriced(plans[0]) if plans else None

    def _usage(self, state: SubscriptionState, at: float, billed_until: dict[str, float]) -> int:
        """Overage since what was billed last, at the price of the plan that ends or goes on."""
        since = billed_until.get(state.subscription, 0.0)
        billed_until[state.subscription] = at
        plan = self._plan(state)
        if plan is None or state.status == "trialing":
            return 0
        total = 0
        for meter, terms in sorted(plan.meters.items()):
            begun = [each for each in self.sold if each.meter == meter and since <= each.at.timestamp() < at]
            if begun and terms.overage is not None:
                total += terms.overage.of(sum(each.units for each in begun))
        return total

    def _change(
        self,
        before: SubscriptionState | None,
        after: SubscriptionState,
        at: float,
        anchor: int | None,
        billed_until: dict[str, float],
    ) -> int:
        """What a change within a period gives back, and costs; or, where another rhythm begins, a whole period."""
        if before is None or anchor is None:
            raise NotKnown
        usage = 0
        if {each["price"] for each in before.items if each["metered"]} - {each["price"] for each in after.items}:
            usage = self._usage(before, at, billed_until)
        intervals = [next((i["interval"] for i in s.items if not i["metered"]), "month") for s in (before, after)]
        was, becomes = sum(self._plan_lines(before)), sum(self._plan_lines(after))
        start, end = _period(anchor, intervals[0], at)
        if intervals[0] != intervals[1]:
            return _discounted(becomes + usage, after, at) - _prorated(was, start, end, at)
        if was == becomes:
            return _discounted(usage, after, at)
        return _prorated(becomes, start, end, at) - _prorated(was, start, end, at) + _discounted(usage, after, at)


def _period(anchor: int, interval: str, at: float) -> tuple[int, int]:
    """The billing period that holds the moment."""
    months, number = MONTHS.get(interval, 1), 0
    while add_months(anchor, (number + 1) * months) <= at:
        number += 1
    return add_months(anchor, number * months), add_months(anchor, (number + 1) * months)


def _prorated(amount: int, start: int, end: int, at: float) -> int:
    return _rounded(Decimal(amount) * max(0, end - int(at)) / (end - start))


def _discounted(amount: int, state: SubscriptionState, at: float) -> int:
    """One discount after the other, each of what the ones before it have left."""
    for each in state.discounts:
        if each.get("ends_at") is not None and each["ends_at"] <= at:
            continue
        if each.get("percent_off") is not None:
            off = _rounded(Decimal(max(0, amount)) * Decimal(each["percent_off"]) / 100)
        else:
            off = min(max(0, amount), int(Decimal(each.get("amount_off") or 0)))
        amount -= off
    return amount


def _rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))

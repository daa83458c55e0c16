"""What is kept of a subscription as Stripe has it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from control.billing.history.annual_value import PERIODS_OF_YEAR, Definition, Discount, Item, annual_value
from control.billing.objects import Object, id_of


@dataclass(frozen=True, slots=True)
class Record:
    """A subscription, as far as it decides what it is worth."""

    subscription: str
    org: str
    customer: str
    status: str
    currency: str
    items: tuple[Item, ...]
    discounts: tuple[Discount, ...]
    created: int
    trial_start: int | None
    trial_end: int | None
    cancel_at: int | None
    ended_at: int | None

    @property
    def plan(self) -> str | None:
        """The plan whose own price it has."""
        return next((each.plan for each in self.items if each.plan is not None), None)

    @property
    def priced(self) -> bool:
        """Whether all that it is worth is known here."""
        items = all(each.metered or each.unit_amount is not None for each in self.items)
        discounts = (*self.discounts, *(discount for item in self.items for discount in item.discounts))
        return items and all(each.percent_off is not None or each.amount_off is not None for each in discounts)

    def annual(self, definition: Definition) -> Decimal:
        return annual_value(definition, self.status, self.items, self.discounts)


def record_of(subscription: Object, org: str, plans: Mapping[str, str]) -> Record:
    """`plans`: the plan that a price is the own one of, by the price's id."""
    return Record(
        subscription=subscription["id"],
        org=org,
        customer=id_of(subscription["customer"]) or "",
        status=subscription["status"],
        currency=str(subscription["currency"]).lower(),
        items=tuple(_item(each, plans) for each in subscription["items"]["data"]),
        discounts=_discounts(subscription) or _customers_discount(subscription),
        created=int(subscription["created"]),
        trial_start=subscription.get("trial_start"),
        trial_end=subscription.get("trial_end"),
        cancel_at=subscription.get("cancel_at"),
        ended_at=subscription.get("ended_at"),
    )


def _item(item: Object, plans: Mapping[str, str]) -> Item:
    price_id = id_of(item["price"]) or ""
    price: Mapping[str, Any] = item["price"] if isinstance(item["price"], dict) else {}
    recurring = price.get("recurring") or {}
    packages = price.get("transform_quantity") or {}
    amount = price.get("unit_amount_decimal")
    interval = str(recurring.get("interval", "month"))
    return Item(
        price=price_id,
        quantity=int(item.get("quantity") or 0),
        unit_amount=decimal(amount if amount is not None else price.get("unit_amount"))
        if interval in PERIODS_OF_YEAR
        else None,
        interval=interval if interval in PERIODS_OF_YEAR else "month",
        interval_count=max(1, int(recurring.get("interval_count") or 1)),
        metered=recurring.get("usage_type") == "metered",
        packaged_by=max(1, int(packages.get("divide_by") or 1)),
        packages_round_up=packages.get("round", "up") == "up",
        plan=plans.get(price_id),
        discounts=_discounts(item),
    )


def _discounts(of: Object) -> tuple[Discount, ...]:
    found = []
    for each in of.get("discounts") or []:
        source = (each.get("source") or {}) if isinstance(each, dict) else {}
        coupon = source.get("coupon")
        terms: Mapping[str, Any] = coupon if isinstance(coupon, dict) else {}
        found.append(
            Discount(
                coupon=id_of(coupon) or id_of(each) or "",
                duration=str(terms.get("duration") or "unknown"),
                percent_off=decimal(terms.get("percent_off")),
                amount_off=decimal(terms.get("amount_off")),
                ends_at=each.get("end") if isinstance(each, dict) else None,
            )
        )
    return tuple(found)


def _customers_discount(subscription: Object) -> tuple[Discount, ...]:
    """A customer's own discount is for subscriptions that have none."""
    customer = subscription["customer"]
    discount = customer.get("discount") if isinstance(customer, dict) else None
    return _discounts({"discounts": [discount]}) if discount else ()


def decimal(value: Any) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        return None

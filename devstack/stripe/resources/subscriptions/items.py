"""What a subscription consists of: its items, their periods, and what they cost."""

from collections.abc import Sequence

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.resources import amounts, invoices, products
from quota.periods import add_months

DAY = 86_400


def item_of(account: Account, subscription_id: str, price: Object, params: Object, start: int, end: int) -> Object:
    item: Object = {
        "id": account.new_id("si"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": account.clock.now(),
        "current_trial": None,
        "current_period_end": end,
        "current_period_start": start,
        "discounts": [],
        "metadata": params.get("metadata") or {},
        "plan": products.plan_of(price),
        "price": price,
        "subscription": subscription_id,
        "tax_rates": [],
    }
    return item if metered(item) else {**item, "quantity": params.get("quantity", 1)}


def check_prices(subscription_currency: str, prices: Sequence[Object]) -> None:
    """One subscription has one interval and one currency. Raises RequestRefused.

    https://docs.stripe.com/billing/subscriptions/mixed-interval, https://docs.stripe.com/billing/customer#currency"""
    if len({(p["recurring"]["interval"], p["recurring"]["interval_count"]) for p in prices}) > 1:
        raise RequestRefused("All prices of a subscription must have the same interval.", param="items")
    for each in prices:
        if each["currency"] != subscription_currency:
            message = (
                f"The price specified only supports `{each['currency']}`. This doesn't match the expected currency:"
                f" `{subscription_currency}`."
            )
            raise RequestRefused(message, param="items")


def metered(item: Object) -> bool:
    return bool(item["price"]["recurring"]["usage_type"] == "metered")


def interval_of(items: Sequence[Object]) -> tuple[str, int]:
    recurring = items[0]["price"]["recurring"]
    return recurring["interval"], recurring["interval_count"]


def added(anchor: int, price: Object, periods: int) -> int:
    """The moment so many periods of the price after the anchor."""
    interval, count = price["recurring"]["interval"], int(price["recurring"]["interval_count"]) * periods
    match interval:
        case "month":
            return add_months(anchor, count)
        case "year":
            return add_months(anchor, 12 * count)
        case "week":
            return anchor + 7 * DAY * count
        case _:
            return anchor + DAY * count


def next_end(subscription: Object, start: int, price: Object) -> int:
    """The end of the period that starts then, counted from the anchor so that day 31 comes back."""
    anchor, number = subscription["billing_cycle_anchor"], 0
    while added(anchor, price, number) <= start:
        number += 1
    return added(anchor, price, number)


def licensed_lines(account: Account, subscription: Object, *, free: bool = False) -> list[Object]:
    """What the current period costs, apart from usage. `free`: it is a trial."""
    lines = []
    for item in subscription["items"]["data"]:
        if not metered(item):
            period = (item["current_period_start"], item["current_period_end"])
            amount = 0 if free else amounts.amount_of(item["price"], item["quantity"])
            text = "Trial period" if free else f"{item['quantity']} x {item['price']['product']}"
            lines.append(
                invoices.line(
                    account, subscription, item["price"], amount, item["quantity"], period, text, item=item["id"]
                )
            )
    return lines


def usage_of(subscription: Object) -> list[invoices.Usage]:
    """What is used of its metered items in the current period."""
    return [
        invoices.Usage(item["id"], item["price"]["id"], counts_from(item), item["current_period_end"])
        for item in subscription["items"]["data"]
        if metered(item)
    ]


def counts_from(item: Object) -> int:
    """The start of an item's usage: an item that came in mid-period counts from then on."""
    start, created = int(item["current_period_start"]), int(item["created"])
    return created + 1 if created > start else start


def restart(account: Account, subscription: Object, at: int) -> None:
    """A new period begins, and with it a new billing cycle."""
    subscription["billing_cycle_anchor"] = at
    for item in subscription["items"]["data"]:
        item["current_period_start"], item["current_period_end"] = at, added(at, item["price"], 1)
    account.at(subscription["items"]["data"][0]["current_period_end"], "renew", subscription["id"])

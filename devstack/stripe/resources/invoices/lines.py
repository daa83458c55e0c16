"""The lines of an invoice: of a subscription's item, or of an invoice item."""

from devstack.stripe.account import Account, Object


def line(
    account: Account,
    subscription: Object,
    price: Object,
    amount: int,
    quantity: int | None,
    period: tuple[int, int],
    description: str,
    *,
    item: str,
    proration: bool = False,
) -> Object:
    """A line of a subscription's item, which is on no invoice yet."""
    return {
        **_common(account, price["currency"], amount, subscription["id"]),
        "description": description,
        "discountable": not proration,
        "invoice": None,
        "metadata": {},
        "parent": {
            "type": "subscription_item_details",
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": proration,
                "proration_details": None,
                "subscription": subscription["id"],
                "subscription_item": item,
            },
        },
        "period": {"start": period[0], "end": period[1]},
        "pricing": {
            "type": "price_details",
            "price_details": {"price": price["id"], "product": price["product"]},
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity,
        "quantity_decimal": None if quantity is None else str(quantity),
    }


def line_of_item(account: Account, item: Object) -> Object:
    """The line of an invoice item, on the invoice that the item names."""
    subscription_id = item["parent"] and item["parent"]["subscription_details"]["subscription"]
    return {
        **_common(account, item["currency"], item["amount"], subscription_id),
        "description": item["description"],
        "discountable": item["discountable"],
        "invoice": item["invoice"],
        "metadata": dict(item["metadata"]),
        "parent": {
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": None,
                "subscription": subscription_id,
            },
            "subscription_item_details": None,
        },
        "period": dict(item["period"]),
        "pricing": dict(item["pricing"]),
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
    }


def item_of_line(line: Object) -> str | None:
    """The invoice item that a line is of; None for a line of a subscription's item."""
    details = line["parent"]["invoice_item_details"] or {}
    return details.get("invoice_item")


def _common(account: Account, currency: str, amount: int, subscription_id: str | None) -> Object:
    return {
        "id": account.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "discount_amounts": [],
        "discounts": [],
        "livemode": False,
        "pretax_credit_amounts": [],
        "subscription": subscription_id,
        "subtotal": amount,
        "taxes": [],
    }

"""Invoice items: single amounts that are added to a draft, or wait for a customer's next invoice.

https://docs.stripe.com/api/invoiceitems
"""

from devstack.stripe.account import Account, Object, RequestRefused, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import amounts, customers, invoices


@route("POST", "/v1/invoiceitems", "InvoiceItemCreateParams")
def create(account: Account, params: Object) -> Object:
    customer = customers.alive(account, params.get("customer", ""))
    check_amount(params)
    currency = params.get("currency") or customer["currency"]
    if currency is None:
        raise RequestRefused("Missing required param: currency.", code="parameter_missing", param="currency")
    _check_subscription(account, params.get("subscription"), customer)
    invoice = account.get("invoice", params["invoice"]) if params.get("invoice") else None
    if invoice is not None:
        check_invoice(invoice, customer, currency)
    item = account.add(_new_item(account, params, customer, currency))
    account.emit("invoiceitem.created", item)
    if invoice is not None:
        invoices.put_on(account, invoice, item)
    return item


@route("GET", "/v1/invoiceitems", "InvoiceItemListParams")
def list_(account: Account, params: Object) -> Object:
    pending = params.get("pending")
    items = (
        {**item, "created": item["date"]}
        for item in account.find("invoiceitem", customer=params.get("customer"), invoice=params.get("invoice"))
        if pending is None or pending == (item["invoice"] is None)
    )
    page = listing(items, params, "/v1/invoiceitems")
    page["data"] = [{name: value for name, value in item.items() if name != "created"} for item in page["data"]]
    return page


@route("GET", "/v1/invoiceitems/{item_id}", "InvoiceItemRetrieveParams")
def retrieve(account: Account, params: Object, item_id: str) -> Object:
    return account.get("invoiceitem", item_id)


@route("DELETE", "/v1/invoiceitems/{item_id}")
def delete(account: Account, params: Object, item_id: str) -> Object:
    item = account.get("invoiceitem", item_id)
    invoice = None if item["invoice"] is None else account.get("invoice", item["invoice"])
    if invoice is not None and invoice["status"] != "draft":
        raise RequestRefused(
            "Items of an invoice that is final cannot be deleted.", code="invoice_not_editable", param="id"
        )
    if invoice is not None:
        invoices.take_off(account, invoice, item)
    account.emit("invoiceitem.deleted", item)
    del account.objects["invoiceitem"][item_id]
    return {"id": item_id, "object": "invoiceitem", "deleted": True}


def check_amount(params: Object) -> None:
    """Raises RequestRefused."""
    amount = params.get("amount")
    if (amount is None) == (params.get("unit_amount_decimal") is None):
        raise RequestRefused("You must pass exactly one of amount and unit_amount_decimal.", param="amount")
    if amount is not None and "quantity" in params:
        raise RequestRefused("quantity goes with unit_amount_decimal, not with amount.", param="quantity")


def check_invoice(invoice: Object, customer: Object, currency: str) -> None:
    """Raises RequestRefused where an item of this customer cannot be added to it."""
    if invoice["status"] != "draft":
        message = "Invoice items can only be added to a draft invoice, and this one is final."
        raise RequestRefused(message, code="invoice_not_editable", param="invoice")
    if (invoice["customer"], invoice["currency"]) != (customer["id"], currency):
        raise RequestRefused("The invoice is another customer's, or in another currency.", param="invoice")


def _check_subscription(account: Account, subscription_id: str | None, customer: Object) -> None:
    """Raises RequestRefused where it is another customer's."""
    if subscription_id and account.get("subscription", subscription_id)["customer"] != customer["id"]:
        message = f"No such subscription: '{subscription_id}'"
        raise RequestRefused(message, code="resource_missing", param="subscription")


def _new_item(account: Account, params: Object, customer: Object, currency: str) -> Object:
    now, quantity = account.clock.now(), params.get("quantity", 1)
    amount, unit_amount = params.get("amount"), params.get("unit_amount_decimal")
    if amount is None:
        amount = amounts.rounded(unit_amount * quantity)
    return {
        "id": account.new_id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer["id"],
        "date": now,
        "description": params.get("description"),
        "discountable": params.get("discountable", amount >= 0),
        "discounts": [],
        "invoice": params.get("invoice"),
        "livemode": False,
        "metadata": params.get("metadata") or {},
        "parent": _parent(params.get("subscription")),
        "period": params.get("period") or {"start": now, "end": now},
        "pricing": {
            "type": "price_details",
            "price_details": None,
            "unit_amount_decimal": str(amount if unit_amount is None else unit_amount),
        },
        "proration": False,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        **unused("customer_account proration_details test_clock"),
    }


def _parent(subscription_id: str | None) -> Object | None:
    if not subscription_id:
        return None
    return {
        "type": "subscription_details",
        "subscription_details": {"subscription": subscription_id, "subscription_item": None},
    }

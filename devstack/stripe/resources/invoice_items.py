"""Invoice items: single amounts that go onto a draft, or wait for a customer's next invoice.

https://docs.stripe.com/api/invoiceitems
"""

from devstack.stripe.account import Account, Object, RequestRefused, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import amounts, customers, invoices


@route("POST", "/v1/invoiceitems", "InvoiceItemCreateParams")
def create(account: Account, params: Object) -> Object:
    customer = customers.alive(account, params.get("customer", ""))
    amount, quantity = params.get("amount"), params.get("quantity", 1)
    each = params.get("unit_amount_decimal")
    if (amount is None) == (each is None):
        raise RequestRefused("You must pass exactly one of amount and unit_amount_decimal.", param="amount")
    if amount is not None and "quantity" in params:
        raise RequestRefused("quantity goes with unit_amount_decimal, not with amount.", param="quantity")
    now, currency = account.clock.now(), params.get("currency") or customer["currency"]
    if currency is None:
        raise RequestRefused("Missing required param: currency.", code="parameter_missing", param="currency")
    invoice, subscription = params.get("invoice"), params.get("subscription")
    if subscription and account.get("subscription", subscription)["customer"] != customer["id"]:
        raise RequestRefused(f"No such subscription: '{subscription}'", code="resource_missing", param="subscription")
    if invoice:
        onto = account.get("invoice", invoice)
        if onto["status"] != "draft":
            message = "Invoice items can only be added to a draft invoice, and this one is final."
            raise RequestRefused(message, code="invoice_not_editable", param="invoice")
        if (onto["customer"], onto["currency"]) != (customer["id"], currency):
            raise RequestRefused("The invoice is another customer's, or in another currency.", param="invoice")
    cost = amount if amount is not None else amounts.rounded(each * quantity)
    item = account.add(
        {
            "id": account.new_id("ii"),
            "object": "invoiceitem",
            "amount": cost,
            "currency": currency,
            "customer": customer["id"],
            "date": now,
            "description": params.get("description"),
            "discountable": params.get("discountable", cost >= 0),
            "discounts": [],
            "invoice": invoice,
            "livemode": False,
            "metadata": params.get("metadata") or {},
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": subscription, "subscription_item": None},
            }
            if subscription
            else None,
            "period": params.get("period") or {"start": now, "end": now},
            "pricing": {
                "type": "price_details",
                "price_details": None,
                "unit_amount_decimal": str(cost if each is None else each),
            },
            "proration": False,
            "quantity": quantity,
            "quantity_decimal": str(quantity),
            "tax_rates": [],
            **unused("customer_account proration_details test_clock"),
        }
    )
    account.emit("invoiceitem.created", item)
    if invoice:
        invoices.put_on(account, account.get("invoice", invoice), item)
    return item


@route("GET", "/v1/invoiceitems", "InvoiceItemListParams")
def list_(account: Account, params: Object) -> Object:
    pending = params.get("pending")
    found = (
        {**each, "created": each["date"]}
        for each in account.find("invoiceitem", customer=params.get("customer"), invoice=params.get("invoice"))
        if pending is None or pending == (each["invoice"] is None)
    )
    page = listing(found, params, "/v1/invoiceitems")
    page["data"] = [{name: value for name, value in each.items() if name != "created"} for each in page["data"]]
    return page


@route("GET", "/v1/invoiceitems/{item}", "InvoiceItemRetrieveParams")
def retrieve(account: Account, params: Object, item: str) -> Object:
    return account.get("invoiceitem", item)


@route("DELETE", "/v1/invoiceitems/{item}")
def delete(account: Account, params: Object, item: str) -> Object:
    found = account.get("invoiceitem", item)
    if found["invoice"] is not None and account.get("invoice", found["invoice"])["status"] != "draft":
        raise RequestRefused(
            "Items of an invoice that is final cannot be deleted.", code="invoice_not_editable", param="id"
        )
    if found["invoice"] is not None:
        invoices.take_off(account, account.get("invoice", found["invoice"]), found)
    account.emit("invoiceitem.deleted", found)
    del account.objects["invoiceitem"][item]
    return {"id": item, "object": "invoiceitem", "deleted": True}

"""Invoices: drafted, finalized an hour later, paid or not, and tried again."""

from collections.abc import Sequence
from typing import Any

from devstack.stripe.account import Account, Object, Occurrence, RequestRefused, timer, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import amounts, customers, meters

DRAFT_SECONDS = 3600
RETRY_DAYS = (3, 5, 7)  # after one another: Stripe's "smart" ones differ by card, these are its classic ones


def draft(
    account: Account,
    customer: Object,
    subscription: Object | None,
    reason: str,
    lines: Sequence[Object],
    period: tuple[int, int],
    metered: Sequence[tuple[str, str, int, int]] = (),
) -> Object:
    """`metered`: item, price, start and end of usage that is billed with it, counted when it is finalized."""
    now = account.clock.now()
    invoice_id = account.new_id("in")
    parent = subscription and {
        "type": "subscription_details",
        "quote_details": None,
        "subscription_details": {"metadata": subscription["metadata"], "subscription": subscription["id"]},
    }
    invoice = account.add(
        {
            "id": invoice_id,
            "object": "invoice",
            "account_country": "US",
            "account_name": "Double",
            "account_tax_ids": None,
            "amount_due": 0,
            "amount_overpaid": 0,
            "amount_paid": 0,
            "amount_remaining": 0,
            "amount_shipping": 0,
            "application": None,
            "attempt_count": 0,
            "attempted": False,
            "auto_advance": True,
            "automatic_tax": {
                "enabled": bool(subscription and subscription["automatic_tax"]["enabled"]),
                "disabled_reason": None,
                "liability": None,
                "provider": None,
                "status": "complete" if subscription and subscription["automatic_tax"]["enabled"] else None,
            },
            "automatically_finalizes_at": None,
            "billing_reason": reason,
            "collection_method": subscription["collection_method"] if subscription else "charge_automatically",
            "created": now,
            "currency": lines[0]["currency"] if lines else (subscription or customer)["currency"],
            "custom_fields": None,
            "customer": customer["id"],
            "customer_account": None,
            "customer_address": customer["address"],
            "customer_email": customer["email"],
            "customer_name": customer["name"],
            "customer_phone": None,
            "customer_shipping": None,
            "customer_tax_exempt": "none",
            "customer_tax_ids": [],
            "default_payment_method": None,
            "default_source": None,
            "default_tax_rates": [],
            "description": None,
            "discounts": list(subscription["discounts"]) if subscription else [],
            "due_date": None,
            "effective_at": None,
            "ending_balance": None,
            "footer": None,
            "from_invoice": None,
            "hosted_invoice_url": None,
            "invoice_pdf": None,
            "issuer": {"type": "self"},
            "last_finalization_error": None,
            "latest_revision": None,
            "lines": {
                "object": "list",
                "data": list(lines),
                "has_more": False,
                "url": f"/v1/invoices/{invoice_id}/lines",
            },
            "livemode": False,
            "metadata": {},
            "next_payment_attempt": None,
            "number": None,
            "on_behalf_of": None,
            "parent": parent,
            "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
            "period_end": period[1],
            "period_start": period[0],
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "receipt_number": None,
            "rendering": None,
            "shipping_cost": None,
            "shipping_details": None,
            "starting_balance": 0,
            "statement_descriptor": None,
            "status": "draft",
            "status_transitions": {
                "finalized_at": None,
                "marked_uncollectible_at": None,
                "paid_at": None,
                "voided_at": None,
            },
            "subtotal": 0,
            "subtotal_excluding_tax": 0,
            "test_clock": None,
            "total": 0,
            "total_discount_amounts": [],
            "total_excluding_tax": 0,
            "total_pretax_credit_amounts": [],
            "total_taxes": [],
            "webhooks_delivered_at": None,
        }
    )
    for each in lines:
        each["invoice"] = invoice_id
    account.note(invoice_id)["metered"] = [list(each) for each in metered]
    for each in pending_of(account, customer["id"], subscription):
        if each["currency"] == invoice["currency"]:
            each["invoice"] = invoice_id
            invoice["lines"]["data"].append(_item_line(account, each))
    _add_up(account, invoice)
    if subscription is not None:
        subscription["latest_invoice"] = invoice_id
    account.emit("invoice.created", invoice)
    return invoice


def pending_of(account: Account, customer: str, subscription: Object | None) -> list[Object]:
    """Invoice items that wait for the next invoice, the oldest first: those of a subscription for its own.

    https://docs.stripe.com/billing/invoices/subscription#adding-upcoming-invoice-items"""
    own = subscription and subscription["id"]
    found = [
        each
        for each in account.find("invoiceitem", customer=customer)
        if each["invoice"] is None
        and (each["parent"] is None or each["parent"]["subscription_details"]["subscription"] == own)
    ]
    return found[::-1]


def put_on(account: Account, invoice: Object, item: Object) -> None:
    invoice["lines"]["data"].append(_item_line(account, item))
    _add_up(account, invoice)
    account.emit("invoice.updated", invoice)


def take_off(account: Account, invoice: Object, item: Object) -> None:
    lines = invoice["lines"]["data"]
    lines[:] = [
        each for each in lines if (each["parent"]["invoice_item_details"] or {}).get("invoice_item") != item["id"]
    ]
    _add_up(account, invoice)
    account.emit("invoice.updated", invoice)


def _item_line(account: Account, item: Object) -> Object:
    of = item["parent"] and item["parent"]["subscription_details"]["subscription"]
    return {
        "id": account.new_id("il"),
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discount_amounts": [],
        "discountable": item["discountable"],
        "discounts": [],
        "invoice": item["invoice"],
        "livemode": False,
        "metadata": dict(item["metadata"]),
        "parent": {
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": None,
                "subscription": of,
            },
            "subscription_item_details": None,
        },
        "period": dict(item["period"]),
        "pretax_credit_amounts": [],
        "pricing": dict(item["pricing"]),
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subscription": of,
        "subtotal": item["amount"],
        "taxes": [],
    }


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
    return {
        "id": account.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": not proration,
        "discounts": [],
        "invoice": None,
        "livemode": False,
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
        "pretax_credit_amounts": [],
        "pricing": {
            "type": "price_details",
            "price_details": {"price": price["id"], "product": price["product"]},
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity,
        "quantity_decimal": None if quantity is None else str(quantity),
        "subscription": subscription["id"],
        "subtotal": amount,
        "taxes": [],
    }


def finalize(account: Account, invoice: Object) -> None:
    if invoice["status"] != "draft":
        return
    _add_metered(account, invoice)
    _add_up(account, invoice)
    now, customer = account.clock.now(), account.get("customer", invoice["customer"])
    numbers = account.note("numbers")
    numbers["invoice"] = numbers.get("invoice", 0) + 1
    invoice["number"] = f"{customer.get('invoice_prefix', 'GONE')}-{numbers['invoice']:04d}"
    invoice["starting_balance"] = customers.balance_in(account, customer, invoice["currency"])
    _take_balance(account, invoice, customer)
    invoice["status"], invoice["effective_at"] = "open", now
    invoice["status_transitions"]["finalized_at"] = now
    invoice["hosted_invoice_url"] = f"{account.settings.get('url', '')}/invoice/{invoice['id']}"
    invoice["invoice_pdf"] = f"{invoice['hosted_invoice_url']}/pdf"
    subscription = subscription_of(account, invoice)
    if invoice["collection_method"] == "send_invoice" and subscription is not None:
        invoice["due_date"] = now + subscription["days_until_due"] * 86_400
        account.at(invoice["due_date"], "due", invoice["id"])
    account.emit("invoice.finalized", invoice)
    if invoice["due_date"] is not None:
        account.emit("invoice.sent", invoice)


def attempt(account: Account, invoice: Object, *, final: bool = False, by_hand: bool = False) -> bool:
    """Tries to have it paid; whether it is, or nobody need pay yet. `final`: nobody will try again by himself.
    `by_hand`: the customer does it; one that was sent waits for that."""
    if invoice["status"] != "open":
        return bool(invoice["status"] == "paid")
    if invoice["amount_remaining"] == 0:
        _paid(account, invoice)
        return True
    if invoice["collection_method"] == "send_invoice" and not by_hand:
        return True
    customer = account.get("customer", invoice["customer"])
    subscription = subscription_of(account, invoice)
    card = customers.card_of(account, customer, subscription)
    invoice["attempted"], invoice["attempt_count"] = True, invoice["attempt_count"] + 1
    payment = _payment(account, invoice, card, customers.method_of(customer, subscription))
    if card == "good":
        invoice["amount_paid"], invoice["amount_remaining"] = invoice["amount_due"], 0
        invoice["next_payment_attempt"] = None
        account.emit("charge.succeeded", payment["charge"])
        account.emit("payment_intent.succeeded", payment["intent"])
        _paid(account, invoice)
        return True
    tried = invoice["attempt_count"]
    if not final and tried <= len(RETRY_DAYS):
        due = account.clock.now() + RETRY_DAYS[tried - 1] * 86_400
        invoice["next_payment_attempt"] = due
        account.at(due, "retry", invoice["id"])
    else:
        invoice["next_payment_attempt"] = None
    account.emit("charge.failed", payment["charge"])
    account.emit("payment_intent.payment_failed", payment["intent"])
    account.emit("invoice.payment_failed", invoice)
    if card == "needs_action":
        account.emit("invoice.payment_action_required", invoice)
    return False


def void(account: Account, invoice: Object) -> None:
    if invoice["status"] not in ("open", "draft", "uncollectible"):
        raise RequestRefused("This invoice can not be voided.", code="invoice_not_editable")
    invoice["status"], invoice["next_payment_attempt"] = "void", None
    invoice["amount_remaining"] = 0
    invoice["status_transitions"]["voided_at"] = account.clock.now()
    account.emit("invoice.voided", invoice)


def subscription_of(account: Account, invoice: Object) -> Object | None:
    details = (invoice["parent"] or {}).get("subscription_details")
    return account.objects.get("subscription", {}).get(details["subscription"]) if details else None


def open_of(account: Account, subscription: Object) -> list[Object]:
    """The newest first."""
    return [
        each
        for each in account.find("invoice", status="open")
        if (found := subscription_of(account, each)) is not None and found["id"] == subscription["id"]
    ]


def _paid(account: Account, invoice: Object) -> None:
    invoice["status"], invoice["attempted"] = "paid", True
    invoice["status_transitions"]["paid_at"] = account.clock.now()
    account.emit("invoice.paid", invoice)
    account.emit("invoice.payment_succeeded", invoice)
    account.follow_up(Occurrence.INVOICE_PAID, invoice)


def _payment(account: Account, invoice: Object, card: str, method: str | None) -> Object:
    now, amount, good = account.clock.now(), invoice["amount_remaining"], card == "good"
    common = {"amount": amount, "created": now, "currency": invoice["currency"], "customer": invoice["customer"]}
    status = "succeeded" if good else "requires_action" if card == "needs_action" else "requires_payment_method"
    intent = account.add(
        {
            **common,
            "id": account.new_id("pi"),
            "object": "payment_intent",
            "amount_capturable": 0,
            "amount_received": amount if good else 0,
            "capture_method": "automatic",
            "client_secret": account.new_id("secret"),
            "confirmation_method": "automatic",
            "latest_charge": None,
            "livemode": False,
            "metadata": {},
            "payment_method": method,
            "payment_method_types": ["card"],
            "status": status,
            **unused(
                "allowed_payment_method_types application application_fee_amount automatic_payment_methods canceled_at"
                " cancellation_reason customer_account description excluded_payment_method_types last_payment_error"
                " managed_payments next_action on_behalf_of payment_method_configuration_details payment_method_options"
                " payment_record processing receipt_email review setup_future_usage shipping source"
                " statement_descriptor statement_descriptor_suffix transfer_data transfer_group"
            ),
        }
    )
    charge = account.add(
        {
            **common,
            "id": account.new_id("ch"),
            "object": "charge",
            "amount_captured": amount if good else 0,
            "amount_refunded": 0,
            "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
            "captured": good,
            "disputed": False,
            "failure_code": None if good else "card_declined",
            "failure_message": None if good else "Your card was declined.",
            "livemode": False,
            "metadata": {},
            "paid": good,
            "payment_intent": intent["id"],
            "payment_method": method,
            "refunded": False,
            "status": "succeeded" if good else "failed",
            **unused(
                "application application_fee application_fee_amount balance_transaction calculated_statement_descriptor"
                " description failure_balance_transaction fraud_details on_behalf_of outcome payment_method_details"
                " receipt_email receipt_number receipt_url review shipping source source_transfer statement_descriptor"
                " statement_descriptor_suffix transfer_data transfer_group"
            ),
        }
    )
    intent["latest_charge"] = charge["id"]
    account.add(
        {
            "id": account.new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": amount if good else None,
            "amount_requested": amount,
            "created": now,
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
            "status": "paid" if good else "open",
            "status_transitions": {"canceled_at": None, "paid_at": now if good else None},
        }
    )
    return {"intent": intent, "charge": charge}


def _add_metered(account: Account, invoice: Object) -> None:
    subscription = subscription_of(account, invoice)
    if subscription is None:
        return
    for item, price_id, start, end in account.note(invoice["id"]).get("metered", []):
        price = account.get("price", price_id)
        used = max(0, meters.usage(account, price["recurring"]["meter"], invoice["customer"], start, end))
        made = line(
            account, subscription, price, amounts.amount_of(price, used), used, (start, end), "Usage", item=item
        )
        made["invoice"] = invoice["id"]
        invoice["lines"]["data"].append(made)
    account.note(invoice["id"])["metered"] = []


def _add_up(account: Account, invoice: Object) -> None:
    lines = invoice["lines"]["data"]
    subtotal = sum(each["amount"] for each in lines)
    left, discounts = sum(each["amount"] for each in lines if each["discountable"]), []
    for discount_id in invoice["discounts"]:
        discount = account.get("discount", discount_id)
        off = amounts.discount_of(max(0, left), account.get("coupon", discount["source"]["coupon"]))
        left -= off
        discounts.append({"amount": off, "discount": discount_id})
    off = sum(each["amount"] for each in discounts)
    tax = amounts.tax_of(max(0, subtotal - off)) if invoice["automatic_tax"]["enabled"] else 0
    invoice["subtotal"] = invoice["subtotal_excluding_tax"] = subtotal
    invoice["total_discount_amounts"] = discounts
    invoice["total_excluding_tax"] = subtotal - off
    invoice["total_taxes"] = (
        [
            {
                "amount": tax,
                "tax_behavior": "exclusive",
                "tax_rate_details": {"tax_rate": "txr_double"},
                "taxability_reason": "standard_rated",
                "taxable_amount": subtotal - off,
                "type": "tax_rate_details",
            }
        ]
        if tax
        else []
    )
    invoice["total"] = subtotal - off + tax
    invoice["amount_due"] = invoice["amount_remaining"] = max(0, invoice["total"])


def _take_balance(account: Account, invoice: Object, customer: Object) -> None:
    total, balance = invoice["total"], customers.balance_in(account, customer, invoice["currency"])
    if total < 0:
        used = -total  # what it gives back is credit for the next ones
        customers.change_balance(
            account, customer, total, invoice["currency"], type="applied_to_invoice", invoice=invoice["id"]
        )
    else:
        used = min(total, -balance) if balance < 0 else 0
        if used:
            customers.change_balance(
                account, customer, used, invoice["currency"], type="applied_to_invoice", invoice=invoice["id"]
            )
    if total >= 0:
        invoice["amount_due"] = invoice["amount_remaining"] = total - used
    invoice["ending_balance"] = customers.balance_in(account, customer, invoice["currency"])


@timer("finalize")
def _finalize_due(account: Account, invoice_id: str) -> None:
    invoice = account.objects.get("invoice", {}).get(invoice_id)
    if invoice is None or invoice["status"] != "draft" or not invoice["auto_advance"]:
        return
    finalize(account, invoice)
    if not attempt(account, invoice):
        account.follow_up(Occurrence.PAYMENT_FAILED, invoice)


@timer("due")
def _due(account: Account, invoice_id: str) -> None:
    invoice = account.get("invoice", invoice_id)
    if invoice["status"] == "open" and (invoice["due_date"] or 0) <= account.clock.now():
        account.emit("invoice.overdue", invoice)
        account.follow_up(Occurrence.INVOICE_OVERDUE, invoice)


@timer("retry")
def _retry_due(account: Account, invoice_id: str) -> None:
    invoice = account.get("invoice", invoice_id)
    if invoice["status"] == "open" and not attempt(account, invoice):
        account.follow_up(Occurrence.PAYMENT_FAILED, invoice)


@route("GET", "/v1/invoices", "InvoiceListParams")
def list_(account: Account, params: Object) -> Object:
    subscription = params.get("subscription")
    found = (
        each
        for each in account.find(
            "invoice",
            customer=params.get("customer"),
            status=params.get("status"),
            collection_method=params.get("collection_method"),
        )
        if subscription is None
        or ((each["parent"] or {}).get("subscription_details") or {}).get("subscription") == subscription
    )
    return listing(found, params, "/v1/invoices")


@route("GET", "/v1/invoices/{invoice}", "InvoiceRetrieveParams")
def retrieve(account: Account, params: Object, invoice: str) -> Object:
    return account.get("invoice", invoice)


@route("GET", "/v1/invoices/{invoice}/lines", "InvoiceLineItemListParams")
def list_lines(account: Account, params: Object, invoice: str) -> Object:
    return listing(account.get("invoice", invoice)["lines"]["data"], params, f"/v1/invoices/{invoice}/lines")


@route("POST", "/v1/invoices/{invoice}/finalize", "InvoiceFinalizeInvoiceParams")
def finalize_now(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    if found["status"] != "draft":
        raise RequestRefused("This invoice is already finalized.", code="invoice_not_editable")
    found["auto_advance"] = params.get("auto_advance", found["auto_advance"])
    finalize(account, found)
    return found


@route("POST", "/v1/invoices/{invoice}/pay", "InvoicePayParams")
def pay(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    if found["status"] != "open":
        raise RequestRefused(f"Invoice is {found['status']}, not open.", code="invoice_already_paid")
    if not attempt(account, found, by_hand=True):
        raise RequestRefused("Your card was declined.", status=402, kind="card_error", code="card_declined")
    return found


@route("POST", "/v1/invoices/{invoice}/void", "InvoiceVoidInvoiceParams")
def void_now(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    void(account, found)
    return found


@route("POST", "/v1/invoices/{invoice}/mark_uncollectible", "InvoiceMarkUncollectibleParams")
def mark_uncollectible(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    if found["status"] != "open":  # https://docs.stripe.com/invoicing/overview#invoice-statuses
        message = f"You can only mark an open invoice as uncollectible, and this one is {found['status']}."
        raise RequestRefused(message, code="invoice_not_editable")
    found["status"], found["next_payment_attempt"] = "uncollectible", None
    found["status_transitions"]["marked_uncollectible_at"] = account.clock.now()
    account.emit("invoice.marked_uncollectible", found)
    return found


@route("GET", "/v1/invoice_payments", "InvoicePaymentListParams")
def list_payments(account: Account, params: Object) -> Object:
    found = account.find("invoice_payment", invoice=params.get("invoice"), status=params.get("status"))
    return listing(found, params, "/v1/invoice_payments")


def intent_of(account: Account, invoice: Object) -> Any:
    """The payment intent that paid it; None where none did."""
    for each in account.find("invoice_payment", invoice=invoice["id"], status="paid"):
        return account.get("payment_intent", each["payment"]["payment_intent"])
    return None

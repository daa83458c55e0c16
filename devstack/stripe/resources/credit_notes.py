"""Credit notes: what an invoice is made less by, before it is paid or after.

https://docs.stripe.com/api/credit_notes
"""

from devstack.stripe.account import Account, Object, RequestRefused, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import customers, invoices
from devstack.stripe.resources.refunds import refund_payment


@route("POST", "/v1/credit_notes", "CreditNoteCreateParams")
def create(account: Account, params: Object) -> Object:
    invoice = account.get("invoice", params["invoice"])
    earlier = list(account.find("credit_note", invoice=invoice["id"]))
    credited = sum(note["total"] for note in earlier if note["status"] == "issued")
    check_amounts(invoice, params, credited)
    note = account.add(_new_note(account, invoice, params, number=len(earlier) + 1))
    if invoice["status"] == "open":
        _reduce(account, invoice, note["amount"])
    else:
        invoice["post_payment_credit_notes_amount"] += note["amount"]
        _credit(account, invoice, note, params.get("credit_amount", 0))
        _refund(account, invoice, note, params.get("refund_amount", 0))
    account.emit("credit_note.created", note)
    return note


@route("GET", "/v1/credit_notes", "CreditNoteListParams")
def list_(account: Account, params: Object) -> Object:
    notes = account.find("credit_note", invoice=params.get("invoice"), customer=params.get("customer"))
    return listing(notes, params, "/v1/credit_notes")


@route("GET", "/v1/credit_notes/{note_id}", "CreditNoteRetrieveParams")
def retrieve(account: Account, params: Object, note_id: str) -> Object:
    return account.get("credit_note", note_id)


def check_amounts(invoice: Object, params: Object, credited: int) -> None:
    """`credited`: by earlier credit notes of the invoice. Raises RequestRefused."""
    if invoice["status"] not in ("open", "paid"):
        raise RequestRefused("Credit notes can only be made for open or paid invoices.", param="invoice")
    amount = params.get("amount")
    if amount is None or amount <= 0:
        raise RequestRefused("Missing required param: amount.", code="parameter_missing", param="amount")
    if credited + amount > invoice["total"]:
        raise RequestRefused("The credit notes would exceed the invoice's amount.", param="amount")
    parts = sum(params.get(name, 0) for name in ("refund_amount", "credit_amount", "out_of_band_amount"))
    if invoice["status"] == "paid" and parts != amount:
        raise RequestRefused(
            "refund_amount, credit_amount and out_of_band_amount must add up to amount.", param="amount"
        )


def _new_note(account: Account, invoice: Object, params: Object, *, number: int) -> Object:
    amount, paid = params["amount"], invoice["status"] == "paid"
    note_id, now = account.new_id("cn"), account.clock.now()
    return {
        "id": note_id,
        "object": "credit_note",
        "amount": amount,
        "amount_shipping": 0,
        "created": now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": now,
        "invoice": invoice["id"],
        "lines": {
            "object": "list",
            "data": [_new_line(account, amount, params.get("memo"))],
            "has_more": False,
            "url": f"/v1/credit_notes/{note_id}/lines",
        },
        "livemode": False,
        "memo": params.get("memo"),
        "metadata": params.get("metadata") or {},
        "number": f"{invoice['number']}-CN-{number:02d}",
        "reason": params.get("reason"),
        "out_of_band_amount": params.get("out_of_band_amount"),
        "pdf": f"{account.settings.get('url', '')}/credit_note/{note_id}/pdf",
        "post_payment_amount": amount if paid else 0,
        "pre_payment_amount": 0 if paid else amount,
        "pretax_credit_amounts": [],
        "refunds": [],
        "status": "issued",
        "subtotal": amount,
        "subtotal_excluding_tax": amount,
        "total": amount,
        "total_excluding_tax": amount,
        "total_taxes": [],
        "type": "post_payment" if paid else "pre_payment",
        **unused("customer_account customer_balance_transaction shipping_cost voided_at"),
    }


def _new_line(account: Account, amount: int, description: str | None) -> Object:
    return {
        "id": account.new_id("cnli"),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": description,
        "discount_amount": 0,
        "discount_amounts": [],
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "tax_rates": [],
        "taxes": [],
        "type": "custom_line_item",
        **unused("invoice_line_item quantity unit_amount unit_amount_decimal"),
    }


def _reduce(account: Account, invoice: Object, amount: int) -> None:
    """Before payment, less is due; an invoice of which nothing is left counts as paid."""
    invoice["pre_payment_credit_notes_amount"] += amount
    invoice["amount_due"] -= amount
    invoice["amount_remaining"] -= amount
    if invoice["amount_remaining"] == 0:
        invoices.attempt(account, invoice)


def _credit(account: Account, invoice: Object, note: Object, amount: int) -> None:
    """After payment, that much goes to the customer's balance."""
    if not amount:
        return
    customer = account.get("customer", invoice["customer"])
    transaction = customers.change_balance(
        account, customer, -amount, invoice["currency"], type="credit_note", credit_note=note["id"]
    )
    note["customer_balance_transaction"] = transaction["id"]


def _refund(account: Account, invoice: Object, note: Object, amount: int) -> None:
    """After payment, that much goes back to the card. Raises RequestRefused where none was charged."""
    if not amount:
        return
    intent = invoices.paying_intent(account, invoice)
    if intent is None:
        raise RequestRefused("Nothing was paid that could be refunded.", param="refund_amount")
    refund = refund_payment(account, intent, amount, note["reason"])
    note["refunds"] = [
        {"amount_refunded": amount, "payment_record_refund": None, "refund": refund["id"], "type": "refund"}
    ]

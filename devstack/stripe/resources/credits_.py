"""Credit notes, refunds and disputes."""

from devstack.stripe.account import Account, Object, RequestRefused, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import customers, invoices

EVIDENCE = (
    "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure cancellation_rebuttal"
    " customer_communication customer_email_address customer_name customer_purchase_ip customer_signature"
    " duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id product_description receipt"
    " refund_policy refund_policy_disclosure refund_refusal_explanation service_date service_documentation"
    " shipping_address shipping_carrier shipping_date shipping_documentation shipping_tracking_number"
    " uncategorized_file uncategorized_text"
)


@route("POST", "/v1/credit_notes", "CreditNoteCreateParams")
def create(account: Account, params: Object) -> Object:
    invoice = account.get("invoice", params["invoice"])
    if invoice["status"] not in ("open", "paid"):
        raise RequestRefused("Credit notes can only be made for open or paid invoices.", param="invoice")
    amount = params.get("amount")
    if amount is None or amount <= 0:
        raise RequestRefused("Missing required param: amount.", code="parameter_missing", param="amount")
    credited = sum(each["total"] for each in account.find("credit_note", invoice=invoice["id"], status="issued"))
    if credited + amount > invoice["total"]:
        raise RequestRefused("The credit notes would exceed the invoice's amount.", param="amount")
    refund_amount, credit_amount = params.get("refund_amount", 0), params.get("credit_amount", 0)
    if invoice["status"] == "paid" and refund_amount + credit_amount + params.get("out_of_band_amount", 0) != amount:
        raise RequestRefused(
            "refund_amount, credit_amount and out_of_band_amount must add up to amount.", param="amount"
        )
    customer = account.get("customer", invoice["customer"])
    paid, note_id, now = invoice["status"] == "paid", account.new_id("cn"), account.clock.now()
    line = {
        "id": account.new_id("cnli"),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": params.get("memo"),
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
    note = account.add(
        {
            "id": note_id,
            "object": "credit_note",
            "amount": amount,
            "amount_shipping": 0,
            "created": now,
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "customer_account": None,
            "customer_balance_transaction": None,
            "discount_amount": 0,
            "discount_amounts": [],
            "effective_at": now,
            "invoice": invoice["id"],
            "lines": {"object": "list", "data": [line], "has_more": False, "url": f"/v1/credit_notes/{note_id}/lines"},
            "livemode": False,
            "memo": params.get("memo"),
            "metadata": params.get("metadata") or {},
            "number": f"{invoice['number']}-CN-{len(list(account.find('credit_note', invoice=invoice['id']))) + 1:02d}",
            "reason": params.get("reason"),
            "out_of_band_amount": params.get("out_of_band_amount"),
            "pdf": f"{account.settings.get('url', '')}/credit_note/{note_id}/pdf",
            "post_payment_amount": amount if paid else 0,
            "pre_payment_amount": 0 if paid else amount,
            "pretax_credit_amounts": [],
            "refunds": [],
            "shipping_cost": None,
            "status": "issued",
            "subtotal": amount,
            "subtotal_excluding_tax": amount,
            "total": amount,
            "total_excluding_tax": amount,
            "total_taxes": [],
            "type": "post_payment" if paid else "pre_payment",
            "voided_at": None,
        }
    )
    if invoice["status"] == "open":
        invoice["pre_payment_credit_notes_amount"] += amount
        invoice["amount_due"] -= amount
        invoice["amount_remaining"] -= amount
        if invoice["amount_remaining"] == 0:
            invoices.attempt(account, invoice)
    else:
        invoice["post_payment_credit_notes_amount"] += amount
        if credit_amount:
            made = customers.change_balance(
                account, customer, -credit_amount, invoice["currency"], type="credit_note", credit_note=note["id"]
            )
            note["customer_balance_transaction"] = made["id"]
        if refund_amount:
            intent = invoices.paying_intent(account, invoice)
            if intent is None:
                raise RequestRefused("Nothing was paid that could be refunded.", param="refund_amount")
            made = _refund(account, intent, refund_amount, params.get("reason"))
            note["refunds"] = [
                {
                    "amount_refunded": refund_amount,
                    "payment_record_refund": None,
                    "refund": made["id"],
                    "type": "refund",
                }
            ]
    account.emit("credit_note.created", note)
    return note


@route("GET", "/v1/credit_notes", "CreditNoteListParams")
def list_(account: Account, params: Object) -> Object:
    found = account.find("credit_note", invoice=params.get("invoice"), customer=params.get("customer"))
    return listing(found, params, "/v1/credit_notes")


@route("GET", "/v1/credit_notes/{note}", "CreditNoteRetrieveParams")
def retrieve(account: Account, params: Object, note: str) -> Object:
    return account.get("credit_note", note)


@route("POST", "/v1/refunds", "RefundCreateParams")
def create_refund(account: Account, params: Object) -> Object:
    if params.get("charge"):
        intent = account.get("payment_intent", account.get("charge", params["charge"])["payment_intent"])
    else:
        intent = account.get("payment_intent", params.get("payment_intent", ""))
    made = _refund(account, intent, int(params.get("amount") or intent["amount"]), params.get("reason"))
    made["metadata"].update(params.get("metadata") or {})
    return made


@route("GET", "/v1/refunds", "RefundListParams")
def list_refunds(account: Account, params: Object) -> Object:
    found = account.find("refund", charge=params.get("charge"), payment_intent=params.get("payment_intent"))
    return listing(found, params, "/v1/refunds")


@route("GET", "/v1/refunds/{refund}", "RefundRetrieveParams")
def retrieve_refund(account: Account, params: Object, refund: str) -> Object:
    return account.get("refund", refund)


@route("GET", "/v1/charges/{charge}", "ChargeRetrieveParams")
def retrieve_charge(account: Account, params: Object, charge: str) -> Object:
    return account.get("charge", charge)


@route("GET", "/v1/payment_intents/{intent}", "PaymentIntentRetrieveParams")
def retrieve_intent(account: Account, params: Object, intent: str) -> Object:
    return account.get("payment_intent", intent)


@route("GET", "/v1/disputes/{dispute}", "DisputeRetrieveParams")
def retrieve_dispute(account: Account, params: Object, dispute: str) -> Object:
    return account.get("dispute", dispute)


def dispute(account: Account, invoice_id: str, status: str | None = None) -> Object:
    """The customer's bank takes a payment back, or (`status`: won, lost) decides."""
    intent = invoices.paying_intent(account, account.get("invoice", invoice_id))
    if intent is None:
        raise RequestRefused("Nothing was paid that could be disputed.")
    charge = account.get("charge", intent["latest_charge"])
    found = next(account.find("dispute", charge=charge["id"]), None)
    if found is None:
        charge["disputed"] = True
        found = account.add(
            {
                "id": account.new_id("du"),
                "object": "dispute",
                "amount": charge["amount"],
                "balance_transactions": [],
                "charge": charge["id"],
                "created": account.clock.now(),
                "currency": charge["currency"],
                "enhanced_eligibility_types": [],
                "evidence": {
                    "enhanced_evidence": {},
                    **unused(EVIDENCE),
                },
                "evidence_details": {
                    "due_by": account.clock.now() + 7 * 86_400,
                    "enhanced_eligibility": {},
                    "has_evidence": False,
                    "past_due": False,
                    "submission_count": 0,
                    "submission_method": "not_submitted",
                },
                "intended_submission_method": None,
                "is_charge_refundable": False,
                "livemode": False,
                "metadata": {},
                "payment_intent": intent["id"],
                "reason": "fraudulent",
                "status": "needs_response",
            }
        )
        account.emit("charge.dispute.created", found)
    if status is not None:
        found["status"] = status
        account.emit("charge.dispute.closed", found)
    return found


def _refund(account: Account, intent: Object, amount: int, reason: str | None) -> Object:
    charge = account.get("charge", intent["latest_charge"])
    if charge["amount_refunded"] + amount > charge["amount"]:
        raise RequestRefused(
            "Refund amount is greater than what is left of the charge.", code="charge_already_refunded"
        )
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    refund = account.add(
        {
            "id": account.new_id("re"),
            "object": "refund",
            "amount": amount,
            "charge": charge["id"],
            "created": account.clock.now(),
            "currency": charge["currency"],
            "customer": charge["customer"],
            "metadata": {},
            "payment_method": charge["payment_method"],
            "payment_intent": intent["id"],
            "reason": reason if reason in ("duplicate", "fraudulent") else "requested_by_customer",
            "status": "succeeded",
            **unused("balance_transaction customer_account receipt_number source_transfer_reversal transfer_reversal"),
        }
    )
    account.emit("refund.created", refund)
    account.emit("charge.refunded", charge)
    return refund

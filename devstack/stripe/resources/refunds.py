"""What goes back of a payment: refunds, and disputes that the customer's bank begins."""

from devstack.stripe.account import Account, Object, RequestRefused, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import invoices

EVIDENCE_DAYS = 7
EVIDENCE = (
    "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure cancellation_rebuttal"
    " customer_communication customer_email_address customer_name customer_purchase_ip customer_signature"
    " duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id product_description receipt"
    " refund_policy refund_policy_disclosure refund_refusal_explanation service_date service_documentation"
    " shipping_address shipping_carrier shipping_date shipping_documentation shipping_tracking_number"
    " uncategorized_file uncategorized_text"
)


def refund_payment(account: Account, intent: Object, amount: int, reason: str | None) -> Object:
    """Raises RequestRefused where less than that is left of the payment."""
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


def dispute(account: Account, invoice_id: str, status: str | None = None) -> Object:
    """The customer's bank takes the payment of an invoice back, or (`status`: won, lost) decides.

    Raises RequestRefused where nothing was paid."""
    intent = invoices.paying_intent(account, account.get("invoice", invoice_id))
    if intent is None:
        raise RequestRefused("Nothing was paid that could be disputed.")
    charge = account.get("charge", intent["latest_charge"])
    dispute = next(account.find("dispute", charge=charge["id"]), None)
    if dispute is None:
        charge["disputed"] = True
        dispute = account.add(_new_dispute(account, charge))
        account.emit("charge.dispute.created", dispute)
    if status is not None:
        dispute["status"] = status
        account.emit("charge.dispute.closed", dispute)
    return dispute


def _new_dispute(account: Account, charge: Object) -> Object:
    now = account.clock.now()
    return {
        "id": account.new_id("du"),
        "object": "dispute",
        "amount": charge["amount"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}, **unused(EVIDENCE)},
        "evidence_details": {
            "due_by": now + EVIDENCE_DAYS * 86_400,
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
        "payment_intent": charge["payment_intent"],
        "reason": "fraudulent",
        "status": "needs_response",
    }


@route("POST", "/v1/refunds", "RefundCreateParams")
def create_refund(account: Account, params: Object) -> Object:
    if params.get("charge"):
        intent_id = account.get("charge", params["charge"])["payment_intent"]
    else:
        intent_id = params.get("payment_intent", "")
    intent = account.get("payment_intent", intent_id)
    refund = refund_payment(account, intent, int(params.get("amount") or intent["amount"]), params.get("reason"))
    refund["metadata"].update(params.get("metadata") or {})
    return refund


@route("GET", "/v1/refunds", "RefundListParams")
def list_refunds(account: Account, params: Object) -> Object:
    refunds = account.find("refund", charge=params.get("charge"), payment_intent=params.get("payment_intent"))
    return listing(refunds, params, "/v1/refunds")


@route("GET", "/v1/refunds/{refund_id}", "RefundRetrieveParams")
def retrieve_refund(account: Account, params: Object, refund_id: str) -> Object:
    return account.get("refund", refund_id)


@route("GET", "/v1/charges/{charge_id}", "ChargeRetrieveParams")
def retrieve_charge(account: Account, params: Object, charge_id: str) -> Object:
    return account.get("charge", charge_id)


@route("GET", "/v1/payment_intents/{intent_id}", "PaymentIntentRetrieveParams")
def retrieve_intent(account: Account, params: Object, intent_id: str) -> Object:
    return account.get("payment_intent", intent_id)


@route("GET", "/v1/disputes/{dispute_id}", "DisputeRetrieveParams")
def retrieve_dispute(account: Account, params: Object, dispute_id: str) -> Object:
    return account.get("dispute", dispute_id)

"""A payment of an invoice is tried, and leaves a payment intent, a charge and an invoice payment behind."""

from typing import NamedTuple

from devstack.stripe.account import Account, Object, Occurrence, unused
from devstack.stripe.resources import customers
from devstack.stripe.resources.invoices.lookups import subscription_of

DAY = 86_400
RETRY_DAYS = (3, 5, 7)  # after one another: Stripe's "smart" ones differ by card, these are its classic ones
INTENT_STATUS = {"good": "succeeded", "needs_action": "requires_action"}


class Payment(NamedTuple):
    intent: Object
    charge: Object


def attempt(account: Account, invoice: Object, *, final: bool = False, by_hand: bool = False) -> bool:
    """Tries to have the invoice paid. Returns whether it is paid, or need not be paid yet.

    `final`: no retry follows. `by_hand`: the customer pays, which an invoice that was sent waits for."""
    if invoice["status"] != "open":
        return bool(invoice["status"] == "paid")
    if invoice["amount_remaining"] == 0:
        _mark_paid(account, invoice)
        return True
    if invoice["collection_method"] == "send_invoice" and not by_hand:
        return True
    customer = account.get("customer", invoice["customer"])
    subscription = subscription_of(account, invoice)
    card = customers.card_of(account, customer, subscription)
    invoice["attempted"], invoice["attempt_count"] = True, invoice["attempt_count"] + 1
    payment = _record_payment(account, invoice, card, customers.method_of(customer, subscription))
    if card == "good":
        _succeed(account, invoice, payment)
        return True
    _fail(account, invoice, payment, final=final)
    if card == "needs_action":
        account.emit("invoice.payment_action_required", invoice)
    return False


def next_attempt(now: int, attempts: int) -> int | None:
    """When Stripe tries again after so many attempts; None when it has given up."""
    return now + RETRY_DAYS[attempts - 1] * DAY if attempts <= len(RETRY_DAYS) else None


def _succeed(account: Account, invoice: Object, payment: Payment) -> None:
    invoice["amount_paid"], invoice["amount_remaining"] = invoice["amount_due"], 0
    invoice["next_payment_attempt"] = None
    account.emit("charge.succeeded", payment.charge)
    account.emit("payment_intent.succeeded", payment.intent)
    _mark_paid(account, invoice)


def _fail(account: Account, invoice: Object, payment: Payment, *, final: bool) -> None:
    retry_at = None if final else next_attempt(account.clock.now(), invoice["attempt_count"])
    invoice["next_payment_attempt"] = retry_at
    if retry_at is not None:
        account.at(retry_at, "retry", invoice["id"])
    account.emit("charge.failed", payment.charge)
    account.emit("payment_intent.payment_failed", payment.intent)
    account.emit("invoice.payment_failed", invoice)


def _mark_paid(account: Account, invoice: Object) -> None:
    invoice["status"], invoice["attempted"] = "paid", True
    invoice["status_transitions"]["paid_at"] = account.clock.now()
    account.emit("invoice.paid", invoice)
    account.emit("invoice.payment_succeeded", invoice)
    account.follow_up(Occurrence.INVOICE_PAID, invoice)


def _record_payment(account: Account, invoice: Object, card: str, method: str | None) -> Payment:
    intent = account.add(_intent(account, invoice, card, method))
    charge = account.add(_charge(account, invoice, intent, good=card == "good"))
    intent["latest_charge"] = charge["id"]
    account.add(_invoice_payment(account, invoice, intent, good=card == "good"))
    return Payment(intent, charge)


def _intent(account: Account, invoice: Object, card: str, method: str | None) -> Object:
    amount = invoice["amount_remaining"]
    return {
        "id": account.new_id("pi"),
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": amount if card == "good" else 0,
        "capture_method": "automatic",
        "client_secret": account.new_id("secret"),
        "confirmation_method": "automatic",
        "created": account.clock.now(),
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "payment_method": method,
        "payment_method_types": ["card"],
        "status": INTENT_STATUS.get(card, "requires_payment_method"),
        **unused(
            "allowed_payment_method_types application application_fee_amount automatic_payment_methods canceled_at"
            " cancellation_reason customer_account description excluded_payment_method_types last_payment_error"
            " managed_payments next_action on_behalf_of payment_method_configuration_details payment_method_options"
            " payment_record processing receipt_email review setup_future_usage shipping source"
            " statement_descriptor statement_descriptor_suffix transfer_data transfer_group"
        ),
    }


def _charge(account: Account, invoice: Object, intent: Object, *, good: bool) -> Object:
    return {
        "id": account.new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount_received"],
        "amount_refunded": 0,
        "billing_details": unused("address email name phone tax_id"),
        "captured": good,
        "created": intent["created"],
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "disputed": False,
        "failure_code": None if good else "card_declined",
        "failure_message": None if good else "Your card was declined.",
        "livemode": False,
        "metadata": {},
        "paid": good,
        "payment_intent": intent["id"],
        "payment_method": intent["payment_method"],
        "refunded": False,
        "status": "succeeded" if good else "failed",
        **unused(
            "application application_fee application_fee_amount balance_transaction calculated_statement_descriptor"
            " description failure_balance_transaction fraud_details on_behalf_of outcome payment_method_details"
            " receipt_email receipt_number receipt_url review shipping source source_transfer statement_descriptor"
            " statement_descriptor_suffix transfer_data transfer_group"
        ),
    }


def _invoice_payment(account: Account, invoice: Object, intent: Object, *, good: bool) -> Object:
    return {
        "id": account.new_id("inpay"),
        "object": "invoice_payment",
        "amount_paid": intent["amount"] if good else None,
        "amount_requested": intent["amount"],
        "created": intent["created"],
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        "status": "paid" if good else "open",
        "status_transitions": {"canceled_at": None, "paid_at": intent["created"] if good else None},
    }

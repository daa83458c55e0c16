"""An invoice that nobody need pay any more: void, or uncollectible."""

from devstack.stripe.account import Account, Object, RequestRefused


def void(account: Account, invoice: Object) -> None:
    """Raises RequestRefused for an invoice that is paid or void."""
    if invoice["status"] not in ("open", "draft", "uncollectible"):
        raise RequestRefused("This invoice can not be voided.", code="invoice_not_editable")
    invoice["status"], invoice["next_payment_attempt"] = "void", None
    invoice["amount_remaining"] = 0
    invoice["status_transitions"]["voided_at"] = account.clock.now()
    account.emit("invoice.voided", invoice)


def mark_uncollectible(account: Account, invoice: Object) -> None:
    """Raises RequestRefused for an invoice that is not open."""
    if invoice["status"] != "open":  # https://docs.stripe.com/invoicing/overview#invoice-statuses
        message = f"You can only mark an open invoice as uncollectible, and this one is {invoice['status']}."
        raise RequestRefused(message, code="invoice_not_editable")
    invoice["status"], invoice["next_payment_attempt"] = "uncollectible", None
    invoice["status_transitions"]["marked_uncollectible_at"] = account.clock.now()
    account.emit("invoice.marked_uncollectible", invoice)

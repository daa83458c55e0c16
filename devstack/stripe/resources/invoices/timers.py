"""What is done with an invoice when its time has come: finalized, tried again, overdue."""

from devstack.stripe.account import Account, Object, Occurrence, timer
from devstack.stripe.resources.invoices.finalization import finalize
from devstack.stripe.resources.invoices.payment import attempt

DRAFT_SECONDS = 3600


def finalize_later(account: Account, invoice: Object) -> None:
    """Leaves it a draft for an hour, as Stripe does with the invoices of a renewal."""
    account.at(account.clock.now() + DRAFT_SECONDS, "finalize", invoice["id"])


@timer("finalize")
def finalize_due(account: Account, invoice_id: str) -> None:
    invoice = account.objects.get("invoice", {}).get(invoice_id)
    if invoice is None or invoice["status"] != "draft" or not invoice["auto_advance"]:
        return
    finalize(account, invoice)
    _attempt(account, invoice)


@timer("retry")
def retry(account: Account, invoice_id: str) -> None:
    invoice = account.get("invoice", invoice_id)
    if invoice["status"] == "open":
        _attempt(account, invoice)


@timer("due")
def become_overdue(account: Account, invoice_id: str) -> None:
    invoice = account.get("invoice", invoice_id)
    if invoice["status"] == "open" and (invoice["due_date"] or 0) <= account.clock.now():
        account.emit("invoice.overdue", invoice)
        account.follow_up(Occurrence.INVOICE_OVERDUE, invoice)


def _attempt(account: Account, invoice: Object) -> None:
    if not attempt(account, invoice):
        account.follow_up(Occurrence.PAYMENT_FAILED, invoice)

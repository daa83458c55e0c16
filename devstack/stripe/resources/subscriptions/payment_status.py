"""The status of a subscription follows from the payments of its invoices."""

from devstack.stripe.account import Account, Object, Occurrence, consequence
from devstack.stripe.resources import invoices
from devstack.stripe.resources.subscriptions.changes import apply_pending
from devstack.stripe.resources.subscriptions.endings import end


def set_status(account: Account, subscription: Object, status: str) -> None:
    before = subscription["status"]
    subscription["status"] = status
    account.emit("customer.subscription.updated", subscription, {"status": before})


@consequence(Occurrence.INVOICE_PAID)
def after_payment(account: Account, invoice: Object) -> None:
    subscription = invoices.subscription_of(account, invoice)
    if subscription is None:
        return
    pending = account.note(subscription["id"]).get("pending")
    if pending is not None and pending["invoice"] == invoice["id"]:
        apply_pending(account, subscription, pending)
        return
    status = subscription["status"]
    if (status == "incomplete" and invoice["billing_reason"] == "subscription_create") or (
        status in ("past_due", "unpaid")
        and (subscription["latest_invoice"] == invoice["id"] or not invoices.open_of(account, subscription))
    ):
        set_status(account, subscription, "active")


@consequence(Occurrence.PAYMENT_FAILED)
def after_failed_payment(account: Account, invoice: Object) -> None:
    subscription = invoices.subscription_of(account, invoice)
    if subscription is None or subscription["status"] not in ("active", "trialing", "past_due"):
        return
    if invoice["next_payment_attempt"] is not None:
        if subscription["status"] != "past_due":
            set_status(account, subscription, "past_due")
    elif account.settings["after_retries"] == "cancel":
        end(account, subscription, "payment_failed")
    else:
        set_status(account, subscription, "unpaid")


@consequence(Occurrence.INVOICE_OVERDUE)
def after_due_date(account: Account, invoice: Object) -> None:
    subscription = invoices.subscription_of(account, invoice)
    if subscription is not None and subscription["status"] == "active":
        set_status(account, subscription, "past_due")

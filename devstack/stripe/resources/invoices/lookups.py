"""What an invoice refers to, and which invoices refer to a subscription."""

from typing import NamedTuple

from devstack.stripe.account import Account, Object


class Usage(NamedTuple):
    """Usage of a metered item in [start, end), which is counted when its invoice is finalized."""

    item: str
    price: str
    start: int
    end: int


def subscription_id_of(invoice: Object) -> str | None:
    details = (invoice["parent"] or {}).get("subscription_details")
    return details["subscription"] if details else None


def subscription_of(account: Account, invoice: Object) -> Object | None:
    """The subscription that the invoice is for; None where it is for none, or where that one is deleted."""
    subscription_id = subscription_id_of(invoice)
    return account.objects.get("subscription", {}).get(subscription_id) if subscription_id else None


def open_of(account: Account, subscription: Object) -> list[Object]:
    """The open invoices of a subscription, the newest first."""
    return [each for each in account.find("invoice", status="open") if subscription_id_of(each) == subscription["id"]]


def paying_intent(account: Account, invoice: Object) -> Object | None:
    """The payment intent that paid the invoice; None where none did."""
    for payment in account.find("invoice_payment", invoice=invoice["id"], status="paid"):
        return account.get("payment_intent", payment["payment"]["payment_intent"])
    return None

"""The invoice that would come next: computed on a copy of the account, of which nothing stays."""

from copy import deepcopy

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.dispatch import route
from devstack.stripe.resources import discounts, invoices, subscriptions
from devstack.stripe.resources.subscriptions.endings import ENDED


@route("POST", "/v1/invoices/create_preview", "InvoiceCreatePreviewParams")
def create_preview(account: Account, params: Object) -> Object:
    """https://docs.stripe.com/api/invoices/create_preview"""
    customer = account.get("subscription", params["subscription"])["customer"]
    copy = account.copy_for(customer)
    subscription = copy.get("subscription", params["subscription"])
    if subscription["status"] in ENDED:
        raise _none(customer)
    if "discounts" in params:
        subscription["discounts"] = discounts.redeem_all(copy, params["discounts"] or [], subscription["id"])
    details = params.get("subscription_details") or {}
    if "cancel_at_period_end" in details:
        subscription["cancel_at_period_end"] = details["cancel_at_period_end"]
    if items := details.get("items"):
        proration, now = details.get("proration_behavior", "create_prorations"), copy.clock.now()
        at_once = subscriptions.change_items(copy, subscription, items, proration, now)
        if at_once is not None:
            return _shown(copy, at_once)
    return _shown(copy, _renewal(copy, subscription))


def _renewal(copy: Account, subscription: Object) -> Object:
    """Raises RequestRefused where there is none."""
    earlier = set(copy.objects.get("invoice", {}))
    copy.clock.stopped_at = subscription["items"]["data"][0]["current_period_end"]
    subscriptions.renewals.end_period(copy, subscription["id"])
    made = [invoice for invoice in copy.find("invoice") if invoice["id"] not in earlier]
    if not made:
        raise _none(subscription["customer"])
    return made[-1]


def _shown(copy: Account, invoice: Object) -> Object:
    created = copy.clock.now()
    invoices.finalize(copy, invoice)
    shown = deepcopy(invoice)
    shown |= {"id": f"upcoming_{invoice['id']}", "status": "draft", "number": None, "created": created}
    shown |= {"effective_at": None, "hosted_invoice_url": None, "invoice_pdf": None}
    shown["status_transitions"]["finalized_at"] = None
    return shown


def _none(customer: str) -> RequestRefused:
    return RequestRefused(f"No upcoming invoices for customer: {customer}", status=404, code="invoice_upcoming_none")

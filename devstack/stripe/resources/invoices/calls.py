"""The calls for invoices, their lines and their payments."""

from devstack.stripe.account import Account, Object, RequestRefused, card_declined
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources.invoices import closing
from devstack.stripe.resources.invoices.finalization import finalize
from devstack.stripe.resources.invoices.lookups import subscription_id_of
from devstack.stripe.resources.invoices.payment import attempt


@route("GET", "/v1/invoices", "InvoiceListParams")
def list_(account: Account, params: Object) -> Object:
    subscription_id = params.get("subscription")
    invoices = (
        invoice
        for invoice in account.find(
            "invoice",
            customer=params.get("customer"),
            status=params.get("status"),
            collection_method=params.get("collection_method"),
        )
        if subscription_id is None or subscription_id_of(invoice) == subscription_id
    )
    return listing(invoices, params, "/v1/invoices")


@route("GET", "/v1/invoices/{invoice_id}", "InvoiceRetrieveParams")
def retrieve(account: Account, params: Object, invoice_id: str) -> Object:
    return account.get("invoice", invoice_id)


@route("GET", "/v1/invoices/{invoice_id}/lines", "InvoiceLineItemListParams")
def list_lines(account: Account, params: Object, invoice_id: str) -> Object:
    return listing(account.get("invoice", invoice_id)["lines"]["data"], params, f"/v1/invoices/{invoice_id}/lines")


@route("POST", "/v1/invoices/{invoice_id}/finalize", "InvoiceFinalizeInvoiceParams")
def finalize_now(account: Account, params: Object, invoice_id: str) -> Object:
    invoice = account.get("invoice", invoice_id)
    if invoice["status"] != "draft":
        raise RequestRefused("This invoice is already finalized.", code="invoice_not_editable")
    invoice["auto_advance"] = params.get("auto_advance", invoice["auto_advance"])
    finalize(account, invoice)
    return invoice


@route("POST", "/v1/invoices/{invoice_id}/pay", "InvoicePayParams")
def pay(account: Account, params: Object, invoice_id: str) -> Object:
    invoice = account.get("invoice", invoice_id)
    if invoice["status"] != "open":
        raise RequestRefused(f"Invoice is {invoice['status']}, not open.", code="invoice_already_paid")
    if not attempt(account, invoice, by_hand=True):
        raise card_declined()
    return invoice


@route("POST", "/v1/invoices/{invoice_id}/void", "InvoiceVoidInvoiceParams")
def void(account: Account, params: Object, invoice_id: str) -> Object:
    invoice = account.get("invoice", invoice_id)
    closing.void(account, invoice)
    return invoice


@route("POST", "/v1/invoices/{invoice_id}/mark_uncollectible", "InvoiceMarkUncollectibleParams")
def mark_uncollectible(account: Account, params: Object, invoice_id: str) -> Object:
    invoice = account.get("invoice", invoice_id)
    closing.mark_uncollectible(account, invoice)
    return invoice


@route("GET", "/v1/invoice_payments", "InvoicePaymentListParams")
def list_payments(account: Account, params: Object) -> Object:
    payments = account.find("invoice_payment", invoice=params.get("invoice"), status=params.get("status"))
    return listing(payments, params, "/v1/invoice_payments")

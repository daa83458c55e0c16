"""Drafts: invoices whose lines can still change."""

from collections.abc import Sequence

from devstack.stripe.account import Account, Object, unused
from devstack.stripe.resources.invoices.lines import item_of_line, line_of_item
from devstack.stripe.resources.invoices.lookups import Usage
from devstack.stripe.resources.invoices.totals import totals_of

ZERO_AT_FIRST = (
    "amount_due amount_overpaid amount_paid amount_remaining amount_shipping attempt_count"
    " post_payment_credit_notes_amount pre_payment_credit_notes_amount starting_balance subtotal"
    " subtotal_excluding_tax total total_excluding_tax"
)
NULL_AT_FIRST = (
    "account_tax_ids application automatically_finalizes_at custom_fields customer_account customer_phone"
    " customer_shipping default_payment_method default_source description due_date effective_at ending_balance footer"
    " from_invoice hosted_invoice_url invoice_pdf last_finalization_error latest_revision next_payment_attempt number"
    " on_behalf_of receipt_number rendering shipping_cost shipping_details statement_descriptor test_clock"
    " webhooks_delivered_at"
)


def draft(
    account: Account,
    customer: Object,
    subscription: Object | None,
    reason: str,
    lines: Sequence[Object],
    period: tuple[int, int],
    usage: Sequence[Usage] = (),
) -> Object:
    """A new draft of these lines, and of the invoice items that wait for it. `usage`: is counted when it is
    finalized."""
    invoice = account.add(
        {
            "id": account.new_id("in"),
            "object": "invoice",
            **dict.fromkeys(ZERO_AT_FIRST.split(), 0),
            **unused(NULL_AT_FIRST),
            **_of_account(),
            **_of_customer(customer),
            **_of_subscription(subscription),
            "billing_reason": reason,
            "created": account.clock.now(),
            "currency": lines[0]["currency"] if lines else (subscription or customer)["currency"],
            "period_end": period[1],
            "period_start": period[0],
        }
    )
    invoice["lines"] = {
        "object": "list",
        "data": list(lines),
        "has_more": False,
        "url": f"/v1/invoices/{invoice['id']}/lines",
    }
    for line in lines:
        line["invoice"] = invoice["id"]
    account.note(invoice["id"])["metered"] = [list(each) for each in usage]
    for item in pending_items(account, customer["id"], subscription):
        if item["currency"] == invoice["currency"]:
            item["invoice"] = invoice["id"]
            invoice["lines"]["data"].append(line_of_item(account, item))
    add_up(account, invoice)
    if subscription is not None:
        subscription["latest_invoice"] = invoice["id"]
    account.emit("invoice.created", invoice)
    return invoice


def pending_items(account: Account, customer_id: str, subscription: Object | None) -> list[Object]:
    """Invoice items that wait for the next invoice, the oldest first: those of a subscription for its own.

    https://docs.stripe.com/billing/invoices/subscription#adding-upcoming-invoice-items"""
    subscription_id = subscription and subscription["id"]
    newest_first = [
        item
        for item in account.find("invoiceitem", customer=customer_id)
        if item["invoice"] is None
        and (item["parent"] is None or item["parent"]["subscription_details"]["subscription"] == subscription_id)
    ]
    return newest_first[::-1]


def put_on(account: Account, invoice: Object, item: Object) -> None:
    """Adds an invoice item to the draft."""
    invoice["lines"]["data"].append(line_of_item(account, item))
    add_up(account, invoice)
    account.emit("invoice.updated", invoice)


def take_off(account: Account, invoice: Object, item: Object) -> None:
    """Removes an invoice item from the draft."""
    lines = invoice["lines"]["data"]
    lines[:] = [line for line in lines if item_of_line(line) != item["id"]]
    add_up(account, invoice)
    account.emit("invoice.updated", invoice)


def add_up(account: Account, invoice: Object) -> None:
    """Computes the amounts of an invoice from its lines."""
    discounts = [account.get("discount", discount_id) for discount_id in invoice["discounts"]]
    coupons = [(each["id"], account.get("coupon", each["source"]["coupon"])) for each in discounts]
    lines, taxed = invoice["lines"]["data"], invoice["automatic_tax"]["enabled"]
    invoice.update(totals_of(lines, coupons, taxed=taxed))


def _of_account() -> Object:
    return {
        "account_country": "US",
        "account_name": "Double",
        "attempted": False,
        "auto_advance": True,
        "default_tax_rates": [],
        "issuer": {"type": "self"},
        "livemode": False,
        "metadata": {},
        "payment_settings": unused("default_mandate payment_method_options payment_method_types"),
        "status": "draft",
        "status_transitions": unused("finalized_at marked_uncollectible_at paid_at voided_at"),
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    }


def _of_customer(customer: Object) -> Object:
    return {
        "customer": customer["id"],
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
    }


def _of_subscription(subscription: Object | None) -> Object:
    """What an invoice has of its subscription, or has where it is of none."""
    taxed = bool(subscription and subscription["automatic_tax"]["enabled"])
    return {
        "automatic_tax": {
            "enabled": taxed,
            "status": "complete" if taxed else None,
            **unused("disabled_reason liability provider"),
        },
        "collection_method": subscription["collection_method"] if subscription else "charge_automatically",
        "discounts": list(subscription["discounts"]) if subscription else [],
        "parent": subscription
        and {
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": {"metadata": subscription["metadata"], "subscription": subscription["id"]},
        },
    }

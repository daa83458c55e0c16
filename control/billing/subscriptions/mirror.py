"""Stripe's invoices, credit notes, refunds and disputes as rows of ours. Pure."""

from typing import Any

from control.billing.objects import Object, id_of
from control.moments import moment


def invoice_row(invoice: Object, org: str) -> dict[str, Any]:
    """As `put_invoice` takes it. Amounts in minor units."""
    transitions = invoice["status_transitions"]
    parent = (invoice.get("parent") or {}).get("subscription_details") or {}
    return {
        "id": invoice["id"],
        "org": org,
        "customer": id_of(invoice["customer"]),
        "subscription": id_of(parent.get("subscription")),
        "number": invoice.get("number"),
        "status": invoice["status"],
        "billing_reason": invoice.get("billing_reason"),
        "currency": invoice["currency"],
        "total_minor": invoice["total"],
        "amount_paid_minor": invoice["amount_paid"],
        "amount_remaining_minor": invoice["amount_remaining"],
        "period_start": moment(invoice["period_start"]),
        "period_end": moment(invoice["period_end"]),
        "created_at": moment(invoice["created"]),
        "finalized_at": _at(transitions.get("finalized_at")),
        "paid_at": _at(transitions.get("paid_at")),
        "hosted_url": invoice.get("hosted_invoice_url"),
        "pdf_url": invoice.get("invoice_pdf"),
    }


def entry_row(entry: Object, org: str, customer: str) -> dict[str, Any]:
    """As `put_entry` takes it: a credit note, refund, dispute or balance transaction."""
    kind = {"customer_balance_transaction": "balance"}.get(entry["object"], entry["object"])
    return {
        "id": entry["id"],
        "kind": kind,
        "org": org,
        "customer": customer,
        "invoice": id_of(entry.get("invoice")),
        "amount_minor": entry["total"] if kind == "credit_note" else entry["amount"],
        "currency": entry["currency"],
        "status": entry.get("status"),
        "reason": entry.get("reason") or entry.get("memo") or entry.get("description"),
        "created_at": moment(entry["created"]),
    }


def subscription_content(subscription: Object) -> dict[str, Any]:
    """What of a subscription is shown."""
    return {
        "created": subscription["created"],
        "billing_cycle_anchor": subscription["billing_cycle_anchor"],
        "trial_end": subscription.get("trial_end"),
        "cancel_at": subscription.get("cancel_at"),
        "ended_at": subscription.get("ended_at"),
        "schedule": id_of(subscription.get("schedule")),
        "pending_update": subscription.get("pending_update") is not None,
        "items": [
            {
                "id": item["id"],
                "price": id_of(item["price"]),
                "quantity": item.get("quantity"),
                "created": item.get("created"),
                "current_period_start": item["current_period_start"],
                "current_period_end": item["current_period_end"],
            }
            for item in subscription["items"]["data"]
        ],
    }


def _at(seconds: int | None) -> Any:
    return None if seconds is None else moment(seconds)

"""Invoices, and money that went another way: Stripe's objects -> our rows. Pure."""

from typing import Any

from control.billing.objects import Object, id_of
from control.moments import moment


def invoice(found: Object, org: str) -> dict[str, Any]:
    """As `put_invoice` takes it. Amounts in minor units."""
    transitions = found["status_transitions"]
    parent = (found.get("parent") or {}).get("subscription_details") or {}
    return {
        "id": found["id"],
        "org": org,
        "customer": id_of(found["customer"]),
        "subscription": id_of(parent.get("subscription")),
        "number": found.get("number"),
        "status": found["status"],
        "billing_reason": found.get("billing_reason"),
        "currency": found["currency"],
        "total_minor": found["total"],
        "amount_paid_minor": found["amount_paid"],
        "amount_remaining_minor": found["amount_remaining"],
        "period_start": moment(found["period_start"]),
        "period_end": moment(found["period_end"]),
        "created_at": moment(found["created"]),
        "finalized_at": _at(transitions.get("finalized_at")),
        "paid_at": _at(transitions.get("paid_at")),
        "hosted_url": found.get("hosted_invoice_url"),
        "pdf_url": found.get("invoice_pdf"),
    }


def entry(found: Object, org: str, customer: str) -> dict[str, Any]:
    """As `put_entry` takes it: a credit note, refund, dispute or balance transaction."""
    kind = {"customer_balance_transaction": "balance"}.get(found["object"], found["object"])
    return {
        "id": found["id"],
        "kind": kind,
        "org": org,
        "customer": customer,
        "invoice": id_of(found.get("invoice")),
        "amount_minor": found["total"] if kind == "credit_note" else found["amount"],
        "currency": found["currency"],
        "status": found.get("status"),
        "reason": found.get("reason") or found.get("memo") or found.get("description"),
        "created_at": moment(found["created"]),
    }


def subscription(found: Object) -> dict[str, Any]:
    """What of a subscription is shown."""
    return {
        "created": found["created"],
        "billing_cycle_anchor": found["billing_cycle_anchor"],
        "trial_end": found.get("trial_end"),
        "cancel_at": found.get("cancel_at"),
        "ended_at": found.get("ended_at"),
        "schedule": id_of(found.get("schedule")),
        "pending_update": found.get("pending_update") is not None,
        "items": [
            {
                "id": item["id"],
                "price": id_of(item["price"]),
                "quantity": item.get("quantity"),
                "created": item.get("created"),
                "current_period_start": item["current_period_start"],
                "current_period_end": item["current_period_end"],
            }
            for item in found["items"]["data"]
        ],
    }


def _at(seconds: int | None) -> Any:
    return None if seconds is None else moment(seconds)

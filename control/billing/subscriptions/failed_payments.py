"""Invoices that could not be collected or are overdue. Each has an open incident until nothing is owed."""

from typing import Any

from control import incidents, sql
from control.billing.objects import Object
from control.db import Connection
from control.moments import rfc3339

FAILED = "payment_failed"


async def record(connection: Connection, now: float, org: str, invoice: Object) -> None:
    """Opens, updates or closes the incident of an invoice as Stripe has it now. Each further attempt counts it up."""
    content = failure(invoice, now)
    if content is None:
        await incidents.close(connection, now, FAILED, invoice["id"])
        return
    previous = await sql.incidents.open_content(connection, kind=FAILED, key=invoice["id"])
    times = content["attempts"] - previous["attempts"] if previous else 1
    if times > 0:
        await incidents.open(connection, now, FAILED, invoice["id"], org, content, times=times)


def failure(invoice: Object, now: float) -> dict[str, Any] | None:
    """What an admin is shown; None where nothing failed, or nothing is owed any more. Pure."""
    if invoice["status"] != "open" or invoice["amount_remaining"] <= 0:
        return None
    due, attempts, again = (invoice.get(name) for name in ("due_date", "attempt_count", "next_payment_attempt"))
    overdue = invoice.get("collection_method") == "send_invoice" and due is not None and due <= now
    if not attempts and not overdue:
        return None
    return {
        "invoice": invoice["id"],
        "number": invoice.get("number"),
        "amount_remaining_minor": invoice["amount_remaining"],
        "currency": invoice["currency"],
        "attempts": attempts or 0,
        "next_attempt_at": None if again is None else rfc3339(again),
        "due_at": None if due is None else rfc3339(due),
        "hosted_url": invoice.get("hosted_invoice_url"),
    }

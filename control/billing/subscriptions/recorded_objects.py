"""What Stripe's invoices, credit, refunds and disputes leave here: rows, journal entries, incidents, notifications."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from control import incidents, journal, sql
from control.billing.objects import Object, about_of, created_at
from control.billing.subscriptions import failed_payments, mirror
from control.db import Connection
from control.ids import uuid7_of
from control.journal import Action, Author, Change
from control.notifications.outbox import Notification
from control.sql.webhooks import Event

DISPUTE = "stripe_dispute"

NOTIFIED = {
    "customer.subscription.trial_will_end": "subscription.trial_will_end",
    "invoice.payment_failed": "invoice.payment_failed",
    "invoice.payment_action_required": "invoice.payment_action_required",
    "charge.dispute.created": "dispute.created",
}
"""What the vendor's own system is told of, by the event's type."""


async def record_object(
    connection: Connection, org: str, customer: str, stripe_object: Object, now: float, author: Author
) -> None:
    """One of them as Stripe has it now; one that is gone there goes here, too."""
    if stripe_object["object"] == "deleted" or stripe_object.get("deleted"):
        await sql.billing.drop_invoice(connection, id=stripe_object["id"])
        await incidents.close(connection, now, failed_payments.FAILED, stripe_object["id"])
    elif stripe_object["object"] == "invoice":
        await _record_invoice(connection, org, stripe_object, now, author)
    else:
        await _record_entry(connection, org, customer, stripe_object, now, author)


async def _record_invoice(connection: Connection, org: str, invoice: Object, now: float, author: Author) -> None:
    row = mirror.invoice_row(invoice, org)
    before = await sql.billing.put_invoice(connection, **row)
    await failed_payments.record(connection, now, org, invoice)
    if before != row["status"]:
        after = {name: row[name] for name in ("id", "status", "total_minor", "currency")}
        action = cast("Action", f"invoice.{row['status']}")
        change = Change(action, org, {"status": before} if before else None, after)
        await journal.record(connection, author, now, [change])


async def _record_entry(
    connection: Connection, org: str, customer: str, entry: Object, now: float, author: Author
) -> None:
    row = mirror.entry_row(entry, org, customer)
    if await sql.billing.put_entry(connection, **row):
        after = {name: row[name] for name in ("id", "kind", "amount_minor", "currency", "status")}
        action = cast("Action", f"{row['kind']}.recorded")
        await journal.record(connection, author, now, [Change(action, org, None, after)])
        if row["kind"] == "dispute":
            await _update_dispute(connection, org, row, now)


async def _update_dispute(connection: Connection, org: str, row: Mapping[str, Any], now: float) -> None:
    if row["status"] in ("won", "lost", "warning_closed", "prevented"):
        await incidents.close(connection, now, DISPUTE, row["id"])
    else:
        content = {name: row[name] for name in ("customer", "amount_minor", "currency", "status", "reason")}
        await incidents.open(connection, now, DISPUTE, row["id"], org, content)


def notifications_of(events: Sequence[Event], org: str) -> list[Notification]:
    """What the vendor's own system is told of these. Pure."""
    return [_notification(event, org) for event in events if event.type in NOTIFIED]


def _notification(event: Event, org: str) -> Notification:
    about = about_of(event.payload)
    data: dict[str, Any] = {"org": org, "stripe_event": event.id, "object": about.get("id")}
    if isinstance(url := about.get("hosted_invoice_url"), str) and url:
        data["hosted_invoice_url"] = url
    # The event's own id: it may be dealt with again after a crash, or be replayed.
    at = created_at(event.payload, 0).timestamp()
    return Notification(NOTIFIED[event.type], org, data, uuid7_of(event.id, at))

"""The audit journal: who changed what, from what, to what. Written in the transaction of the change itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args
from uuid import UUID

from control import sql
from control.cursors import Page, read_page
from control.db import Connection
from control.ids import uuid7
from control.moments import moment
from control.sql.journal import Entry, NewEntry

Content = Mapping[str, Any] | None

Action = Literal[
    "action.declined",
    "action.done",
    "action.refused",
    "action.requested",
    "action.unanswered",
    "action.undone",
    "action.withdrawn",
    "activation_code.created",
    "activation_code.revoked",
    "admin_role.set",
    "admin_role.withdrawn",
    "balance.recorded",
    "console_link.created",
    "coupon.created",
    "coupon.created.refused",
    "coupon.created.unanswered",
    "credit.given",
    "credit.given.refused",
    "credit.given.unanswered",
    "credit_note.recorded",
    "discount.set",
    "discount.set.refused",
    "discount.set.unanswered",
    "dispute.recorded",
    "entitlement.ended",
    "entitlement.plan_version",
    "entitlement.resumed",
    "entitlement.scheduled",
    "entitlement.set",
    "entitlement.subscribed",
    "entitlement.suspended",
    "entitlement.unscheduled",
    "grant.created",
    "grant.revoked",
    "incident.acknowledged",
    "incident.noted",
    "incident.resolved",
    "incident.unacknowledged",
    "invoice.draft",
    "invoice.open",
    "invoice.paid",
    "invoice.uncollectible",
    "invoice.void",
    "key.changed",
    "key.created",
    "key.imported",
    "key.revoked",
    "key.rolled",
    "member.added",
    "member.removed",
    "member.role",
    "notifications.resent",
    "organization.created",
    "organization.customer_linked",
    "organization.customer_unlinked",
    "organization.deleted",
    "organization.renamed",
    "organization.restored",
    "overage.frozen",
    "overage.resent",
    "plan.added",
    "plan.archived",
    "plan.changed",
    "plan.restored",
    "promotion_code.created",
    "promotion_code.created.refused",
    "promotion_code.created.unanswered",
    "refund.given",
    "refund.given.refused",
    "refund.given.unanswered",
    "refund.recorded",
    "revocation.lifted",
    "revocation.set",
    "service_token.created",
    "service_token.filed",
    "service_token.revoked",
    "signing_key.created",
    "signing_key.resealed",
    "signing_key.retired",
    "site.activated",
    "site.cloned",
    "site.moved",
    "site.promoted",
    "site.reactivated",
    "site.reclaimed",
    "site.rejoined",
    "site.released",
    "site.renamed",
    "site.revoked",
    "token.issued",
    "session.began",
    "session.ended",
    "usage.archived",
    "usage.put_back_late",
    "usage.rebased",
    "usage.recovered",
    "usage.restored",
    "user.changed",
    "user.created",
    "user.deleted",
    "webhooks.replayed",
]
"""What can happen to what."""
ACTIONS: Final[tuple[str, ...]] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and by which request."""

    actor: str
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Change:
    action: Action
    org: str | None
    """None: the change is about all organizations, such as one of a plan."""
    before: Content
    after: Content


async def record(connection: Connection, author: Author, now: float, changes: Sequence[Change]) -> None:
    at = moment(now)
    await sql.journal.record(
        connection,
        [
            NewEntry(
                id=uuid7(),
                at=at,
                actor=author.actor,
                action=change.action,
                org=change.org,
                before=change.before,
                after=change.after,
                correlation_id=author.correlation_id,
            )
            for change in changes
        ],
    )


async def of_organization(connection: Connection, org: str, before: UUID | None, limit: int) -> Page[Entry, UUID]:
    """The newest first; `before` is the id of the last entry of the previous page. Raises CursorUnknown."""
    return await read_page(
        "before",
        before,
        limit,
        exists=lambda entry: sql.journal.is_entry(connection, org=org, id=entry),
        read=lambda entry, rows_max: sql.journal.of_organization(
            connection, org=org, before=entry, limit_rows=rows_max
        ),
        cursor_of=lambda entry: entry.id,
    )

"""The audit journal: who changed what, from what, to what. Written in the transaction of the change itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

from control import sql
from control.aliases import Told, aliased, named, spellings
from control.cursors import CursorUnknown, Page
from control.db import Connection
from control.ids import uuid7
from control.moments import moment
from control.sql.journal import Entry, NewEntry, SealedEntry

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
    "alerts.chosen",
    "backup.restored",
    "balance.recorded",
    "bulk_action.begun",
    "bulk_action.stopped",
    "console_link.created",
    "coupon.created",
    "coupon.created.refused",
    "coupon.created.unanswered",
    "credit.given",
    "credit.given.refused",
    "credit.given.unanswered",
    "credit.taken_back",
    "credit.taken_back.refused",
    "credit.taken_back.unanswered",
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
    "organization.shadow_begun",
    "organization.shadow_ended",
    "overage.frozen",
    "overage.resent",
    "overage_cap.set",
    "person.erased",
    "person.exported",
    "plan.added",
    "plan.archived",
    "plan.changed",
    "plan.restored",
    "portal_link.created",
    "portal_session.began",
    "portal_session.ended",
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
COUNTED_ROUGHLY: Final = 10_000  # a word that is in half as many entries is looked up in their index
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
    entries = await aliased(connection, [Told(author.actor, change.before, change.after) for change in changes])
    await sql.journal.record(
        connection,
        [
            NewEntry(
                id=uuid7(),
                at=at,
                actor=told.actor,
                action=change.action,
                org=change.org,
                before=told.before,
                after=told.after,
                correlation_id=author.correlation_id,
            )
            for change, told in zip(changes, entries, strict=True)
        ],
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries a list has; None: whichever."""

    org: str | None = None
    action: str | None = None
    actor: str | None = None
    text: str | None = None
    """Words of what was and is, of the actor and of the correlation id: all of them."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""


async def search(connection: Connection, wanted: Wanted, before: UUID | None, limit: int) -> Page[SealedEntry, UUID]:
    """The newest first; `before` is the id of the last entry of the previous page. Raises CursorUnknown.

    `connection`: of `Database.planned_anew`."""
    at = None if before is None else await sql.journal.time_of(connection, org=None, id=before)
    words = None if wanted.text is None else await spellings(connection, wanted.text)
    if words is not None:
        await _choose_way(connection, words)
    rows = await sql.journal.page(
        connection,
        org=wanted.org,
        action=wanted.action,
        actors=None if wanted.actor is None else await spellings(connection, wanted.actor),
        words=words,
        since=wanted.since,
        until=wanted.until,
        before_at=at,
        before=_known(before, at),
        limit_rows=limit,
    )
    return Page(await named(connection, rows), rows[-1].id if len(rows) == limit else None)


async def _choose_way(connection: Connection, words: Sequence[str]) -> None:
    """How the journal is searched for words: those that are rare are looked up, others are soon met."""
    await sql.journal.count_roughly(connection, most=str(COUNTED_ROUGHLY))
    rarest = sum([await sql.journal.entries_with_rarest(connection, words=each) for each in words])
    await sql.journal.search_by_words(connection, by_words=rarest < COUNTED_ROUGHLY // 2)


async def of_organization(connection: Connection, org: str, before: UUID | None, limit: int) -> Page[Entry, UUID]:
    """The newest first; `before` is the id of the last entry of the previous page. Raises CursorUnknown."""
    at = None if before is None else await sql.journal.time_of(connection, org=org, id=before)
    rows = await sql.journal.of_organization(
        connection, org=org, before_at=at, before=_known(before, at), limit_rows=limit
    )
    return Page(await named(connection, rows), rows[-1].id if len(rows) == limit else None)


async def find(connection: Connection, id_: UUID) -> SealedEntry | None:
    row = await sql.journal.find(connection, id=id_)
    return None if row is None else (await named(connection, [row]))[0]


def _known(before: UUID | None, at: datetime | None) -> UUID | None:
    if before is not None and at is None:
        raise CursorUnknown("before")
    return before

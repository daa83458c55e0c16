"""`/v1/journal`: who changed what, of all organizations, and how it is sealed."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from control import sql
from control.access.permissions import Permission
from control.api.organizations import JournalEntryView
from control.cursors import read_page
from control.documents import BoundedMoment, View
from control.http.context import Ctx
from control.http.guards import Allowed
from control.http.queries import unknown_word
from control.http.refusals import DOCUMENTED
from control.journal import ACTIONS
from control.organizations import store as organizations
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/journal", tags=["journal"], responses=DOCUMENTED)


class SealedEntryView(JournalEntryView):
    org: str | None
    """The organization that the entry is about; null if it is about all, such as a change of a plan."""
    seq: int | None
    """The number of its seal; null until it is sealed, about a second later."""
    hash: str | None
    """The hash of its seal: SHA-256, in hexadecimal digits."""


class SealedJournalPage(View):
    entries: list[SealedEntryView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


@router.get("", dependencies=[Allowed(Permission.AUDIT_READ)])
async def list_journal(
    ctx: Ctx,
    org: Annotated[str | None, Query(pattern=ORG_PATTERN)] = None,
    action: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]+$")] = None,
    since: BoundedMoment | None = None,
    until: Annotated[BoundedMoment | None, Query(description="Exclusive.")] = None,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> SealedJournalPage:
    """Lists the journal. It can be limited to an organization, to an action such as `entitlement.set`, and to a
    time."""
    if org is not None:
        await organizations.find_any(ctx.db, org)
    async with ctx.db.connection() as connection:
        # What an earlier release wrote stays to be found.
        if action is not None and action not in ACTIONS and not await sql.journal.has_action(connection, action=action):
            raise unknown_word("action", action, ACTIONS)
        page = await read_page(
            "before",
            before,
            limit,
            exists=lambda entry: sql.journal.is_entry(connection, org=None, id=entry),
            read=lambda entry, rows_max: sql.journal.page(
                connection, org=org, action=action, since=since, until=until, before=entry, limit_rows=rows_max
            ),
            cursor_of=lambda entry: entry.id,
        )
    return SealedJournalPage(entries=[SealedEntryView.model_validate(row) for row in page.rows], next=page.next)

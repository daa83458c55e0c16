"""`/v1/journal`: who changed what, of all organizations, and how it is sealed."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from control.access.guards import Admin
from control.context import Ctx
from control.db import statements
from control.http.documents import BoundedMoment, View
from control.http.refusals import DOCUMENTED
from control.organizations.api import JournalEntryView
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/journal", tags=["journal"], responses=DOCUMENTED)


class SealedEntryView(JournalEntryView):
    org: str | None
    """The organization that it concerns; null: all, such as a plan."""
    seq: int | None
    """Of its seal; null for the second until it has one."""
    hash: str | None
    """Of its seal: SHA-256, in hexadecimal digits."""


class SealedJournalPage(View):
    entries: list[SealedEntryView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


@router.get("", dependencies=[Admin])
async def list_journal(
    ctx: Ctx,
    org: Annotated[str | None, Query(pattern=ORG_PATTERN)] = None,
    action: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]+$")] = None,
    since: BoundedMoment | None = None,
    until: Annotated[BoundedMoment | None, Query(description="Exclusive.")] = None,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> SealedJournalPage:
    """A page of the journal: of an organization, of an action such as `entitlement.set`, of a time, or of all."""
    async with ctx.db.connection() as connection:
        rows = statements("journal").page(
            connection, org=org, action=action, since=since, until=until, before=before, limit_rows=limit
        )
        entries = [SealedEntryView.model_validate(dict(row)) async for row in rows]
    return SealedJournalPage(entries=entries, next=entries[-1].id if len(entries) == limit else None)

"""`/v1/incidents`: what an admin must look at."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from control import incidents
from control.documents import View
from control.http.context import Ctx
from control.http.guards import Admin, AdminAuthor
from control.http.refusals import DOCUMENTED, Refusal
from quota import problems

router = APIRouter(prefix="/v1/incidents", tags=["incidents"], responses=DOCUMENTED)

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class IncidentView(View):
    id: UUID
    kind: str
    """What happened: `usage_quarantined`."""
    key: str
    """What it happened to: one incident is open for each kind and key."""
    org: str | None
    """The organization that it concerns; null: no single one."""
    content: dict[str, Any]
    """Of the last time."""
    count: int
    """How often it happened while the incident was open."""
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    """null: it is open."""


class IncidentPage(View):
    incidents: list[IncidentView]
    """The open ones first, the newest first among them and among the closed ones."""
    next: str | None
    """`after` of the next page; null on the last."""


@router.get("", dependencies=[Admin])
async def list_incidents(
    ctx: Ctx,
    status: Literal["open", "closed"] | None = None,
    after: Annotated[str | None, Query(pattern=f"^(open|closed):{_UUID}$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> IncidentPage:
    """A page of incidents; `status` leaves out the others."""
    found = await incidents.page(
        ctx.db, None if status is None else status == "open", None if after is None else _position(after), limit
    )
    views = [IncidentView.model_validate(each) for each in found]
    following = None
    if len(views) == limit:
        # Whether it was open is part of the position: it may be closed before the next page is asked for.
        following = f"{'open' if views[-1].closed_at is None else 'closed'}:{views[-1].id}"
    return IncidentPage(incidents=views, next=following)


@router.post("/{incident}/resolve")
async def resolve_incident(incident: UUID, ctx: Ctx, author: AdminAuthor) -> IncidentView:
    """Closes an incident that was seen to. What happens again opens another."""
    found = await incidents.resolve(ctx.db, incident, ctx.clock(), author)
    if found is None:
        raise Refusal(problems.NOT_FOUND, "There is no such incident.")
    return IncidentView.model_validate(found)


def _position(after: str) -> tuple[bool, UUID]:
    status, _, incident = after.partition(":")
    return status == "open", UUID(incident)

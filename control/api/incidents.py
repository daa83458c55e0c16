"""`/v1/incidents`: what an admin must look at."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from control import incidents
from control.access.permissions import Permission
from control.documents import View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor
from control.http.refusals import DOCUMENTED, Refusal
from quota import problems

router = APIRouter(prefix="/v1/incidents", tags=["incidents"], responses=DOCUMENTED)

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class IncidentView(View):
    id: UUID
    kind: str
    """What happened: `usage_quarantined`."""
    key: str
    """What it happened to. Of each kind and key, at most one incident is open."""
    org: str | None
    """The organization that the incident is about; null if it is not about a single one."""
    content: dict[str, Any]
    """What is known of the last time."""
    count: int
    """How often it happened while the incident was open."""
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    """null: the incident is open."""


class IncidentPage(View):
    incidents: list[IncidentView]
    """The open ones first, the newest first among them and among the closed ones."""
    next: str | None
    """`after` of the next page; null on the last."""


@router.get("", dependencies=[Allowed(Permission.INCIDENTS_READ)])
async def list_incidents(
    ctx: Ctx,
    status: Literal["open", "closed"] | None = None,
    after: Annotated[str | None, Query(pattern=f"^(open|closed):{_UUID}$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> IncidentPage:
    """Lists incidents: all of them, or those with the given `status`."""
    is_open = None if status is None else status == "open"
    page = await incidents.page(ctx.db, is_open, None if after is None else _position(after), limit)
    return IncidentPage(
        incidents=[IncidentView.model_validate(row) for row in page.rows],
        next=None if page.next is None else _text(page.next),
    )


@router.post("/{incident}/resolve", dependencies=[Allowed(Permission.INCIDENTS_WRITE)])
async def resolve_incident(incident: UUID, ctx: Ctx, author: CallAuthor) -> IncidentView:
    """Closes an incident. If the same happens again, another one is opened."""
    resolved = await incidents.resolve(ctx.db, incident, ctx.clock(), author)
    if resolved is None:
        raise Refusal(problems.NOT_FOUND, "There is no such incident.")
    return IncidentView.model_validate(resolved)


def _position(after: str) -> incidents.Position:
    status, _, incident = after.partition(":")
    return incidents.Position(status == "open", UUID(incident))


def _text(position: incidents.Position) -> str:
    return f"{'open' if position.was_open else 'closed'}:{position.id}"

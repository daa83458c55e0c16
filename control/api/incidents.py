"""`/v1/incidents`: what an admin must look at, who sees to it, and what to do about each kind."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field

from control import incidents, sql
from control.access.permissions import Permission
from control.attention.kinds import KINDS, Kind, Tile, kind_of, kinds_of
from control.documents import Body, View
from control.http.context import Context, Ctx
from control.http.guards import Allowed, CallAuthor
from control.http.queries import unknown_word
from control.http.refusals import DOCUMENTED, Refusal
from control.organizations import store as organizations
from quota import problems
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/incidents", tags=["incidents"], responses=DOCUMENTED)

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
After = Annotated[str | None, Query(pattern=f"^(open|closed):{_UUID}$")]


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
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    """Who sees to it; null: nobody yet."""


class IncidentPage(View):
    incidents: list[IncidentView]
    """The open ones first, the newest first among them and among the closed ones."""
    next: str | None
    """`after` of the next page; null on the last."""


class IncidentKindView(View):
    kind: str
    title: str
    means: str
    steps: list[str]
    """What to do, in this order."""
    tile: str
    """Where it is counted among the tiles."""
    closes_by_itself: bool
    """Once its cause is gone; any other is closed by an admin."""


class IncidentKindList(View):
    kinds: list[IncidentKindView]


class NoteView(View):
    id: UUID
    at: datetime
    author: str
    text: str


class IncidentWithNotesView(IncidentView):
    about: IncidentKindView
    notes: list[NoteView]
    """The newest first."""


class NoteBody(Body):
    text: Annotated[str, Field(min_length=1, max_length=4000, pattern=r"[^\s]")]


@router.get("", dependencies=[Allowed(Permission.INCIDENTS_READ)])
async def list_incidents(
    ctx: Ctx,
    status: Literal["open", "closed"] | None = None,
    kind: Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]+$")] = None,
    org: Annotated[str | None, Query(pattern=ORG_PATTERN)] = None,
    acknowledged: bool | None = None,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    tile: Tile | None = None,
) -> IncidentPage:
    """Lists incidents: all of them, or those with the given `status`, of a kind, of an organization, those that
    somebody has acknowledged or nobody has, or those that a tile counts."""
    if org is not None:
        await organizations.find_any(ctx.db, org)
    await _refuse_unknown_kind(ctx, kind)
    kinds = None if tile is None else kinds_of(tile)
    wanted = incidents.Wanted(None if status is None else status == "open", kind, org, acknowledged, kinds)
    page = await incidents.page(ctx.db, wanted, None if after is None else _position(after), limit)
    return IncidentPage(
        incidents=[IncidentView.model_validate(row) for row in page.rows],
        next=None if page.next is None else _text(page.next),
    )


@router.get("/kinds", dependencies=[Allowed(Permission.INCIDENTS_READ)])
async def list_incident_kinds() -> IncidentKindList:
    """Lists the kinds of incidents, with what each means and what to do about it."""
    return IncidentKindList(kinds=[kind_view(name, kind) for name, kind in KINDS.items()])


@router.get("/kinds/{kind}", dependencies=[Allowed(Permission.INCIDENTS_READ)])
async def get_incident_kind(
    kind: Annotated[str, Path(max_length=100, pattern=r"^[^\x00]+$")], ctx: Ctx
) -> IncidentKindView:
    """Returns what a kind of incident means, and what to do about it."""
    if kind not in KINDS:
        async with ctx.db.connection() as connection:
            if not await sql.incidents.has_kind(connection, kind=kind):
                raise Refusal(problems.NOT_FOUND, "There is no such kind of incident.")
    return kind_view(kind, kind_of(kind))


@router.get("/{incident}", dependencies=[Allowed(Permission.INCIDENTS_READ)])
async def get_incident(incident: UUID, ctx: Ctx) -> IncidentWithNotesView:
    """Returns one incident, what admins have noted, and what to do about it."""
    found = await incidents.find(ctx.db, incident)
    if found is None:
        raise _unknown()
    row, notes = found
    return IncidentWithNotesView.model_validate(
        IncidentView.model_validate(row).model_dump()
        | {"about": kind_view(row.kind, kind_of(row.kind)), "notes": [NoteView.model_validate(note) for note in notes]}
    )


@router.post("/{incident}/acknowledge", dependencies=[Allowed(Permission.INCIDENTS_WRITE)])
async def acknowledge_incident(incident: UUID, ctx: Ctx, author: CallAuthor) -> IncidentView:
    """Says that the caller sees to it. Who did so first stays."""
    return _view(await incidents.acknowledge(ctx.db, incident, ctx.clock(), author))


@router.delete("/{incident}/acknowledge", dependencies=[Allowed(Permission.INCIDENTS_WRITE)])
async def withdraw_acknowledgement(incident: UUID, ctx: Ctx, author: CallAuthor) -> IncidentView:
    """Says that nobody sees to it."""
    return _view(await incidents.withdraw_acknowledgement(ctx.db, incident, ctx.clock(), author))


@router.post("/{incident}/notes", status_code=201, dependencies=[Allowed(Permission.INCIDENTS_WRITE)])
async def add_incident_note(incident: UUID, body: NoteBody, ctx: Ctx, author: CallAuthor) -> NoteView:
    """Notes something about an incident, for whoever looks at it next."""
    note = await incidents.add_note(ctx.db, incident, body.text, ctx.clock(), author)
    if note is None:
        raise _unknown()
    return NoteView.model_validate(note)


@router.post("/{incident}/resolve", dependencies=[Allowed(Permission.INCIDENTS_WRITE)])
async def resolve_incident(incident: UUID, ctx: Ctx, author: CallAuthor) -> IncidentView:
    """Closes an incident. If the same happens again, another one is opened."""
    return _view(await incidents.resolve(ctx.db, incident, ctx.clock(), author))


def kind_view(name: str, kind: Kind) -> IncidentKindView:
    return IncidentKindView(
        kind=name,
        title=kind.title,
        means=kind.means,
        steps=list(kind.steps),
        tile=kind.tile.value,
        closes_by_itself=kind.closes_by_itself,
    )


async def _refuse_unknown_kind(ctx: Context, kind: str | None) -> None:
    """Raises Refusal. What an earlier release opened stays to be found."""
    if kind is not None and kind not in KINDS:
        async with ctx.db.connection() as connection:
            if not await sql.incidents.has_kind(connection, kind=kind):
                raise unknown_word("kind", kind, KINDS)


def _view(incident: sql.incidents.Incident | None) -> IncidentView:
    """Raises Refusal."""
    if incident is None:
        raise _unknown()
    return IncidentView.model_validate(incident)


def _unknown() -> Refusal:
    return Refusal(problems.NOT_FOUND, "There is no such incident.")


def _position(after: str) -> incidents.Position:
    status, _, incident = after.partition(":")
    return incidents.Position(status == "open", UUID(incident))


def _text(position: incidents.Position) -> str:
    return f"{'open' if position.was_open else 'closed'}:{position.id}"

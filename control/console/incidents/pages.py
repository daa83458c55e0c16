"""What an admin must look at: live tiles, the list, one incident with its notes, and what to do about each kind."""

from typing import Final, Literal
from uuid import UUID

from starlette.responses import Response

from control.access.permissions import Permission
from control.api.incidents import (
    After,
    NoteBody,
    acknowledge_incident,
    add_incident_note,
    get_incident,
    get_incident_kind,
    list_incident_kinds,
    list_incidents,
    resolve_incident,
    withdraw_acknowledgement,
)
from control.api.tiles import get_incident_tiles
from control.attention.kinds import Tile, kinds_of
from control.console.frame.forms import blank, read_form
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.rendering import address_with, redirect
from control.console.frame.sections import sections
from control.console.frame.viewer import Viewer
from control.http.context import Context, Ctx

router = Pages("/console/incidents")

LISTED: Final = 12  # a page stays below 100 KB
TILES: Final = [(each.value, each.value.replace("_", " ").capitalize()) for each in Tile if kinds_of(each)]
"""Those that are about incidents."""


@router.page("", permission=Permission.INCIDENTS_READ, twin="/v1/incidents")
async def show(
    ctx: Ctx,
    viewer: Viewing,
    status: Literal["open", "closed", "all"] = "open",
    kind: str = "",
    org: str = "",
    acknowledged: Literal["true", "false", ""] = "",
    after: After = None,
    tile: Tile | Literal[""] = "",
) -> Response:
    """Tiles that are live, and the list."""
    wanted: Literal["open", "closed"] | None = None if status == "all" else status
    found = await sections(
        tiles=get_incident_tiles(ctx),
        incidents=list_incidents(
            ctx,
            wanted,
            kind or None,
            org.strip() or None,
            None if not acknowledged else acknowledged == "true",
            after,
            LISTED,
            tile or None,
        ),
    )
    titles = {each.kind: each.title for each in (await list_incident_kinds()).kinds}
    known = titles | ({kind: kind} if kind and kind not in titles else {})
    return viewer.page(
        "incidents/list.html",
        found=found,
        titles=titles,
        options=[("", "All kinds"), *sorted(known.items(), key=lambda each: each[1])],
        given={"status": status, "kind": kind, "org": org, "acknowledged": acknowledged, "tile": tile and tile.value},
        tiles=[
            ("", "All"),
            *((each.value, each.value.replace("_", " ").capitalize()) for each in Tile if kinds_of(each)),
        ],
        after=after,
        twin=address_with(
            "/v1/incidents",
            {
                "status": wanted,
                "kind": kind or None,
                "org": org or None,
                "acknowledged": acknowledged or None,
                "tile": (tile and tile.value) or None,
                "after": after,
            },
        ),
    )


@router.page("/kinds/{kind}", permission=Permission.INCIDENTS_READ, twin="/v1/incidents/kinds/{kind}")
async def show_kind(kind: str, ctx: Ctx, viewer: Viewing) -> Response:
    """What a kind of incident means, what to do about it, and which are open."""
    about = await get_incident_kind(kind, ctx)
    found = await sections(incidents=list_incidents(ctx, "open", kind, None, None, None, LISTED))
    return viewer.page("incidents/kind.html", about=about, found=found)


@router.page("/{incident}", permission=Permission.INCIDENTS_READ, twin="/v1/incidents/{incident}")
async def show_one(incident: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """One incident."""
    return await _one(incident, ctx, viewer)


@router.action("/{incident}/acknowledge", permission=Permission.INCIDENTS_WRITE)
async def acknowledge(incident: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """The viewer sees to it."""
    shown = await acknowledge_incident(incident, ctx, viewer.author)
    mine = shown.acknowledged_by == viewer.author.actor
    return redirect(
        f"/console/incidents/{incident}",
        "You have acknowledged the incident." if mine else f"{shown.acknowledged_by} was first to acknowledge it.",
    )


@router.action("/{incident}/withdraw", permission=Permission.INCIDENTS_WRITE)
async def withdraw(incident: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """Nobody sees to it any more."""
    await withdraw_acknowledgement(incident, ctx, viewer.author)
    return redirect(f"/console/incidents/{incident}", "Nobody is named as seeing to it any more.")


@router.action("/{incident}/resolve", permission=Permission.INCIDENTS_WRITE)
async def resolve(incident: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """Closes it."""
    await resolve_incident(incident, ctx, viewer.author)
    return redirect(f"/console/incidents/{incident}", "The incident is closed.")


@router.action("/{incident}/notes", permission=Permission.INCIDENTS_WRITE)
async def add_note(incident: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """Adds a note."""
    form = await read_form(viewer.request, NoteBody)
    if form.value is None:
        return await _one(incident, ctx, viewer, form, 422)
    await add_incident_note(incident, form.value, ctx, viewer.author)
    return redirect(f"/console/incidents/{incident}", "The note is added.")


async def _one(incident: UUID, ctx: Context, viewer: Viewer, form: object = None, status: int = 200) -> Response:
    shown = await get_incident(incident, ctx)
    return viewer.page("incidents/one.html", status, incident=shown, form=form or blank())

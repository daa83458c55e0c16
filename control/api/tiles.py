"""`/v1/incidents/tiles`: the numbers that an admin looks at all day, once or live."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from control.access.permissions import Permission
from control.attention import tiles
from control.db import Database
from control.documents import View
from control.http.context import Ctx
from control.http.guards import Allowed
from control.http.refusals import DOCUMENTED, Refusal
from control.http.watching import right_of
from quota import problems

router = APIRouter(prefix="/v1/incidents/tiles", tags=["incidents"], responses=DOCUMENTED)

BUSY_SECONDS = 10


class TileView(View):
    number: int
    more: bool
    """There are more than `number`: nobody counts any further."""
    since: datetime | None
    """Since when the oldest of them is there."""
    needs_attention: bool
    figures: dict[str, int]
    """What `number` is made of, such as the kinds of incidents, without those of which there is none."""


class PositionView(View):
    """The moment that all numbers belong to."""

    snapshot: str
    """The transactions of PostgreSQL that are included, as `pg_current_snapshot()` writes them."""
    watermarks: dict[str, str]
    """By shard: the last usage event that is included, by its id in the shard's stream."""


class TilesView(View):
    as_of: datetime
    """By PostgreSQL's clock."""
    position: PositionView
    tiles: dict[str, TileView]
    open_incidents: int
    unacknowledged: int
    """Open incidents that nobody has acknowledged."""


class EventStream(StreamingResponse):
    media_type = "text/event-stream"


@router.get("", dependencies=[Allowed(Permission.INCIDENTS_READ)])
async def get_incident_tiles(ctx: Ctx) -> TilesView:
    """Returns how many payments failed, organizations are at their limit, messages wait or were given up, counters
    drifted, and what else is open. All numbers are of one moment."""
    return await look(ctx.db)


@router.get(
    "/stream",
    dependencies=[Allowed(Permission.INCIDENTS_READ)],
    response_class=EventStream,
    responses={
        200: {
            "description": "Events: `tiles` (what GET /v1/incidents/tiles returns), `away` (the database does not "
            "answer) and `over` (the caller may not see it any more).",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream_incident_tiles(ctx: Ctx, request: Request) -> EventStream:
    """Sends the same again and again as server-sent events, some times a second. It ends when the session or the token
    does."""
    if ctx.tiles.is_full:
        raise Refusal(problems.OVERLOADED, "Too many watch already.", {"Retry-After": str(BUSY_SECONDS)})
    credential, may_watch = await right_of(ctx, request, Permission.INCIDENTS_READ)
    events: AsyncIterator[bytes] = ctx.tiles.follow(credential, may_watch)
    return EventStream(events, headers={"X-Accel-Buffering": "no"})  # a proxy that collects answers would hold it back


async def look(db: Database) -> TilesView:
    """Raises StoreUnavailable."""
    read = await tiles.read(db)
    return TilesView(
        as_of=read.at,
        position=PositionView(snapshot=read.snapshot, watermarks=dict(read.watermarks)),
        tiles={
            tile.value: TileView(
                number=min(numbers.number, tiles.COUNTED_MAX),
                more=numbers.more or numbers.number > tiles.COUNTED_MAX,
                since=numbers.since,
                needs_attention=numbers.needs_attention,
                figures={figure.name: min(figure.number, tiles.COUNTED_MAX) for figure in numbers.figures},
            )
            for tile, numbers in read.tiles.items()
        },
        open_incidents=min(read.open, tiles.COUNTED_MAX),
        unacknowledged=min(read.unacknowledged, tiles.COUNTED_MAX),
    )


async def shown(db: Database) -> Any:
    """For the stream. Raises StoreUnavailable."""
    return (await look(db)).model_dump(mode="json")

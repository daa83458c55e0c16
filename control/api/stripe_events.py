"""`/api/admin/webhooks`: the inbox of Stripe's events, what became of each, and processing them again."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from control import sql
from control.access.permissions import Permission
from control.api.billing import billing_of
from control.billing.subscriptions import webhook_replay
from control.cursors import read_page
from control.documents import Body, Moment, View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor
from control.http.refusals import DOCUMENTED, Refusal
from quota import problems

router = APIRouter(prefix="/api/admin/webhooks", tags=["billing"], responses=DOCUMENTED)

ATTEMPTS_SHOWN: Final = 100

EventState = Literal["waiting", "done", "ignored", "dead"]


class EventView(View):
    id: str
    type: str
    customer: str | None
    state: EventState
    created_at: datetime
    received_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    ended_at: datetime | None
    last_error: str | None


class EventPage(View):
    events: list[EventView]
    """The newest first."""
    next: str | None


class FailedAttemptView(View):
    at: datetime
    attempt: int
    """Counted anew when somebody asks for another try."""
    error: str


class WholeEventView(EventView):
    payload: dict[str, Any]
    """What Stripe sent."""
    failed_attempts: list[FailedAttemptView]
    """The newest first, at most a hundred."""


class ReplayBody(Body):
    """The events that are processed again: chosen by id, by the time at which Stripe created them, or all that were
    given up."""

    events: list[Annotated[str, Field(pattern=r"^evt_[A-Za-z0-9_]{1,200}$")]] = Field(default=[], max_length=1000)
    since: Moment | None = None
    until: Moment | None = None
    """Left out: until now."""
    source: Literal["inbox", "stripe"] = "stripe"
    """inbox: events that arrived here. stripe: also events in Stripe's own list, which goes back 30 days."""
    state: Literal["dead"] | None = None


class ReplayView(View):
    replayed: int
    """Events that are processed again."""
    fetched: int
    """Those of them that had never arrived."""
    unknown: list[str]
    """Ids that neither the inbox nor Stripe knows."""


@router.get("", dependencies=[Allowed(Permission.WEBHOOKS_READ)])
async def list_stripe_events(
    ctx: Ctx,
    state: EventState | None = None,
    before: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> EventPage:
    """Lists the events that Stripe sent, and their state."""
    async with ctx.db.planned_anew() as connection:
        page = await read_page(
            "before",
            before,
            limit,
            exists=lambda event: sql.webhooks.is_event(connection, id=event),
            read=lambda event, rows_max: sql.webhooks.page(connection, state=state, before=event, limit_rows=rows_max),
            cursor_of=lambda event: event.id,
        )
    return EventPage(events=[EventView.model_validate(row) for row in page.rows], next=page.next)


@router.get("/{event}", dependencies=[Allowed(Permission.WEBHOOKS_READ)])
async def get_stripe_event(
    event: Annotated[str, Path(max_length=255, pattern=r"^[^\x00]+$")], ctx: Ctx
) -> WholeEventView:
    """Returns one event: what Stripe sent, and why attempts to deal with it failed."""
    async with ctx.db.snapshot() as connection:
        row = await sql.webhooks.find(connection, id=event)
        if row is None:
            raise Refusal(problems.NOT_FOUND, "No event has this id here.")
        failed = await sql.webhooks.failed_attempts(connection, id=event, limit_rows=ATTEMPTS_SHOWN)
    return WholeEventView.model_validate(
        asdict(row) | {"failed_attempts": [FailedAttemptView.model_validate(each) for each in failed]}
    )


@router.post("/replay", dependencies=[Allowed(Permission.WEBHOOKS_WRITE)])
async def replay_stripe_events(body: ReplayBody, ctx: Ctx, author: CallAuthor) -> ReplayView:
    """Processes events again, chosen by id, by time, or because they were given up. This is harmless for events that
    were processed already."""
    if [bool(body.events), body.since is not None, body.state is not None].count(True) != 1:
        raise Refusal(problems.INVALID, "One of these must be given: events, since (and until), or state.")
    billing, now = billing_of(ctx), ctx.clock()
    if body.events:
        result = await webhook_replay.by_id(ctx.db, billing.client, billing.inbox, body.events, now, author)
    elif body.state is not None:
        result = await webhook_replay.dead(ctx.db, billing.inbox, now, author)
    else:
        since = body.since.timestamp() if body.since else now
        until = body.until.timestamp() if body.until else now + 1
        fetch = billing.client if body.source == "stripe" else None
        result = await webhook_replay.between(ctx.db, fetch, billing.inbox, since, until, now, author)
    return ReplayView(replayed=result.replayed, fetched=result.fetched, unknown=result.unknown)

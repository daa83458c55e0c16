"""`/v1/bulk-actions`: one action for all organizations that a filter matches."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, ValidationError

from control import sql
from control.access.callers import Caller
from control.access.permissions import Permission
from control.actions.action import Action, Call
from control.actions.effect import Effect
from control.api.organizations import OrganizationStatus
from control.bulk import runs
from control.bulk.runs import OFFERED, ORGANIZATIONS_MAX, CountDiffers, TooMany
from control.directory.listing import Filter
from control.documents import Body, View, Whole
from control.entitlements.plans import PlanCode
from control.http.context import Context, Ctx
from control.http.guards import Allowed, CallAuthor, Identified, require
from control.http.queries import unknown_word
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from quota import problems

router = APIRouter(prefix="/v1/bulk-actions", tags=["actions"], responses=DOCUMENTED)

REFUSALS_SHOWN = 100


class FilterBody(Body):
    """Which organizations, as `GET /v1/organizations` has it. An empty one means all."""

    q: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")] | None = None
    plan: PlanCode | None = None
    status: OrganizationStatus | None = None
    near_quota: bool | None = None
    payment_failed: bool | None = None
    shadow: bool | None = None

    def chosen(self) -> Filter:
        return Filter(self.q, self.plan, self.status, self.near_quota, self.payment_failed, self.shadow)


class BulkPreviewBody(Body):
    filter: FilterBody
    action: Annotated[str, Field(max_length=100)]
    """override, grant, suspend, resume, credit, discount, cancel, resync or reconcile."""
    fields: dict[str, Any] = Field(default={}, max_length=100)
    """As the action of one organization takes them."""


class BulkBody(BulkPreviewBody):
    reason: Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00]+$")]
    """For the journal."""
    found: Annotated[int, Whole, Field(strict=True, ge=1, le=ORGANIZATIONS_MAX)]
    """As the preview has it. If the filter matches another number by now, nothing is done (409)."""


class SampledView(View):
    organization: str
    effect: Effect | None
    refused: str | None
    """Why it would not be done to this one."""


class BulkPreviewView(View):
    found: int
    """How many organizations the filter matches."""
    sample: list[SampledView]
    """What it would do to the first of them."""


class BulkRefusalView(View):
    organization: str
    note: str | None


class BulkView(View):
    """An action for many organizations, and how far it is."""

    id: UUID
    action: str
    fields: dict[str, Any]
    filter: dict[str, Any]
    reason: str
    asked_by: str
    asked_at: datetime
    stopped_at: datetime | None
    total: int
    waiting: int
    """Organizations that it is still to be done to."""
    done: int
    asked: int
    """Those for which it waits for a second person."""
    refused: int
    stopped: int
    refusals: list[BulkRefusalView]
    """Some of those that were refused, and why."""


class BulkList(View):
    bulk_actions: list[BulkView]
    """The newest 20, the newest first."""


@router.post("/preview", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def preview_bulk_action(
    body: BulkPreviewBody, ctx: Ctx, caller: Identified, author: CallAuthor
) -> BulkPreviewView:
    """Shows how many organizations a filter matches, and what an action would do to some of them. Nothing is done. It
    needs the permission of the action itself."""
    action, call = await _wanted(body, "preview", ctx, caller, author)
    try:
        shown = await runs.preview(ctx.actions, action, body.filter.chosen(), call)
    except TooMany as e:
        raise _too_many() from e
    sample = [SampledView(organization=each.org, effect=each.effect, refused=each.refused) for each in shown.sample]
    return BulkPreviewView(found=shown.found, sample=sample)


@router.post("", status_code=202, dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def begin_bulk_action(body: BulkBody, ctx: Ctx, caller: Identified, author: CallAuthor) -> BulkView:
    """Begins an action for all organizations that a filter matches now. It is done in the background, to one after the
    other; each has its own entry in the journal, and can be undone alone. It needs the permission of the action
    itself."""
    action, call = await _wanted(body, body.reason, ctx, caller, author)
    try:
        id_ = await runs.begin(ctx.actions, action, body.filter.chosen(), call, body.found)
    except TooMany as e:
        raise _too_many() from e
    except CountDiffers as e:
        raise Refusal(problems.CONFLICT, str(e)) from e
    return await _view(ctx, id_)


@router.get("", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def list_bulk_actions(ctx: Ctx) -> BulkList:
    """Lists the newest actions for many organizations."""
    async with ctx.db.connection() as connection:
        ids = await sql.bulk.newest(connection, limit_rows=20)
    return BulkList(bulk_actions=[await _view(ctx, id_) for id_ in ids])


@router.get("/{bulk}", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def get_bulk_action(bulk: UUID, ctx: Ctx) -> BulkView:
    """Returns an action for many organizations, and how far it is."""
    return await _view(ctx, bulk)


@router.post("/{bulk}/stop", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def stop_bulk_action(bulk: UUID, ctx: Ctx, caller: Identified, author: CallAuthor) -> BulkView:
    """Stops an action for many organizations: what is not begun is not done. It needs the permission of the action
    itself."""
    held = await _view(ctx, bulk)
    if held.action in OFFERED:
        require(caller, OFFERED[held.action].permission)
    await runs.stop(ctx.actions, bulk, author, ctx.clock())
    return await _view(ctx, bulk)


async def _wanted(
    body: BulkPreviewBody, reason: str, ctx: Context, caller: Caller, author: CallAuthor
) -> tuple[Action[Any], Call[Any]]:
    """Raises Refusal."""
    action = OFFERED.get(body.action)
    if action is None:
        raise invalid_field("body.action", f"is none that is done to many (known: {', '.join(OFFERED)})")
    require(caller, action.permission)
    if body.filter.plan is not None:
        async with ctx.db.connection() as connection:
            known = await sql.directory.plans(connection)
        if body.filter.plan not in known:
            raise unknown_word("plan", body.filter.plan, known)
    try:
        fields = action.fields.model_validate(body.fields)
    except ValidationError as e:
        errors = [
            {"field": ".".join(map(str, ("body", "fields", *fault["loc"]))), "message": fault["msg"]}
            for fault in e.errors(include_url=False, include_context=False, include_input=False)
        ]
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
        raise Refusal(problems.INVALID, detail, errors=errors) from e
    return action, Call("", fields, reason, author, ctx.clock())


async def _view(ctx: Context, id_: UUID) -> BulkView:
    """Raises Refusal."""
    async with ctx.db.connection() as connection:
        row = await sql.bulk.find(connection, id=id_)
        refused = await sql.bulk.refused(connection, id=id_, limit_rows=REFUSALS_SHOWN)
    if row is None:
        raise Refusal(problems.NOT_FOUND, "There is no such action for many organizations.")
    refusals = [BulkRefusalView(organization=each.org, note=each.note) for each in refused]
    names = ("id", "fields", "filter", "reason", "asked_by", "asked_at", "stopped_at")
    counts = ("total", "waiting", "done", "asked", "refused", "stopped")
    shown = {name: getattr(row, name) for name in (*names, *counts)}
    return BulkView(**shown, action=row.name, refusals=refusals)


def _too_many() -> Refusal:
    return Refusal(problems.INVALID, f"The filter matches more than {ORGANIZATIONS_MAX:,} organizations: narrow it.")

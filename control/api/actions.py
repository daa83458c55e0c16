"""Actions of admins: what each would do, doing it, undoing it, and approving what needs a second person."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Response
from pydantic import Field, create_model

from control import sql
from control.access.permissions import Permission
from control.actions import approving, performing, undoing
from control.actions.action import Action, Call, Choices
from control.actions.catalogue import ACTIONS, action_of
from control.actions.effect import Effect
from control.actions.failures import NotPossible
from control.actions.form import FieldView, fields_of
from control.actions.lifecycle import ActionState
from control.actions.performing import Performed
from control.actions.previews import PATTERN
from control.billing.failures import StripeAway, StripeRefused
from control.cursors import read_page
from control.documents import Body, View
from control.http.context import Context, Ctx
from control.http.guards import Allowed, CallAuthor, Identified, Known, Org, require
from control.http.refusals import DOCUMENTED, Refusal
from control.sql.actions import AdminAction
from quota import problems

router = APIRouter(prefix="/v1", tags=["actions"], responses=DOCUMENTED)

log = structlog.get_logger()

CHOICES_SECONDS: Final = 3.0  # a form without a list is better than none

F = TypeVar("F", bound=Body)
Reason = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00]+$")]
SHOWN = "0123456789abcdef0123456789abcdef.0123456789abcdef.-.0123456789abcdef"
State = Annotated[str, Field(pattern=PATTERN, examples=[SHOWN])]
Before = Annotated[UUID | None, Query()]
Limit = Annotated[int, Query(ge=1, le=500)]


class PreviewBody(Body, Generic[F]):
    fields: F


class PerformBody(Body, Generic[F]):
    fields: F
    """The same as for the preview."""
    reason: Reason
    """For the journal."""
    state: State
    """As the preview has it. If the organization has changed since then, nothing is done (409)."""


class UndoBody(Body):
    reason: Reason
    """For the journal."""


class ApproveBody(Body):
    state: State
    """Of the effect, as `GET /v1/approvals/{id}` shows it."""


class DeclineBody(Body):
    reason: Reason


class ActionKindView(View):
    """An action that there is."""

    name: str
    title: str
    about: str
    permission: str


class ActionKindList(View):
    actions: list[ActionKindView]


class FormView(View):
    """An action, and what it asks for."""

    name: str
    title: str
    about: str
    organization: str
    fields: list[FieldView]
    unknown: str | None
    """Why there is nothing to choose from where there would be otherwise."""


class ActionView(View):
    """An action that was done, or is waiting to be."""

    id: UUID
    organization: str
    name: str
    title: str
    fields: dict[str, Any]
    reason: str
    state: ActionState
    asked_by: str
    asked_at: datetime
    decided_by: str | None
    """Who approved or declined it."""
    decided_at: datetime | None
    note: str | None
    """Why it was declined, or what Stripe said."""
    done: dict[str, Any] | None
    """What came of it."""
    undoable: bool
    undone_by: str | None
    undone_at: datetime | None
    undo_reason: str | None


class PerformedView(ActionView):
    shown: dict[str, str]
    """Secrets that were made, such as a key. They are shown this once."""
    in_force: bool
    """false: Redis is away. It is done, and gateways go by it as soon as Redis is back."""


class ActionPage(View):
    actions: list[ActionView]
    """The newest first."""
    next: UUID | None


class ApprovalPage(View):
    approvals: list[ActionView]
    """The newest first."""
    next: UUID | None


class ApprovalView(View):
    """What waits for a second person, and what it would do now."""

    asked: ActionView
    effect: Effect | None
    """null: it does not wait, or it is not possible any more."""
    not_possible: str | None
    """Why."""


@router.get("/actions", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def list_action_kinds() -> ActionKindList:
    """Lists the actions that there are."""
    return ActionKindList(actions=[_kind(action) for action in ACTIONS.values()])


@router.get("/organizations/{org}/actions", dependencies=[Allowed(Permission.ORGANIZATIONS_READ), Known])
async def list_actions(org: Org, ctx: Ctx, before: Before = None, limit: Limit = 50) -> ActionPage:
    """Lists what admins did to an organization, and what of it was undone."""
    rows, after = await _page(ctx, org, before, limit, waiting=False)
    return ActionPage(actions=rows, next=after)


@router.get("/actions/{action}", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def get_action(action: UUID, ctx: Ctx) -> ActionView:
    """Returns one action."""
    return action_view(await _row(ctx, action))


@router.post("/actions/{action}/undo", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def undo_action(action: UUID, body: UndoBody, ctx: Ctx, caller: Identified, author: CallAuthor) -> ActionView:
    """Undoes an action, as long as what it left is still there. It needs the permission of the action itself. 409: it
    cannot be undone, or something else has changed meanwhile."""
    row = await _row(ctx, action)
    kind = action_of(row.name)
    require(caller, kind.permission)
    return action_view(await undoing.undo(ctx.actions, kind, row, body.reason, author, ctx.clock()))


@router.get("/approvals", dependencies=[Allowed(Permission.APPROVALS_READ)])
async def list_approvals(ctx: Ctx, before: Before = None, limit: Limit = 50) -> ApprovalPage:
    """Lists the actions that wait for a second person."""
    rows, after = await _page(ctx, None, before, limit, waiting=True)
    return ApprovalPage(approvals=rows, next=after)


@router.get("/approvals/{action}", dependencies=[Allowed(Permission.APPROVALS_READ)])
async def get_approval(action: UUID, ctx: Ctx, author: CallAuthor) -> ApprovalView:
    """Returns what waits for a second person, and its effect now."""
    row = await _row(ctx, action)
    kind = action_of(row.name)
    if row.state != ActionState.WAITING.value:
        return ApprovalView(asked=action_view(row), effect=None, not_possible="It does not wait any more.")
    call = Call(row.org, kind.fields.model_validate(row.fields), row.reason, author, ctx.clock())
    try:
        effect = await performing.preview(ctx.actions, kind, call)
    except NotPossible as e:
        return ApprovalView(asked=action_view(row), effect=None, not_possible=str(e))
    return ApprovalView(asked=action_view(row), effect=effect, not_possible=None)


@router.post("/approvals/{action}/approve", dependencies=[Allowed(Permission.APPROVALS_WRITE)])
async def approve_action(
    action: UUID, body: ApproveBody, ctx: Ctx, caller: Identified, author: CallAuthor
) -> PerformedView:
    """Approves an action, which is done then. It needs the permission of the action, too, and another person than the
    one who asked for it: whoever calls by a link or a token counts as who made it."""
    row = await _row(ctx, action)
    kind = action_of(row.name)
    require(caller, kind.permission)
    return performed_view(await approving.approve(ctx.actions, kind, row, body.state, author, ctx.clock()))


@router.post("/approvals/{action}/decline", dependencies=[Allowed(Permission.APPROVALS_WRITE)])
async def decline_action(action: UUID, body: DeclineBody, ctx: Ctx, author: CallAuthor) -> ActionView:
    """Declines an action, or withdraws one's own."""
    row = await _row(ctx, action)
    return action_view(await approving.decline(ctx.actions, row, body.reason, author, ctx.clock()))


async def form_of(ctx: Context, action: Action[Any], org: str) -> FormView:
    """What an action asks for, with what there is to choose from."""
    unknown: str | None = None
    choices: Choices = {}
    try:
        async with asyncio.timeout(CHOICES_SECONDS):
            choices = await action.choices(ctx.actions, org)
    except (StripeAway, StripeRefused, TimeoutError) as e:
        log.warning("there is nothing to choose from", action=action.name, reason=str(e))
        unknown = "Stripe does not tell what there is to choose from."
    return FormView(
        name=action.name,
        title=action.title,
        about=action.about,
        organization=org,
        fields=fields_of(action, choices),
        unknown=unknown,
    )


@cache
def _bodies(fields: type[Body]) -> tuple[type[Body], type[Body]]:
    """To preview, and to perform: of OverrideFields, PreviewOverrideBody and PerformOverrideBody."""
    name = fields.__name__.removesuffix("Fields")
    of_preview: type[Body] = PreviewBody[fields]  # type: ignore[valid-type]  # known when it runs
    of_perform: type[Body] = PerformBody[fields]  # type: ignore[valid-type]  # known when it runs
    return (
        create_model(f"Preview{name}Body", __base__=of_preview, __module__=__name__),
        create_model(f"Perform{name}Body", __base__=of_perform, __module__=__name__),
    )


def _add_routes(action: Action[Any]) -> None:
    """Each action has routes of its own, so that the API's document has its fields and its permission."""

    async def ask(org: Org, ctx: Ctx) -> FormView:
        return await form_of(ctx, action, org)

    async def preview(org: Org, body: PreviewBody[Any], ctx: Ctx, author: CallAuthor) -> Effect:
        call = Call(org, body.fields, "preview", author, ctx.clock())
        return await performing.preview(ctx.actions, action, call)

    async def perform(
        org: Org, body: PerformBody[Any], ctx: Ctx, author: CallAuthor, response: Response
    ) -> PerformedView:
        call = Call(org, body.fields, body.reason, author, ctx.clock())
        view = performed_view(await performing.perform(ctx.actions, action, call, body.state))
        if view.state is ActionState.WAITING:
            response.status_code = 202
        return view

    for endpoint in (ask, preview, perform):  # its operationId
        endpoint.__name__ = f"{endpoint.__name__}_{action.name}"
    preview.__annotations__["body"], perform.__annotations__["body"] = _bodies(action.fields)
    path, guards = f"/organizations/{{org}}/actions/{action.name}", [Allowed(action.permission), Known]
    router.add_api_route(
        path, ask, methods=["GET"], dependencies=guards, description=f"Returns what “{action.title}” asks for."
    )
    router.add_api_route(
        f"{path}/preview",
        preview,
        methods=["POST"],
        dependencies=guards,
        description=f"Shows what “{action.title}” would do. {action.about} Nothing is done.",
    )
    router.add_api_route(
        path,
        perform,
        methods=["POST"],
        status_code=201,
        dependencies=guards,
        responses={202: {"model": PerformedView, "description": "It waits for a second person."}},
        description=f"{action.title}. {action.about} It goes by a preview: with another state nothing is done (409).",
    )


for _action in ACTIONS.values():
    _add_routes(_action)


def action_view(row: AdminAction) -> ActionView:
    return ActionView(**_shared(row))


def performed_view(performed: Performed) -> PerformedView:
    return PerformedView(**_shared(performed.row), shown=dict(performed.shown), in_force=performed.in_force)


def _shared(row: AdminAction) -> Mapping[str, Any]:
    kind, state = ACTIONS.get(row.name), ActionState(row.state)
    return {
        "id": row.id,
        "organization": row.org,
        "name": row.name,
        "title": row.name if kind is None else kind.title,
        "fields": row.fields,
        "reason": row.reason,
        "state": state,
        "asked_by": row.asked_by,
        "asked_at": row.asked_at,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at,
        "note": row.note,
        "done": row.done,
        "undoable": row.undo is not None and state is ActionState.DONE and kind is not None,
        "undone_by": row.undone_by,
        "undone_at": row.undone_at,
        "undo_reason": row.undo_reason,
    }


def _kind(action: Action[Any]) -> ActionKindView:
    return ActionKindView(name=action.name, title=action.title, about=action.about, permission=action.permission.value)


async def _row(ctx: Context, action: UUID) -> AdminAction:
    async with ctx.db.connection() as connection:
        row = await sql.actions.find(connection, id=action)
    if row is None:
        raise Refusal(problems.NOT_FOUND, "There is no such action.")
    return row


async def _page(
    ctx: Context, org: str | None, before: UUID | None, limit: int, *, waiting: bool
) -> tuple[list[ActionView], UUID | None]:
    async with ctx.db.connection() as connection:
        page = await read_page(
            "before",
            before,
            limit,
            exists=lambda id_: sql.actions.find(connection, id=id_),
            read=lambda id_, rows_max: sql.actions.page(
                connection, org=org, waiting=waiting, before=id_, limit_rows=rows_max
            ),
            cursor_of=lambda row: row.id,
        )
    return [action_view(row) for row in page.rows], page.next

"""What waits for a second person."""

from typing import Annotated
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from control.access.permissions import Permission
from control.actions.catalogue import action_of
from control.actions.previews import PATTERN
from control.api.actions import (
    ApproveBody,
    DeclineBody,
    Reason,
    approve_action,
    decline_action,
    get_approval,
    list_approvals,
)
from control.console.actions.organization import done_page, rows_of
from control.console.frame.forms import Filled, blank, read_form
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.reasons import said
from control.console.frame.rendering import redirect
from control.console.frame.sections import section
from control.console.frame.viewer import Viewer
from control.documents import Body
from control.http.context import Context, Ctx
from control.http.exception_handlers import REFUSALS

router = Pages("/console/approvals")


class ApproveForm(Body):
    state: Annotated[str, Field(pattern=PATTERN)]


class DeclineForm(Body):
    reason: Reason


@router.page("", permission=Permission.APPROVALS_READ, twin="/v1/approvals")
async def show_approvals(ctx: Ctx, viewer: Viewing, before: UUID | None = None) -> Response:
    """All that waits."""
    return viewer.page("actions/approvals.html", page=await list_approvals(ctx, before), before=before)


@router.page("/{action}", permission=Permission.APPROVALS_READ, twin="/v1/approvals/{action}")
async def show_approval(action: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """One of them, and its effect now."""
    return await _show(viewer, ctx, action, blank())


@router.action("/{action}/approve", permission=Permission.APPROVALS_WRITE)
async def approve(action: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """Approves it: it is done."""
    form = await read_form(viewer.request, ApproveForm)
    if form.value is None:
        return await _show(viewer, ctx, action, form, status=422)
    try:
        done = await approve_action(action, ApproveBody(state=form.value.state), ctx, viewer.caller, viewer.author)
    except tuple(REFUSALS) as e:
        return await _show(viewer, ctx, action, form.with_error(None, said(e)), status=409)
    if done.shown:
        return done_page(viewer, done, shown=done.shown)
    return redirect(f"/console/actions/{action}", done=f"“{done.title}” is approved and done.")


@router.action("/{action}/decline", permission=Permission.APPROVALS_WRITE)
async def decline(action: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """Declines or withdraws it."""
    form = await read_form(viewer.request, DeclineForm)
    if form.value is None:
        return await _show(viewer, ctx, action, form, status=422)
    try:
        view = await decline_action(action, DeclineBody(reason=form.value.reason), ctx, viewer.author)
    except tuple(REFUSALS) as e:
        return await _show(viewer, ctx, action, form.with_error(None, said(e)), status=409)
    return redirect("/console/approvals", done=f"“{view.title}” is {view.state.value}.")


async def _show(
    viewer: Viewer, ctx: Context, action: UUID, form: Filled[ApproveForm] | Filled[DeclineForm], *, status: int = 200
) -> Response:
    found = await section(get_approval(action, ctx, viewer.author))
    effect = found.value.effect if found.value else None
    may = found.value is not None and viewer.can(action_of(found.value.asked.name).permission)
    return viewer.page(
        "actions/approval.html",
        status,
        found=found,
        form=form,
        rows=rows_of(effect) if effect else [],
        may=may and viewer.can(Permission.APPROVALS_WRITE),
    )

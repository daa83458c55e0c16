"""Actions on one organization: what there are, a form with its effect, and what came of it."""

import asyncio
from functools import partial
from typing import Annotated, Any, Final, cast
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, Field
from starlette.responses import Response

from control.access.permissions import Permission
from control.access.publishing import NotInForce
from control.actions import performing
from control.actions.action import Action, Call
from control.actions.catalogue import ACTIONS
from control.actions.effect import Effect
from control.actions.failures import ChangedSince
from control.actions.lifecycle import ActionState
from control.actions.previews import PATTERN
from control.api.actions import (
    ActionView,
    Reason,
    UndoBody,
    form_of,
    get_action,
    list_actions,
    performed_view,
    undo_action,
)
from control.billing.failures import StripeAway
from control.console.actions.effects import difference_rows, entitlement_rows, invoice_rows
from control.console.frame.forms import Filled, blank, read_amounts, read_form
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.reasons import said
from control.console.frame.rendering import redirect
from control.console.frame.viewer import Viewer
from control.documents import Body
from control.http.context import Context, Ctx
from control.http.exception_handlers import REFUSALS
from control.organizations.store import OrganizationUnknown
from quota.keys import ORG_PATTERN
from quota.ledger import LedgerUnavailable

router = Pages("/console")

Org = Annotated[str, Path(pattern=ORG_PATTERN)]
GROUPS = (
    ("Plan and limits", ("override", "grant", "cap", "suspend", "resume", "shadow")),
    ("Money", ("credit", "refund", "discount")),
    ("Subscription", ("switch", "cancel")),
    ("Access", ("activation_code", "key_roll", "key_revoke")),
    ("Repair", ("resync", "reconcile")),
)
LATER: Final = "Gateways go by it as soon as Redis is back."
EFFECT_SECONDS_MAX: Final = 10.0  # it is looked up at Stripe, and in Redis
SHOW = "show"
"""In the address: the effect is shown below the form."""


class ConfirmForm(BaseModel):
    reason: Reason
    state: Annotated[str, Field(pattern=PATTERN)]


class UndoForm(Body):
    reason: Reason


@router.page(
    "/organizations/{org}/actions",
    permission=Permission.ORGANIZATIONS_READ,
    twin="/v1/organizations/{org}/actions",
)
async def show_actions(org: Org, ctx: Ctx, viewer: Viewing, before: UUID | None = None) -> Response:
    """What can be done to an organization, and what was."""
    page = await list_actions(org, ctx, before)
    groups = [
        (title, [ACTIONS[name] for name in names if viewer.can(ACTIONS[name].permission)]) for title, names in GROUPS
    ]
    return viewer.page("actions/list.html", org=org, page=page, before=before, groups=groups)


@router.page("/actions/{action}", permission=Permission.ORGANIZATIONS_READ, twin="/v1/actions/{action}")
async def show_action(action: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """What came of an action, and how it is undone."""
    return done_page(viewer, await get_action(action, ctx))


@router.action("/actions/{action}/undo", permission=Permission.ORGANIZATIONS_READ)
async def undo(action: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """Undoes it."""
    form = await read_form(viewer.request, UndoForm)
    if form.value is None:
        return done_page(viewer, await get_action(action, ctx), form, status=422)
    try:
        view = await undo_action(action, UndoBody(reason=form.value.reason), ctx, viewer.caller, viewer.author)
    except NotInForce:
        return redirect(f"/console/actions/{action}", done=f"It is undone. {LATER}")
    except tuple(REFUSALS) as e:
        return done_page(viewer, await get_action(action, ctx), form.with_error(None, said(e)), status=409)
    return redirect(f"/console/actions/{action}", done=f"“{view.title}” is undone.")


def done_page(
    viewer: Viewer,
    view: ActionView,
    form: Filled[UndoForm] | None = None,
    *,
    shown: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    kind = ACTIONS.get(view.name)
    may_undo = view.undoable and kind is not None and viewer.can(kind.permission)
    return viewer.page(
        "actions/done.html",
        status,
        action=view,
        form=form or blank(),
        shown=shown or {},
        may_undo=may_undo,
    )


def _add_pages(action: Action[Any]) -> None:
    """Each action has a page of its own, with the permission of the action."""
    path = f"/organizations/{{org}}/actions/{action.name}"

    async def show(org: Org, ctx: Ctx, viewer: Viewing) -> Response:
        if SHOW not in viewer.request.query_params:
            return await _form(viewer, ctx, action, org, blank())
        currency_of = partial(action.currency, ctx.actions, org)
        form = await read_amounts(viewer.request, action.fields, currency_of, but=(SHOW,))
        if form.value is None:
            return await _form(viewer, ctx, action, org, form, status=422)
        return await _with_effect(viewer, ctx, action, org, form)

    async def do(org: Org, ctx: Ctx, viewer: Viewing) -> Response:
        currency_of = partial(action.currency, ctx.actions, org)
        form = await read_amounts(viewer.request, action.fields, currency_of, but=("reason", "state"))
        confirmed = await read_form(viewer.request, ConfirmForm)
        if form.value is None:
            return await _form(viewer, ctx, action, org, form, status=422)
        if confirmed.value is None:
            return await _with_effect(viewer, ctx, action, org, form, confirmed, status=422)
        call = Call(org, form.value, confirmed.value.reason, viewer.author, ctx.clock())
        try:
            done = performed_view(await performing.perform(ctx.actions, action, call, confirmed.value.state))
        except ChangedSince as e:
            return await _with_effect(viewer, ctx, action, org, form, confirmed, changed=e, status=409)
        except (StripeAway, LedgerUnavailable) as e:
            unanswered = f"{said(e)} It may have been done all the same: look at the organization's actions first."
            return await _form(viewer, ctx, action, org, form.with_error(None, unanswered), status=503)
        except tuple(REFUSALS) as e:
            return await _form(viewer, ctx, action, org, form.with_error(None, said(e)), status=409)
        if done.shown:
            return done_page(viewer, done, shown=done.shown)
        told = f"“{action.title}” waits for a second person." if done.state is ActionState.WAITING else None
        late = f"“{action.title}” is done. {LATER}" if not done.in_force else None
        return redirect(f"/console/actions/{done.id}", done=told or late or f"“{action.title}” is done.")

    router.page(path, permission=action.permission, twin=f"/v1/organizations/{{org}}/actions/{action.name}")(show)
    router.action(path, permission=action.permission)(do)


for _action in ACTIONS.values():
    _add_pages(_action)


async def _form(
    viewer: Viewer, ctx: Context, action: Action[Any], org: str, form: Filled[Any], *, status: int = 200, **more: Any
) -> Response:
    shown: dict[str, Any] = {"effect": None, "rows": None, "confirmed": blank(), "changed": None} | more
    asked = await form_of(ctx, action, org)
    return viewer.page("actions/form.html", status, org=org, action=asked, form=form, show=SHOW, **shown)


async def _with_effect(
    viewer: Viewer,
    ctx: Context,
    action: Action[Any],
    org: str,
    form: Filled[Any],
    confirmed: Filled[ConfirmForm] | None = None,
    *,
    changed: ChangedSince | None = None,
    status: int = 200,
) -> Response:
    """The form with the effect below it; with a sentence instead where there is none."""
    call = Call(org, cast("Body", form.value), "preview", viewer.author, ctx.clock())
    try:
        effect = await asyncio.wait_for(performing.preview(ctx.actions, action, call), EFFECT_SECONDS_MAX)
    except OrganizationUnknown:
        raise
    except TimeoutError:
        late = form.with_error(None, "The effect cannot be shown now: what it goes by does not answer. Try again.")
        return await _form(viewer, ctx, action, org, late, status=503, changed=changed)
    except tuple(REFUSALS) as e:
        return await _form(viewer, ctx, action, org, form.with_error(None, said(e)), status=409, changed=changed)
    return await _form(
        viewer,
        ctx,
        action,
        org,
        form,
        status=status,
        effect=effect,
        rows=rows_of(effect),
        confirmed=confirmed or blank(),
        changed=changed,
    )


def rows_of(effect: Effect) -> list[tuple[str, list[Any]]]:
    """Tables of an effect, by what they are about."""
    tables = [
        ("What the organization may use", entitlement_rows(effect)),
        ("Invoices", invoice_rows(effect)),
        ("What else changes", difference_rows(effect)),
    ]
    return [(title, rows) for title, rows in tables if rows]

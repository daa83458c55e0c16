"""Pages of actions for many organizations: what one would do, its beginning, and how far it is."""

from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Path, Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.actions.action import Action
from control.actions.form import fields_of
from control.api.bulk_actions import (
    BulkBody,
    BulkPreviewBody,
    BulkPreviewView,
    FilterBody,
    begin_bulk_action,
    get_bulk_action,
    list_bulk_actions,
    preview_bulk_action,
    stop_bulk_action,
)
from control.bulk.runs import OFFERED
from control.console.frame.forms import CurrencyOf, Filled, blank, read_amounts, read_form
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.rendering import redirect
from control.console.frame.viewer import Viewer
from control.documents import Body
from control.http.context import Context, Ctx
from control.http.guards import require
from control.http.refusals import Refusal
from quota import problems

router = Pages("/console/bulk-actions")

IN: Final = "in_"
"""Before the names of filters in the address: an action may have a field `plan`, too."""
SHOW: Final = "show"
FILTERS: Final = tuple(f"{IN}{name}" for name in FilterBody.model_fields)

Name = Annotated[str, Path(max_length=100)]


class ConfirmForm(Body):
    found: Annotated[int, Query(ge=1)]
    reason: Annotated[str, Query(min_length=1, max_length=300)]


@router.page("", permission=Permission.ORGANIZATIONS_READ, twin="/v1/bulk-actions")
async def show_all(ctx: Ctx, viewer: Viewing) -> Response:
    """The newest of them."""
    return viewer.page("organizations/bulk_list.html", found=await list_bulk_actions(ctx), titles=_titles())


@router.page("/new/{name}", permission=Permission.ORGANIZATIONS_READ, twin="/v1/bulk-actions")
async def show_new(name: Name, ctx: Ctx, viewer: Viewing) -> Response:
    """What an action would do to those that a filter matches."""
    action = OFFERED.get(name)
    if action is None:
        raise Refusal(problems.NOT_FOUND, "No such action is done to many organizations.")
    require(viewer.caller, action.permission)
    chosen = _chosen(dict(viewer.request.query_params))
    if SHOW not in viewer.request.query_params:
        return _form(viewer, name, chosen, blank())
    form = await read_amounts(viewer.request, action.fields, _currency_of(ctx, action), but=(SHOW, *FILTERS))
    if form.value is None:
        return _form(viewer, name, chosen, form, status=422)
    return await _with_preview(viewer, ctx, name, chosen, form, blank())


@router.action("/new/{name}", permission=Permission.ORGANIZATIONS_READ)
async def begin(name: Name, ctx: Ctx, viewer: Viewing) -> Response:
    """Begins it."""
    action = OFFERED.get(name)
    if action is None:
        raise Refusal(problems.NOT_FOUND, "No such action is done to many organizations.")
    require(viewer.caller, action.permission)
    sent = await viewer.request.form()
    chosen = _chosen({key: value for key, value in sent.items() if isinstance(value, str)})
    but = ("found", "reason", *FILTERS)
    form = await read_amounts(viewer.request, action.fields, _currency_of(ctx, action), but=but)
    others = {key for key in sent if key not in ConfirmForm.model_fields}
    confirmed = await read_form(viewer.request, ConfirmForm, but=others)
    if form.value is None or chosen.value is None:
        return _form(viewer, name, chosen, form, status=422)
    if confirmed.value is None:
        return await _with_preview(viewer, ctx, name, chosen, form, confirmed, status=422)
    body = BulkBody(
        filter=chosen.value,
        action=name,
        fields=form.value.model_dump(mode="json"),
        reason=confirmed.value.reason,
        found=confirmed.value.found,
    )
    try:
        view = await begin_bulk_action(body, ctx, viewer.caller, viewer.author)
    except Refusal as e:
        confirmed = confirmed.with_error(None, str(e.detail))
        return await _with_preview(viewer, ctx, name, chosen, form, confirmed, status=e.status_code)
    return redirect(f"/console/bulk-actions/{view.id}", done="It is begun.")


@router.page("/{bulk}", permission=Permission.ORGANIZATIONS_READ, twin="/v1/bulk-actions/{bulk}")
async def show_one(bulk: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """How far it is."""
    view = await get_bulk_action(bulk, ctx)
    may_stop = view.action in OFFERED and viewer.can(OFFERED[view.action].permission)
    return viewer.page("organizations/bulk.html", bulk=view, titles=_titles(), may_stop=may_stop)


@router.action("/{bulk}/stop", permission=Permission.ORGANIZATIONS_READ)
async def stop(bulk: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """What is not begun is not done."""
    await stop_bulk_action(bulk, ctx, viewer.caller, viewer.author)
    return redirect(f"/console/bulk-actions/{bulk}", done="It is stopped.")


def offered(viewer: Viewer, filters: dict[str, Any]) -> list[tuple[str, str]]:
    """Title and address of what the viewer may do to all that these filters match."""
    query = urlencode(
        {f"{IN}{name}": str(value).lower() if value is True else value for name, value in filters.items()}
    )
    return [
        (action.title, f"/console/bulk-actions/new/{name}?{query}")
        for name, action in OFFERED.items()
        if viewer.can(action.permission)
    ]


def _currency_of(ctx: Context, action: Action[Any]) -> CurrencyOf:
    # No action that is offered has amounts of something that is one organization's.
    return partial(action.currency, ctx.actions, "")


def _titles() -> dict[str, str]:
    return {name: action.title for name, action in OFFERED.items()}


def _chosen(sent: dict[str, str]) -> Filled[FilterBody]:
    """Raises Refusal where the address was changed by hand to what is no filter."""
    given = {key.removeprefix(IN): value for key, value in sent.items() if key in FILTERS and value}
    try:
        return Filled(FilterBody.model_validate_strings(given), {}, given)
    except ValueError as e:
        raise Refusal(problems.INVALID, "This is no filter: begin with the list of organizations.") from e


async def _with_preview(
    viewer: Viewer,
    ctx: Context,
    name: str,
    chosen: Filled[FilterBody],
    form: Filled[Any],
    confirmed: Filled[Any],
    *,
    status: int = 200,
) -> Response:
    assert chosen.value is not None  # noqa: S101  _chosen refuses what is none
    assert form.value is not None  # noqa: S101  whoever calls has looked
    body = BulkPreviewBody(filter=chosen.value, action=name, fields=form.value.model_dump(mode="json"))
    try:
        shown = await preview_bulk_action(body, ctx, viewer.caller, viewer.author)
    except Refusal as e:
        return _form(viewer, name, chosen, form.with_error(None, str(e.detail)), status=e.status_code)
    return _form(viewer, name, chosen, form, shown=shown, confirmed=confirmed, status=status)


def _form(
    viewer: Viewer,
    name: str,
    chosen: Filled[FilterBody],
    form: Filled[Any],
    *,
    shown: BulkPreviewView | None = None,
    confirmed: Filled[Any] | None = None,
    status: int = 200,
) -> Response:
    action = OFFERED[name]
    return viewer.page(
        "organizations/bulk_new.html",
        status,
        action=action,
        fields=fields_of(action, {}),
        chosen=chosen.given,
        form=form,
        shown=shown,
        confirmed=confirmed or blank(),
        prefix=IN,
        show=SHOW,
    )

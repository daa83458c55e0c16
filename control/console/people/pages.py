"""Somebody asks what is stored of them, or wants to be forgotten. Who it is, is in forms and never in an address: those
are in logs and in the browser's history."""

import json
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from starlette.responses import Response

from control.access.permissions import Permission
from control.access.publishing import NotInForce, enforce_all
from control.api.people_personal import (
    ErasureBody,
    ErasureView,
    PersonBody,
    PersonSummaryView,
    erased_person,
    export_person,
    find_person,
    list_person_requests,
)
from control.console.frame.forms import Filled, blank, read_form
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.reasons import said
from control.console.frame.rendering import redirect
from control.console.frame.sections import section
from control.console.frame.viewer import Viewer
from control.http.context import Context, Ctx
from control.http.exception_handlers import REFUSALS
from control.http.refusals import Refusal

router = Pages("/console/people")

REFUSED: Final[tuple[type[Exception], ...]] = (Refusal, *REFUSALS)
NAMED: Final = ("user", "email", "subject")
NAMED_MAX: Final = 3  # organizations in a notice
LISTED: Final = 25  # a page stays below 100 KB


@router.page("", permission=Permission.PEOPLE_ADMIN, twin="/v1/people")
async def show(ctx: Ctx, viewer: Viewing, before: UUID | None = None) -> Response:
    """A form that asks who it is about, and what was done lately."""
    return await _search(viewer, ctx, blank(), before=before)


@router.action("/found", permission=Permission.PEOPLE_ADMIN)
async def show_found(ctx: Ctx, viewer: Viewing) -> Response:
    """What is stored of a person, and what an erasure makes of it."""
    form = await read_form(viewer.request, PersonBody)
    return await _found(viewer, ctx, form, blank())


@router.action("/export", permission=Permission.PEOPLE_ADMIN)
async def export(ctx: Ctx, viewer: Viewing) -> Response:
    """All that is stored, as a file."""
    form = await read_form(viewer.request, PersonBody)
    if form.value is None:
        return await _search(viewer, ctx, form, status=422)
    try:
        person = await export_person(form.value, ctx, viewer.author)
    except REFUSED as e:
        return await _search(viewer, ctx, form.with_error(None, said(e)), status=409)
    content = json.dumps(person.model_dump(mode="json"), indent=2)
    attached = {"Content-Disposition": 'attachment; filename="person.json"'}
    return Response(content, media_type="application/json", headers=attached)


@router.action("/erase", permission=Permission.PEOPLE_ADMIN)
async def erase(ctx: Ctx, viewer: Viewing) -> Response:
    """Erases the person that was shown."""
    form = await read_form(viewer.request, PersonBody, but=("reason",))
    confirmed = await read_form(viewer.request, ErasureBody)
    if form.value is None or confirmed.value is None or not confirmed.value.reason:
        wrong = confirmed if confirmed.errors else confirmed.with_error("reason", "Fill this in.")
        return await _found(viewer, ctx, form, wrong, status=422)
    try:
        erased = await erased_person(confirmed.value, ctx, viewer.author)
    except REFUSED as e:
        return await _found(viewer, ctx, form, confirmed.with_error(None, said(e)), status=409)
    try:
        await enforce_all(ctx.publisher, erased.organizations)
    except NotInForce as e:
        return redirect("/console/people", erasure_notice(erased, e.orgs))
    return redirect("/console/people", erasure_notice(erased, ()))


def erasure_notice(erased: ErasureView, waiting: Sequence[str]) -> str:
    """What was done, and what follows. `waiting`: organizations that Redis could not be told of."""
    rows = sum(erased.rows.values())
    parts = [f"The person is erased: {rows} rows. The journal has {erased.alias}."]
    if waiting:
        named = ", ".join(waiting[:NAMED_MAX]) + (" and others" if len(waiting) > NAMED_MAX else "")
        parts.append(
            f"Redis does not answer: the user's tokens and keys in {named} are refused as soon as it does, and there"
            " is nothing to do. Until then a gateway may still take them."
        )
    if erased.stripe_customers:
        parts.append(f"At Stripe they are erased there: {', '.join(erased.stripe_customers)}.")
    return " ".join(parts)


async def _search(
    viewer: Viewer, ctx: Context, form: Filled[PersonBody], *, before: UUID | None = None, status: int = 200
) -> Response:
    done = await section(list_person_requests(ctx, before, LISTED))
    # The answer to a form is not at an address that links could lead to.
    return viewer.page("people/search.html", status, form=form, done=done, before=before, here="/console/people")


async def _found(
    viewer: Viewer, ctx: Context, form: Filled[PersonBody], confirmed: Filled[ErasureBody], *, status: int = 200
) -> Response:
    """The form again where nobody is found."""
    if form.value is None:
        return await _search(viewer, ctx, form, status=422)
    try:
        found: PersonSummaryView = await find_person(form.value, ctx)
    except REFUSED as e:
        return await _search(viewer, ctx, form.with_error(None, said(e)), status=409)
    named = {name: form.given[name] for name in NAMED if form.given.get(name)}
    return viewer.page("people/found.html", status, found=found, named=named, confirmed=confirmed)

"""How much overage the organization buys at most, by its own choice."""

from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.caps import CapBody, list_caps, put_cap
from control.console.frame.formats import count
from control.console.frame.forms import blank, read_form
from control.console.frame.rendering import redirect
from control.console.frame.sections import section
from control.documents import Body, Whole
from control.entitlements.caps import CapChanged
from control.entitlements.plans import Units
from control.http.context import Ctx
from control.portal.pages import Viewing, portal_pages
from quota.keys import METER_PATTERN

router = portal_pages("/caps")

MeterName = Annotated[str, Path(pattern=METER_PATTERN)]


class CapForm(Body):
    units: Annotated[Units, Whole] | None = None
    """Empty: no cap."""
    was: Annotated[Units, Whole] | None = None
    """The cap that the page showed; empty: none. Of two people at once, the second sees what the first has set."""


@router.page("", permission=Permission.ENTITLEMENTS_READ, twin="/v1/organizations/{org}/caps")
async def show(ctx: Ctx, viewer: Viewing) -> Response:
    """The caps, and what the plan allows."""
    found = await section(list_caps(viewer.org, ctx))
    return viewer.page("portal/caps.html", found=found, form=blank(), empty=blank(), wrong=None)


@router.action("/{meter}", permission=Permission.CAPS_WRITE)
async def put(meter: MeterName, ctx: Ctx, viewer: Viewing) -> Response:
    """Sets a cap, takes one away, or undoes that."""
    form = await read_form(viewer.request, CapForm)
    if form.value is not None:
        body = CapBody(units=form.value.units, expected=form.value.was)
        try:
            await put_cap(viewer.org, meter, body, ctx, viewer.author)
        except CapChanged as e:
            form = form.with_error("units", f"Somebody else was faster. {e}")
        else:
            return redirect("/portal/caps", done=_done(meter, body.units))
    found = await section(list_caps(viewer.org, ctx))
    return viewer.page("portal/caps.html", 422, found=found, form=form, empty=blank(), wrong=meter)


def _done(meter: str, units: int | None) -> str:
    if units is None:
        return f"There is no cap of your own for {meter} any more."
    return f"At most {count(units)} {meter} are bought beyond the allowance in a period."

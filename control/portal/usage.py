"""Usage by day, and apart for each key and user."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from fastapi import Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.forecast import ForecastView
from control.api.usage import get_usage
from control.console.frame.sections import sections
from control.entitlements.plans import Meter
from control.http.context import Ctx
from control.moments import moment
from control.portal.outlooks import ahead_chart, daily_chart, sentence_of
from control.portal.pages import Viewing, portal_pages
from control.portal.standing import forecast_of

router = portal_pages("/usage")

AHEAD: Final = timedelta(minutes=1)


@router.page("", permission=Permission.USAGE_READ, twin="/v1/usage")
async def show(
    ctx: Ctx,
    viewer: Viewing,
    days: Annotated[int, Query(ge=1, le=366)] = 30,
    meter: Meter | None = None,
    by: Literal["key", "user", ""] | None = None,
) -> Response:
    """What was used on which day, and by whom."""
    until = moment(ctx.clock()) + AHEAD
    found = await sections(
        usage=get_usage(
            viewer.org, ctx, since=until - timedelta(days=days), until=until, meter=meter or None, by=by or None
        ),
        forecast=forecast_of(ctx, viewer.org),
    )
    known = found["forecast"].value
    return viewer.page(
        "portal/usage.html",
        found=found,
        meter_options=[(each.meter, each.meter) for each in known.meters] if isinstance(known, ForecastView) else [],
        ahead_chart=ahead_chart,
        days=days,
        meter=meter,
        by=by,
        sentence_of=sentence_of,
        daily_chart=daily_chart,
    )

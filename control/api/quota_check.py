"""`/v1/analytics/quota-check`: how long quota checks took."""

from datetime import date, datetime

from fastapi import APIRouter
from starlette.responses import Response

from control.analytics.check_times import check_times
from control.analytics.periods import Bucket, midnight
from control.api.analytics import As, Reads, Since, Until, period_of
from control.api.exports import EXPORTED, exported
from control.documents import View
from control.http.context import Context, Ctx
from control.http.refusals import DOCUMENTED
from control.http.rereading import ReadingRoute

router = APIRouter(prefix="/v1/analytics", tags=["analytics"], responses=DOCUMENTED, route_class=ReadingRoute)


class CheckTimeRow(View):
    """A day or a month, UTC. A check is a take's way from a gateway to Redis and back."""

    start: datetime
    checks: int
    p50_ms: float
    """Half of the checks took at most so many milliseconds.

    Times are counted by powers of two of microseconds, so it is the end of such a range."""
    p95_ms: float
    p99_ms: float


class CheckTimesView(View):
    periods: list[CheckTimeRow]
    """Those with a check."""


async def read_check_times(
    ctx: Context, bucket: Bucket = "day", since: date | None = None, until: date | None = None
) -> CheckTimesView:
    """Raises Refusal, StoreUnavailable."""
    since, until = period_of(ctx, since, until, bucket)
    found = await check_times(ctx.reading, bucket, midnight(since), midnight(until))
    return CheckTimesView(periods=[CheckTimeRow.model_validate(each) for each in found])


@router.get("/quota-check", dependencies=[Reads], responses=EXPORTED, response_model=CheckTimesView)
async def get_check_times(
    ctx: Ctx,
    bucket: Bucket = "day",
    since: Since = None,
    until: Until = None,
    format_: As = "json",
) -> CheckTimesView | Response:
    """How long quota checks took at all gateways together: the median, the 95th and the 99th percentile."""
    view = await read_check_times(ctx, bucket, since, until)
    return view if format_ == "json" else await exported(format_, "quota-check", CheckTimeRow, view.periods)

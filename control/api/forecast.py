"""`/v1/organizations/{org}/forecast`: how much will be used by the end of the period, and when something runs out."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter, Response

from control.access.permissions import Permission
from control.analytics.forecast import (
    AHEAD_DAYS_MAX,
    COVERAGE_PERCENT,
    HISTORY_DAYS,
    HISTORY_DAYS_MIN,
    History,
    Outlook,
    backtest,
    outlook,
)
from control.api.entitlement_views import EntitlementView, MeterView, PeriodView
from control.api.entitlements import get_entitlement
from control.documents import View
from control.http.context import Ctx
from control.http.guards import Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED
from control.moments import moment
from control.sql.usage import Bucket

router = APIRouter(prefix="/v1/organizations/{org}/forecast", tags=["usage"], responses=DOCUMENTED)

DAY: Final = timedelta(days=1)
METERS_MAX: Final = 20
"""Each takes some milliseconds; those with more usage come first."""


class IntervalView(View):
    low: int
    likely: int
    high: int


class RunsOutView(View):
    """When nothing of the limit is left. Then requests are refused, or overage is sold, by the plan's policy."""

    earliest: datetime
    likely: datetime | None
    """null: probably not before the period ends."""
    latest: datetime | None
    """null: perhaps not before the period ends."""


class DayAheadView(View):
    until: datetime
    used: IntervalView
    """In the period, by then."""


class BacktestView(View):
    """The same on weeks that are over, each forecast by what was known before it."""

    weeks: int
    held: int
    """In how many of them the interval held what was used."""


class MeterForecastView(View):
    meter: str
    used: int
    limit: int
    remaining: int
    history_days: int
    """The days that the forecast is made of; today is none of them."""
    at_end: IntervalView | None
    """Used when the period ends. null: there are fewer than 7 days of history, or nothing was used in them."""
    runs_out: RunsOutView | None
    """null: not before the period ends, or nothing can be said."""
    days: list[DayAheadView]
    """Until the end of each day of the period, the last one until the period's end."""
    backtest: BacktestView | None


class ForecastView(View):
    org: str
    as_of: datetime
    coverage_percent: int
    """So many of 100 intervals hold what comes."""
    period: PeriodView | None
    """The current one. null: the organization has none, and nothing is forecast."""
    meters: list[MeterForecastView]
    """At most 20."""


@router.get("", dependencies=[OfOrganization(Permission.USAGE_READ), Known])
async def get_forecast(org: Org, ctx: Ctx) -> ForecastView:
    """Forecasts what will be used by the end of the period, by meter, with an interval that holds it in 80 of 100
    cases: "runs out 12 to 17 December". It is made of the days before today, of up to 140."""
    entitlement, now = await get_entitlement(org, ctx, Response()), moment(ctx.clock())
    shown: list[MeterForecastView] = []
    if entitlement.period is not None:
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        used = await ctx.buckets.used(org, "day", today - HISTORY_DAYS * DAY, today, None)
        meters = sorted(entitlement.meters, key=lambda each: each.used, reverse=True)[:METERS_MAX]
        ends = entitlement.period.end
        histories = [_history(used.buckets, each.meter, today) for each in meters]
        # In a thread: it is pure computing, and others are to be answered meanwhile.
        shown = await asyncio.to_thread(
            lambda: [_forecast(*each, today, now, ends) for each in zip(meters, histories, strict=True)]
        )
    return _view(entitlement, now, shown)


def _view(entitlement: EntitlementView, now: datetime, meters: list[MeterForecastView]) -> ForecastView:
    return ForecastView(
        org=entitlement.org,
        as_of=now,
        coverage_percent=COVERAGE_PERCENT,
        period=entitlement.period,
        meters=sorted(meters, key=lambda each: each.meter),
    )


def _history(buckets: Iterable[Bucket], meter: str, today: datetime) -> History:
    """From the first day with usage to yesterday."""
    by_day = {bucket.start: bucket.units for bucket in buckets if bucket.meter == meter}
    if not by_day:
        return History([], 0)
    first = min(by_day)
    units = [by_day.get(first + n * DAY, 0) for n in range((today - first) // DAY)]
    return History(units, first.weekday())


def _forecast(meter: MeterView, history: History, today: datetime, now: datetime, ends: datetime) -> MeterForecastView:
    start, end = (now - today) / DAY, min((ends - today) / DAY, float(AHEAD_DAYS_MAX))
    seen = outlook(history, int(end) + 1) if end > start and len(history.units) >= HISTORY_DAYS_MIN else None
    view = MeterForecastView(
        meter=meter.meter,
        used=meter.used,
        limit=meter.limit,
        remaining=meter.remaining,
        history_days=len(history.units),
        at_end=None,
        runs_out=None,
        days=[],
        backtest=None,
    )
    if seen is None:
        return view
    before = backtest(history)
    bounds = [*(float(day) for day in range(int(start) + 1, int(end) + 1) if day < end), end]
    return view.model_copy(
        update={
            "at_end": _interval(meter.used, seen, start, end),
            "runs_out": _runs_out(meter, seen, today, start, end),
            "days": [
                DayAheadView(until=today + each * DAY, used=_interval(meter.used, seen, start, each)) for each in bounds
            ],
            "backtest": BacktestView(weeks=before.weeks, held=before.held) if before.weeks else None,
        }
    )


def _interval(used: int, seen: Outlook, start: float, end: float) -> IntervalView:
    low, likely, high = seen.between(start, end)
    return IntervalView(low=used + round(low), likely=used + round(likely), high=used + round(high))


def _runs_out(meter: MeterView, seen: Outlook, today: datetime, start: float, end: float) -> RunsOutView | None:
    earliest, likely, latest = seen.reached(meter.remaining, start, end)
    if earliest is None:
        return None
    return RunsOutView(
        earliest=today + earliest * DAY,
        likely=None if likely is None else today + likely * DAY,
        latest=None if latest is None else today + latest * DAY,
    )

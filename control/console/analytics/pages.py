"""Pages of recurring revenue: what it is, what moved it, what is kept of it, and the subscriptions it is made of."""

from datetime import date
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.analytics import (
    Figure,
    read_cohorts,
    read_movements,
    read_mrr,
    read_retention,
    read_subscriptions,
    read_trials,
)
from control.api.analytics_views import CohortRow
from control.api.quota_check import read_check_times
from control.api.unit_economics import read_economics, read_used
from control.console.analytics.asked import AskedFor
from control.console.analytics.shown import shown
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.sections import section, sections
from control.entitlements.plans import Meter
from control.http.context import Ctx

router = Pages("/console/analytics")

READ = Permission.ANALYTICS_READ


@router.page("", permission=READ, twin="/v1/analytics/mrr")
async def show_mrr(ctx: Ctx, viewer: Viewing, asked: AskedFor) -> Response:
    """Recurring revenue now, under each definition, and how it came to that."""
    found = await sections(mrr=read_mrr(ctx, None), movements=read_movements(ctx, asked.definition, asked.currency))
    return shown(viewer, "analytics/mrr.html", asked, **found)


@router.page("/movements", permission=READ, twin="/v1/analytics/movements")
async def show_movements(ctx: Ctx, viewer: Viewing, asked: AskedFor) -> Response:
    """What recurring revenue grew and shrank by in each month."""
    found = await section(read_movements(ctx, asked.definition, asked.currency, "month", asked.since, asked.until))
    return shown(viewer, "analytics/movements.html", asked, found=found)


@router.page("/retention", permission=READ, twin="/v1/analytics/retention")
async def show_retention(ctx: Ctx, viewer: Viewing, asked: AskedFor) -> Response:
    """What is kept of those who pay, by each definition's formula."""
    found = await section(read_retention(ctx, asked.currency, asked.since, asked.until))
    return shown(viewer, "analytics/retention.html", asked, found=found)


@router.page("/cohorts", permission=READ, twin="/v1/analytics/cohorts")
async def show_cohorts(ctx: Ctx, viewer: Viewing, asked: AskedFor) -> Response:
    """What is left of those who paid first in the same month."""
    found = await section(read_cohorts(ctx, asked.definition, asked.currency, asked.since))
    table = {} if found.value is None else by_cohort(found.value.cohorts)
    ages = max((len(rows) for rows in table.values()), default=0)
    return shown(viewer, "analytics/cohorts.html", asked, found=found, table=table, ages=ages)


@router.page("/trials", permission=READ, twin="/v1/analytics/trials")
async def show_trials(ctx: Ctx, viewer: Viewing, asked: AskedFor) -> Response:
    """Trials, and how many of them became paid subscriptions."""
    found = await section(read_trials(ctx, asked.currency, asked.since, asked.until))
    return shown(viewer, "analytics/trials.html", asked, found=found)


@router.page("/usage", permission=READ, twin="/v1/analytics/usage")
async def show_usage(ctx: Ctx, viewer: Viewing, asked: AskedFor, meter: Meter | None = None) -> Response:
    """What all organizations used, and who used the most."""
    found = await section(read_used(ctx, meter, asked.since, asked.until))
    return shown(viewer, "analytics/usage.html", asked, found=found)


@router.page("/unit-economics", permission=READ, twin="/v1/analytics/unit-economics")
async def show_economics(ctx: Ctx, viewer: Viewing, asked: AskedFor) -> Response:
    """What 1,000 calls earned and cost."""
    found = await section(read_economics(ctx, asked.currency, asked.since, asked.until))
    return shown(viewer, "analytics/economics.html", asked, found=found)


@router.page("/quota-check", permission=READ, twin="/v1/analytics/quota-check")
async def show_quota_check(ctx: Ctx, viewer: Viewing, asked: AskedFor) -> Response:
    """How long quota checks took."""
    found = await section(read_check_times(ctx, "day", asked.since, asked.until))
    return shown(viewer, "analytics/quota-check.html", asked, found=found)


@router.page("/subscriptions", permission=READ, twin="/v1/analytics/subscriptions")
async def show_subscriptions(
    ctx: Ctx,
    viewer: Viewing,
    asked: AskedFor,
    figure: Figure = "mrr",
    after: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """The subscriptions that a figure is made of."""
    found = await section(
        read_subscriptions(
            ctx, figure, asked.definition, asked.currency, asked.since, asked.until, after or None, limit=40
        )
    )
    return shown(viewer, "analytics/subscriptions.html", asked, found=found, figure=figure, after=after)


def by_cohort(rows: list[CohortRow]) -> dict[date, list[CohortRow]]:
    """The newest last."""
    found: dict[date, list[CohortRow]] = {}
    for each in rows:
        found.setdefault(each.cohort, []).append(each)
    return found

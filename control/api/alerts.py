"""`/v1/organizations/{org}/alerts`: at which share of an allowance an organization's people want to hear of it."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from control.access.permissions import Permission
from control.documents import Body, View, Whole
from control.http.context import Ctx
from control.http.guards import CallAuthor, Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED
from control.usage import alerts as store

router = APIRouter(prefix="/v1/organizations/{org}/alerts", tags=["usage"], responses=DOCUMENTED)

PERCENT_MAX = 1000
Percent = Annotated[int, Whole, Field(strict=True, ge=1, le=PERCENT_MAX)]


class AlertsBody(Body):
    percents: Annotated[list[Percent], Field(max_length=10)]
    """Of each allowance, beside those of the vendor's settings. None: only those."""


class ReachedView(View):
    meter: str
    percent: int
    allowance: int
    used: int
    period_start: datetime
    reached_at: datetime


class AlertsView(View):
    percents: list[int]
    """Chosen by the organization; ascending."""
    reached: list[ReachedView]
    """The thresholds that were reached last, those of the vendor's settings, too; the latest first, at most 20."""


@router.get("", dependencies=[OfOrganization(Permission.ALERTS_READ), Known])
async def get_usage_alerts(org: Org, ctx: Ctx) -> AlertsView:
    """Returns the percentages that the organization has chosen, and the thresholds that it reached last."""
    found = await store.read(ctx.db, org)
    reached = [ReachedView.model_validate(each) for each in found.reached]
    return AlertsView(percents=list(found.percents), reached=reached)


@router.put("", dependencies=[OfOrganization(Permission.ALERTS_WRITE), Known])
async def put_usage_alerts(org: Org, body: AlertsBody, ctx: Ctx, author: CallAuthor) -> AlertsView:
    """Chooses percentages. When so much of an allowance is used, that is an event once in a period, and the vendor's
    system is notified of it. One that is reached already is an event now."""
    await store.choose(ctx.db, org, body.percents, ctx.clock(), author)
    return await get_usage_alerts(org, ctx)

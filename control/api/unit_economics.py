"""`/v1/analytics/usage` and `/v1/analytics/unit-economics`: what is used, and what 1,000 calls earn and cost."""

from datetime import date
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from control.analytics import unit_economics
from control.analytics.amounts import per
from control.analytics.periods import day_of, next_start
from control.analytics.unit_economics import MeterMonth, Month
from control.api.analytics import As, Currency, Reads, Since, Until, currency_of, period_of
from control.api.exports import EXPORTED, exported
from control.documents import View
from control.entitlements.plans import Meter
from control.http.context import Context, Ctx
from control.http.queries import refuse_unknown_meter
from control.http.refusals import DOCUMENTED

router = APIRouter(prefix="/v1/analytics", tags=["analytics"], responses=DOCUMENTED)


class UsedRow(View):
    """A meter in a month, of all organizations."""

    start: date
    meter: str
    is_complete: bool
    calls: int | None
    """Charges; null: the events of some day are in a file, and were not counted before."""
    units: int
    overage: int
    """The part of `units` beyond allowance and grants, which is sold."""


class UserRow(View):
    """An organization, by what it used in billing periods that began in the time."""

    org: str
    name: str
    periods: int
    units: int
    grants: int
    """The part of `units` that grants paid for."""
    overage: int


class UsedUnitsView(View):
    meter: str | None
    """Whose organizations are listed; null: nothing was used."""
    months: list[UsedRow]
    organizations: list[UserRow]
    """Those that used the most."""


class EconomicsRow(View):
    """Money of a month in one currency, and what 1,000 calls earned and cost."""

    start: date
    is_complete: bool
    paid_minor: int
    """Invoices that were paid in the month."""
    refunded_minor: int
    revenue_minor: int
    """What was paid less what was refunded."""
    calls: int | None
    """Charges of all meters, whoever made them and whatever currency they pay in."""
    cost_minor: int | None
    """null: of some meter that was used nobody has said what it costs in this currency."""
    margin_minor: int | None
    revenue_per_1000_calls_minor: int | None
    cost_per_1000_calls_minor: float | None


class MeterCostRow(View):
    start: date
    meter: str
    calls: int | None
    units: int
    cost_minor: int | None
    cost_per_1000_calls_minor: float | None


class EconomicsView(View):
    currency: str
    months: list[EconomicsRow]
    meters: list[MeterCostRow]


async def read_used(
    ctx: Context, meter: str | None, since: date | None = None, until: date | None = None, limit: int = 20
) -> UsedUnitsView:
    """Raises Refusal, StoreUnavailable."""
    await refuse_unknown_meter(ctx.db, meter)
    since, until = period_of(ctx, since, until, "month")
    now, today = ctx.clock(), day_of(ctx.clock())
    days = await unit_economics.used_days(ctx.db, since, until, None, now)
    months = unit_economics.by_month(days, ctx.costs, "usd")
    units: dict[str, int] = {}
    for each in months:
        units[each.meter] = units.get(each.meter, 0) + each.units
    chosen = meter or max(units, key=lambda name: units[name], default=None)
    most = [] if chosen is None else await unit_economics.most_used(ctx.db, chosen, since, until, limit)
    return UsedUnitsView(
        meter=chosen,
        months=[
            UsedRow(
                start=each.start,
                meter=each.meter,
                is_complete=next_start(each.start, "month") <= today,
                calls=each.calls,
                units=each.units,
                overage=each.overage,
            )
            for each in months
        ],
        organizations=[
            UserRow(
                org=each.org,
                name=each.name,
                periods=each.periods,
                units=each.units,
                grants=each.burnt,
                overage=each.overage,
            )
            for each in most
        ],
    )


@router.get("/usage", dependencies=[Reads], responses=EXPORTED, response_model=UsedUnitsView)
async def get_used_units(
    ctx: Ctx,
    meter: Annotated[
        Meter | None, Query(description="Whose organizations are listed. Default: the one most is used of.")
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Organizations.")] = 20,
    format_: As = "json",
) -> UsedUnitsView | Response:
    """What all organizations used, by meter and month, and who used the most. CSV and Parquet have the months."""
    view = await read_used(ctx, meter, since, until, limit)
    return view if format_ == "json" else await exported(format_, "usage", UsedRow, view.months)


async def read_economics(
    ctx: Context, currency: str | None, since: date | None = None, until: date | None = None
) -> EconomicsView:
    """Raises Refusal, StoreUnavailable."""
    since, until = period_of(ctx, since, until, "month")
    chosen, now, today = await currency_of(ctx, currency), ctx.clock(), day_of(ctx.clock())
    days = await unit_economics.used_days(ctx.db, since, until, None, now)
    used = unit_economics.by_month(days, ctx.costs, chosen)
    money = await unit_economics.collected(ctx.db, chosen, since, until)
    months = unit_economics.months(since, until, money, used)
    return EconomicsView(
        currency=chosen,
        months=[_month(each, is_complete=next_start(each.start, "month") <= today) for each in months],
        meters=[_meter(each) for each in used],
    )


@router.get("/unit-economics", dependencies=[Reads], responses=EXPORTED, response_model=EconomicsView)
async def get_unit_economics(
    ctx: Ctx, currency: Currency = None, since: Since = None, until: Until = None, format_: As = "json"
) -> EconomicsView | Response:
    """What was collected in each month, and what 1,000 calls earned and cost; costs are in the file that `costs` of
    control.yaml names. CSV and Parquet have the months."""
    view = await read_economics(ctx, currency, since, until)
    return view if format_ == "json" else await exported(format_, "unit-economics", EconomicsRow, view.months)


def _month(month: Month, *, is_complete: bool) -> EconomicsRow:
    calls, cost = month.calls, None if month.cost is None else _whole(month.cost)
    return EconomicsRow(
        start=month.start,
        is_complete=is_complete,
        paid_minor=month.paid_minor,
        refunded_minor=month.refunded_minor,
        revenue_minor=month.revenue_minor,
        calls=calls,
        cost_minor=cost,
        margin_minor=None if cost is None else month.revenue_minor - cost,
        revenue_per_1000_calls_minor=None if calls is None else per(Decimal(month.revenue_minor) * 1000, calls),
        cost_per_1000_calls_minor=_per_1000(month.cost, calls),
    )


def _meter(month: MeterMonth) -> MeterCostRow:
    return MeterCostRow(
        start=month.start,
        meter=month.meter,
        calls=month.calls,
        units=month.units,
        cost_minor=None if month.cost is None else _whole(month.cost),
        cost_per_1000_calls_minor=_per_1000(month.cost, month.calls),
    )


def _whole(amount: Decimal) -> int:
    return per(amount, 1) or 0


def _per_1000(amount: Decimal | None, calls: int | None) -> float | None:
    return None if amount is None or not calls else float(round(amount * 1000 / calls, 6))

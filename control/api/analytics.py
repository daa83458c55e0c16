"""`/v1/analytics`: recurring revenue under three definitions, what moved it, and the subscriptions behind each figure.

docs/analytics.md says what each definition counts, and where that is written."""

import re
from datetime import date
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BeforeValidator
from starlette.responses import Response

from control import sql
from control.access.permissions import Permission
from control.analytics import recurring
from control.analytics.bridge import Kind
from control.analytics.periods import (
    DAY,
    MONTHS_DEFAULT,
    PERIODS_MAX,
    Bucket,
    day_of,
    midnight,
    month_of,
    next_start,
    starts_of,
)
from control.api.analytics_views import (
    CohortRow,
    CohortsView,
    MovementRow,
    MovementsView,
    MrrRow,
    MrrView,
    RetentionRow,
    RetentionView,
    SubscriptionRow,
    SubscriptionsView,
    TrialRow,
    TrialsView,
    cohort_rows,
    moved_row,
    movement_of,
    mrr_of,
    retention_row,
    trial_row,
    worth_row,
)
from control.api.exports import EXPORTED, Format, exported
from control.billing.history.annual_value import Definition
from control.http.context import Context, Ctx
from control.http.guards import Allowed
from control.http.refusals import DOCUMENTED, invalid_field
from control.http.rereading import ReadingRoute

router = APIRouter(prefix="/v1/analytics", tags=["analytics"], responses=DOCUMENTED, route_class=ReadingRoute)

Figure = Literal["mrr", "movements", "new", "reactivation", "expansion", "contraction", "churn"]

ROWS_MAX: Final = 500
EXPORTED_MAX: Final = 100_000
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_AFTER: Final = re.compile(r"(?:([0-9]{4}-[0-9]{2}-[0-9]{2})/)?([^/]{1,128})/([^/]{1,255})")


def _written_out(value: object) -> object:
    # pydantic would read a number as seconds since 1970
    if not isinstance(value, date) and not (isinstance(value, str) and _DAY.fullmatch(value)):
        raise ValueError("must be a day as in 2026-11-30")
    return value


def _bounded(day: date) -> date:
    if not date(1970, 1, 1) <= day < date(2100, 1, 1):
        raise ValueError("must be from 1970 to 2099")
    return day


Day = Annotated[date, AfterValidator(_bounded), BeforeValidator(_written_out)]
Currency = Annotated[
    str | None,
    Query(pattern="^[a-z]{3}$", description="ISO 4217, in lower case. Default: the one in which most changed lately."),
]
By = Annotated[Definition, Query(description="Whose definition.")]
Since = Annotated[Day | None, Query(alias="from", description="The first day, UTC. Default: eleven months ago.")]
Until = Annotated[Day | None, Query(alias="to", description="Exclusive. Default: the end of the current period.")]
As = Annotated[Format, Query(alias="format", description="`csv` and `parquet` have the rows only.")]

Reads = Allowed(Permission.ANALYTICS_READ)


async def currency_of(ctx: Context, currency: str | None) -> str:
    return currency or await recurring.main_currency(ctx.reading) or "usd"


def period_of(ctx: Context, since: date | None, until: date | None, bucket: Bucket) -> tuple[date, date]:
    """Whole days or months. Raises Refusal."""
    today = day_of(ctx.clock())
    if until is None:
        until = next_start(today if bucket == "day" else month_of(today), bucket)
    elif bucket == "month" and until != month_of(until):
        until = month_of(until, 1)
    if since is None:
        since = until - 30 * DAY if bucket == "day" else month_of(until, -MONTHS_DEFAULT)
    elif bucket == "month":
        since = month_of(since)
    if since >= until:
        raise invalid_field("query.from", "must be before `to`")
    if sum(1 for _ in starts_of(since, until, bucket)) > PERIODS_MAX[bucket]:
        raise invalid_field("query.from", f"must be at most {PERIODS_MAX[bucket]} {bucket}s before `to`")
    return since, until


async def read_mrr(ctx: Context, day: date | None) -> MrrView:
    day = day or day_of(ctx.clock())
    rows = await recurring.at_end_of(ctx.reading, day)
    return MrrView(day=day, currencies=[mrr_of(row) for row in rows])


@router.get("/mrr", dependencies=[Reads], responses=EXPORTED, response_model=MrrView)
async def get_mrr(ctx: Ctx, day: Day | None = None, format_: As = "json") -> MrrView | Response:
    """Monthly recurring revenue at the end of a day (default: now) by the definitions of Stripe, ChartMogul and
    Baremetrics, and what makes the difference between them. Each currency is on its own."""
    view = await read_mrr(ctx, day)
    if format_ == "json":
        return view
    return await exported(format_, "mrr", MrrRow, [row for each in view.currencies for row in each.definitions])


async def read_movements(
    ctx: Context,
    definition: Definition,
    currency: str | None,
    bucket: Bucket = "month",
    since: date | None = None,
    until: date | None = None,
) -> MovementsView:
    """Raises Refusal, StoreUnavailable."""
    since, until = period_of(ctx, since, until, bucket)
    chosen, today = await currency_of(ctx, currency), day_of(ctx.clock())
    found = await recurring.read_bridges(ctx.reading, definition, chosen, since, until, bucket)
    rows = [movement_of(each, next_start(each.start, bucket) <= today) for each in found[definition]]
    return MovementsView(currency=chosen, definition=definition, bucket=bucket, movements=rows)


@router.get("/movements", dependencies=[Reads], responses=EXPORTED, response_model=MovementsView)
async def get_movements(
    ctx: Ctx,
    definition: By = Definition.STRIPE,
    currency: Currency = None,
    bucket: Bucket = "month",
    since: Since = None,
    until: Until = None,
    format_: As = "json",
) -> MovementsView | Response:
    """What recurring revenue grew and shrank by in each month or day: new, reactivation, expansion, contraction and
    churn lead from the start to the end exactly."""
    view = await read_movements(ctx, definition, currency, bucket, since, until)
    return view if format_ == "json" else await exported(format_, "movements", MovementRow, view.movements)


async def read_retention(
    ctx: Context, currency: str | None, since: date | None = None, until: date | None = None
) -> RetentionView:
    """Raises Refusal, StoreUnavailable."""
    since, until = period_of(ctx, since, until, "month")
    chosen, today = await currency_of(ctx, currency), day_of(ctx.clock())
    months = await recurring.retention(ctx.reading, chosen, since, until)
    rows = [retention_row(each, next_start(each.bridge.start, "month") <= today) for each in months]
    return RetentionView(currency=chosen, months=rows)


@router.get("/retention", dependencies=[Reads], responses=EXPORTED, response_model=RetentionView)
async def get_retention(
    ctx: Ctx, currency: Currency = None, since: Since = None, until: Until = None, format_: As = "json"
) -> RetentionView | Response:
    """Net revenue retention, gross and net churn, logo churn and quick ratio of each month, by each definition's own
    formula."""
    view = await read_retention(ctx, currency, since, until)
    return view if format_ == "json" else await exported(format_, "retention", RetentionRow, view.months)


async def read_cohorts(
    ctx: Context, definition: Definition, currency: str | None, since: date | None = None
) -> CohortsView:
    """Raises Refusal, StoreUnavailable."""
    since, _ = period_of(ctx, since, None, "month")
    chosen = await currency_of(ctx, currency)
    found = await recurring.cohorts(ctx.reading, definition, chosen, since, day_of(ctx.clock()))
    rows = [
        row
        for cohort in found
        for row in cohort_rows(cohort, [month_of(cohort.began, age) for age in range(len(cohort.annual))])
    ]
    return CohortsView(currency=chosen, definition=definition, cohorts=rows)


@router.get("/cohorts", dependencies=[Reads], responses=EXPORTED, response_model=CohortsView)
async def get_cohorts(
    ctx: Ctx,
    definition: By = Definition.STRIPE,
    currency: Currency = None,
    since: Since = None,
    format_: As = "json",
) -> CohortsView | Response:
    """Organizations by the month in which they first paid: how many of them, and how much of what they paid, is left at
    the end of each later month."""
    view = await read_cohorts(ctx, definition, currency, since)
    return view if format_ == "json" else await exported(format_, "cohorts", CohortRow, view.cohorts)


async def read_trials(
    ctx: Context, currency: str | None, since: date | None = None, until: date | None = None
) -> TrialsView:
    """Raises Refusal, StoreUnavailable."""
    since, until = period_of(ctx, since, until, "month")
    chosen = await currency_of(ctx, currency)
    months = await recurring.trials(ctx.reading, chosen, since, until)
    return TrialsView(currency=chosen, months=[trial_row(each) for each in months])


@router.get("/trials", dependencies=[Reads], responses=EXPORTED, response_model=TrialsView)
async def get_trials(
    ctx: Ctx, currency: Currency = None, since: Since = None, until: Until = None, format_: As = "json"
) -> TrialsView | Response:
    """Trials by the month in which they began, and how many of them became paid subscriptions."""
    view = await read_trials(ctx, currency, since, until)
    return view if format_ == "json" else await exported(format_, "trials", TrialRow, view.months)


async def read_subscriptions(
    ctx: Context,
    figure: Figure,
    definition: Definition,
    currency: str | None,
    since: date | None = None,
    until: date | None = None,
    after: str | None = None,
    limit: int = 100,
) -> SubscriptionsView:
    """Raises Refusal, StoreUnavailable."""
    chosen, today = await currency_of(ctx, currency), day_of(ctx.clock())
    day, org, subscription = _position(after, of_movement=figure != "mrr")
    rows: list[SubscriptionRow]
    async with ctx.reading.connection() as connection:
        if figure == "mrr":
            worth = await sql.movements.subscriptions_at(
                connection,
                definition=definition.value,
                currency=chosen,
                before=midnight(until or today + DAY),
                after_org=org,
                after_subscription=subscription,
                limit_rows=limit,
            )
            rows = [worth_row(row) for row in worth]
        else:
            moved = await sql.movements.subscriptions_moved(
                connection,
                definition=definition.value,
                currency=chosen,
                kind=None if figure == "movements" else Kind(figure).value,
                since=since or month_of(today),
                until=until or today + DAY,
                after_day=day,
                after_org=org,
                after_subscription=subscription,
                limit_rows=limit,
            )
            rows = [moved_row(row) for row in moved]
    following = _cursor(rows[-1]) if len(rows) == limit else None
    return SubscriptionsView(currency=chosen, definition=definition, subscriptions=rows, next=following)


@router.get("/subscriptions", dependencies=[Reads], responses=EXPORTED, response_model=SubscriptionsView)
async def get_subscriptions(
    ctx: Ctx,
    figure: Annotated[Figure, Query(description="`mrr` is the balance just before `to`.")] = "mrr",
    definition: By = Definition.STRIPE,
    currency: Currency = None,
    since: Annotated[Day | None, Query(alias="from", description="Of movements. Default: this month's first.")] = None,
    until: Annotated[Day | None, Query(alias="to", description="Exclusive. Default: tomorrow.")] = None,
    after: Annotated[str | None, Query(pattern=f"^{_AFTER.pattern}$", max_length=400)] = None,
    limit: Annotated[int, Query(ge=1, le=EXPORTED_MAX, description="JSON has 500 at most.")] = 100,
    format_: As = "json",
) -> SubscriptionsView | Response:
    """Lists the subscriptions that a figure is made of; what they add to it comes to the figure exactly.

    Exports have up to 100,000 rows, and name the next one in the field `Quotagate-Next`."""
    if format_ == "json":
        return await read_subscriptions(ctx, figure, definition, currency, since, until, after, min(limit, ROWS_MAX))
    view = await read_subscriptions(ctx, figure, definition, currency, since, until, after, limit)
    return await exported(format_, "subscriptions", SubscriptionRow, view.subscriptions, view.next)


def _position(after: str | None, *, of_movement: bool) -> tuple[date, str, str]:
    """Where a page begins. Raises Refusal."""
    if after is None:
        return date(1970, 1, 1), "", ""
    match = _AFTER.fullmatch(after)
    if match is None or (match[1] is not None) != of_movement or "\x00" in after:
        raise invalid_field("query.after", "is not a cursor of this list: begin with the first page")
    try:
        return date.fromisoformat(match[1] or "1970-01-01"), match[2], match[3]
    except ValueError as e:
        raise invalid_field("query.after", "is not a cursor of this list: begin with the first page") from e


def _cursor(row: SubscriptionRow) -> str:
    day = "" if row.day is None else f"{row.day.isoformat()}/"
    return f"{day}{row.org}/{row.subscription}"

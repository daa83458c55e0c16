"""`/v1/usage`: usage that did not pass the gateway is reported here, and usage over time is read here."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import groupby
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from control.access.permissions import Permission
from control.db import StoreUnavailable
from control.documents import BoundedMoment, View
from control.entitlements.plans import Meter
from control.http.context import Ctx, context_of
from control.http.guards import Holding, Subject, bearer, identify_caller, require, subject
from control.http.queries import refuse_unknown_meter
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.moments import moment, rfc3339
from control.organizations import store as organizations
from control.sql.usage import Bucket, PrincipalBucket
from control.usage import buckets, outcomes
from control.usage.buckets import SECONDS_DEFAULT, SECONDS_MAX, Size
from control.usage.outcomes import Charged, LetPass, Outcome, RecordRefused
from control.usage.records import RECORDS_MAX, BodyUnreadable, Invalid, UsageRecord, read
from quota import problems

AHEAD_SECONDS = 60  # events have the time of Redis' clock, which may be ahead of ours

router = APIRouter(prefix="/v1/usage", tags=["usage"], responses=DOCUMENTED)

_RECORD = {"$ref": "#/components/schemas/UsageRecord"}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"oneOf": [_RECORD, {"type": "array", "items": _RECORD, "minItems": 1, "maxItems": RECORDS_MAX}]},
            "example": {"meter": "api_calls", "units": 3, "idempotency_key": "invoice-run-42"},
        }
    },
}


class RecordView(View):
    """The result of one record: it was charged (status 200), or a problem document says why not."""

    status: int
    """The status that this record would get if it were sent alone."""
    idempotency_key: str | None = None
    """The key as it was sent; null where it was not valid."""
    id: str | None = None
    """The `request_id` of the usage event."""
    meter: str | None = None
    units: int | None = None
    overage: int | None = None
    """The part of `units` beyond allowance and grants, which is sold."""
    period_start: datetime | None = None
    """The period in which the record counts."""
    shadow: bool = False
    """The record would be refused, as `type`, `title` and `detail` say. Its organization is in shadow mode, so it is
    accepted (status 200), and nothing is charged."""
    type: str | None = None
    title: str | None = None
    detail: str | None = None


class ReportView(View):
    results: list[RecordView]
    """In the order of the records."""
    charged: int
    """The number of records that are charged, by this request or by an earlier one."""
    refused: int
    uncharged: int = 0
    """The number of records that would be refused, but for shadow mode."""


class BucketView(View):
    start: datetime
    """The first moment of the hour, day or month, UTC."""
    units: int
    """Negative if more units were given back than used."""
    overage: int
    """The part of `units` beyond allowance and grants, which is sold."""
    burnt: int
    """The part of `units` that grants paid for."""
    events: int | None
    """The number of charges and corrections. null: some days are archived in files, and only their sums are known."""


class MeterUsageView(View):
    meter: str
    units: int
    """The sum of all buckets."""
    overage: int
    burnt: int
    events: int | None
    buckets: list[BucketView]
    """The oldest first. Buckets without usage are left out."""


class PrincipalUsageView(View):
    principal: str | None
    """The key's id, or the user's. null: usage without one."""
    meters: list[MeterUsageView]


class UnwrittenView(View):
    """Usage that is counted, and is in no bucket yet."""

    meter: str
    period_start: datetime
    units: int
    overage: int
    burnt: int


class UsageView(View):
    org: str
    bucket: Size
    since: datetime
    """The parameter `from`. Its bucket holds only usage at or after this time."""
    until: datetime
    """The parameter `to`. Its bucket holds only usage before this time."""
    meters: list[MeterUsageView]
    by: Literal["key", "user"] | None = None
    principals: list[PrincipalUsageView] | None = None
    """With `by`: the same usage apart for each API key, or each user; the 1,000 that used the most, they first."""
    unwritten: list[UnwrittenView] | None
    """Usage that Redis has counted and that is not in the database yet, by period: usually of the last half second.
    Together with it, the sums are what the gateways enforce. null: Redis does not answer, or does not know the
    organization."""


@router.post(
    "",
    response_model=RecordView | ReportView,
    openapi_extra={"requestBody": _BODY},
    dependencies=[Holding(Permission.USAGE_WRITE)],
)
async def report_usage(org: Subject, request: Request, ctx: Ctx) -> JSONResponse:
    """Charges usage that did not pass the gateway: one record, or a list of up to 1,000 records.

    A record is charged like a request (allowance, then grants, then overage), by the same counters, but rate limits do
    not apply to it. A single record is answered with its own status. A list is answered with 200 and the status of each
    record; a record that is invalid or refused does not stop the others. The key of a refused record can be used again.
    The timestamp is checked and not stored: a record counts, and is listed, at the moment it is admitted.

    After a 503 it is unknown what was charged: send the same records with the same keys again. The database is not
    needed, except to load an organization that Redis does not know."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(problems.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json.")
    try:
        listed, records = read(await request.body())
    except BodyUnreadable as e:
        raise invalid_field("body", str(e)) from e
    good = [record for record in records if isinstance(record, UsageRecord)]
    reported = iter(await ctx.reporter.report(org, good) if good else [])
    record_outcomes = [outcomes.invalid(r) if isinstance(r, Invalid) else next(reported) for r in records]
    if any(isinstance(outcome, RecordRefused) and outcome.is_unknown for outcome in record_outcomes):
        with suppress(StoreUnavailable):  # that it was refused is known without the database
            await organizations.find(ctx.db, org)
    if not listed:
        [record], [outcome] = records, record_outcomes
        content = _result(record, outcome, "body", request.scope["correlation_id"])
        if isinstance(outcome, LetPass):
            return JSONResponse(content)
        media_type = "application/json" if isinstance(outcome, Charged) else problems.MEDIA_TYPE
        return JSONResponse(content, content["status"], dict(outcome.headers), media_type)
    results = [_result(r, o, f"body.{n}") for n, (r, o) in enumerate(zip(records, record_outcomes, strict=True))]
    charged = sum(isinstance(outcome, Charged) for outcome in record_outcomes)
    uncharged = sum(isinstance(outcome, LetPass) for outcome in record_outcomes)
    counts = {"charged": charged, "refused": len(record_outcomes) - charged - uncharged, "uncharged": uncharged}
    return JSONResponse({"results": results, **counts})


async def report_own_usage(request: Request) -> JSONResponse:
    """The same for who needs no parameter: FastAPI's dependencies take longer than all else that is done here."""
    context = await context_of(request)
    caller = require(await identify_caller(context, await bearer(request), request), Permission.USAGE_WRITE)
    org = await subject(caller, None)
    return await report_usage(org, request, context)


class _Unqueried(Route):
    """A POST without a query."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return Match.NONE, {}
        return super().matches(scope)


own_usage = _Unqueried("/v1/usage", report_own_usage, methods=["POST"], include_in_schema=False)
"""In front of `router`, which documents it."""


@router.get("", dependencies=[Holding(Permission.USAGE_READ)])
async def get_usage(
    org: Subject,
    ctx: Ctx,
    bucket: Size = "day",
    since: Annotated[
        BoundedMoment | None, Query(alias="from", description="Default: a day, 30 days or a year before `to`.")
    ] = None,
    until: Annotated[BoundedMoment | None, Query(alias="to", description="Exclusive. Default: a minute ahead.")] = None,
    meter: Annotated[Meter | None, Query(description="Default: all.")] = None,
    by: Annotated[Literal["key", "user"] | None, Query(description="Apart for each API key or user, too.")] = None,
) -> UsageView:
    """Returns what was used in each hour (of up to 31 days), day (366 days) or month (120 months), by meter, in UTC."""
    until = until or moment(ctx.clock() + AHEAD_SECONDS)
    since = since or max(until - timedelta(seconds=SECONDS_DEFAULT[bucket]), moment(0))
    seconds = (until - since).total_seconds()
    if not 0 < seconds <= SECONDS_MAX[bucket]:
        days = SECONDS_MAX[bucket] // buckets.DAY_SECONDS
        message = "must be before `to`" if seconds <= 0 else f"must be at most {days} days before `to` for {bucket}s"
        raise invalid_field("query.from", message)
    await organizations.find(ctx.db, org)
    await refuse_unknown_meter(ctx.db, meter)
    used = await ctx.buckets.used(org, bucket, since, until, meter)
    principals = None
    if by is not None:
        rows = await ctx.buckets.used_by(org, by == "key", bucket, since, until, meter)
        principals = [
            PrincipalUsageView(principal=principal, meters=_meters(of_principal))
            for principal, of_principal in groupby(rows, lambda each: each.principal)
        ]
    unwritten = [
        UnwrittenView(
            meter=u.meter, period_start=moment(u.period_start), units=u.used, overage=u.overage, burnt=u.burnt
        )
        for u in used.unwritten or ()
    ]
    shown = None if used.unwritten is None else unwritten
    return UsageView(
        org=org,
        bucket=bucket,
        since=since,
        until=until,
        meters=_meters(used.buckets),
        by=by,
        principals=principals,
        unwritten=shown,
    )


def _meters(rows: Iterable[Bucket | PrincipalBucket]) -> list[MeterUsageView]:
    meters = []
    for name, of_meter in groupby(rows, lambda each: each.meter):
        views = [
            BucketView(start=b.start, units=b.units, overage=b.overage, burnt=b.burnt, events=b.events)
            for b in of_meter
        ]
        sums: dict[str, int | None] = {
            field: sum(getattr(view, field) for view in views) for field in ("units", "overage", "burnt")
        }
        events = [view.events for view in views if view.events is not None]
        sums["events"] = sum(events) if len(events) == len(views) else None
        meters.append(MeterUsageView(meter=name, buckets=views, **sums))  # type: ignore[arg-type]  # only `events` may be None
    return meters


def _result(
    record: UsageRecord | Invalid, outcome: Outcome, at: str, correlation_id: str | None = None
) -> dict[str, Any]:
    """The result of one record. `at` names the record in messages. In a list, Retry-After is a member of the result."""
    if isinstance(outcome, Charged):
        event = outcome.event
        [charge] = event.charges
        return {
            "status": 200,
            "idempotency_key": record.idempotency_key,
            "id": event.request_id,
            "meter": charge.meter,
            "units": charge.units,
            "overage": charge.overage,
            "period_start": rfc3339(event.period_start),
        }
    members: Mapping[str, object] = {"idempotency_key": record.idempotency_key}
    if isinstance(outcome, LetPass):
        members = {**members, "shadow": True, "units": 0, "overage": 0}
        refusal = outcome.refusal
        return problems.document(refusal.problem, refusal.detail, correlation_id, members) | {"status": 200}
    members = {**outcome.members, **members}
    detail = outcome.detail
    if outcome.errors:
        errors = [{"field": f"{at}.{field}".rstrip("."), "message": message} for field, message in outcome.errors]
        detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
        members = {**members, "errors": errors}
    if correlation_id is None and "Retry-After" in outcome.headers:
        members = {**members, "retry_after_seconds": int(outcome.headers["Retry-After"])}
    return problems.document(outcome.problem, detail, correlation_id, members)

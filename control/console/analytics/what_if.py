"""The page of another plan: who would have been refused, and what invoices would have been."""

from datetime import UTC, date, datetime, time
from typing import Annotated, Any

from fastapi import Query
from pydantic import BeforeValidator
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.analytics import Day
from control.api.plans import list_plans
from control.api.what_if import get_what_if
from control.api.what_if_questions import CONCURRENT, QUOTA, RATE, REQUEST_SECONDS_MAX, Asked
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.sections import section
from control.decisions.sentences import RULES
from control.entitlements.plans import Meter, PlanCode, Units
from control.http.context import Ctx
from quota.access import KEY_ID_PATTERN
from quota.keys import ORG_PATTERN

router = Pages("/console/analytics/what-if")

_EMPTY = BeforeValidator(lambda value: value or None)  # a form sends a field that was emptied as an empty text
_Code = Annotated[PlanCode | None, _EMPTY]
_Organization = Annotated[Annotated[str, Query(pattern=ORG_PATTERN)] | None, _EMPTY]
_Amount = Annotated[Annotated[int, Query(ge=0, le=10**9)] | None, _EMPTY]
_Rate = Annotated[Annotated[str, Query(pattern=RATE)] | None, _EMPTY]
_Concurrent = Annotated[Annotated[str, Query(pattern=CONCURRENT)] | None, _EMPTY]
_Seconds = Annotated[Annotated[float, Query(gt=0, le=REQUEST_SECONDS_MAX)] | None, _EMPTY]
_Key = Annotated[Annotated[str, Query(pattern=KEY_ID_PATTERN)] | None, _EMPTY]
_Quota = Annotated[Annotated[str, Query(pattern=QUOTA)] | None, _EMPTY]
_Day = Annotated[Day | None, _EMPTY]


@router.page("", permission=Permission.ANALYTICS_READ, twin="/v1/analytics/what-if")
async def show(
    ctx: Ctx,
    viewer: Viewing,
    plan: _Code = None,
    org: _Organization = None,
    on_plan: _Code = None,
    meter: Annotated[Meter | None, _EMPTY] = None,
    allowance: Annotated[Units | None, _EMPTY] = None,
    price_month: _Amount = None,
    rate: _Rate = None,
    concurrent: _Concurrent = None,
    request_seconds: _Seconds = None,
    key: _Key = None,
    key_quota: _Quota = None,
    key_rate: _Rate = None,
    since: Annotated[_Day, Query(alias="from")] = None,
    until: Annotated[_Day, Query(alias="to")] = None,
    after: _Organization = None,
) -> Response:
    """What another plan, allowance or price would have meant."""
    given = {"plan": plan, "org": org, "on_plan": on_plan, "meter": meter, "allowance": allowance, "after": after}
    time_asked = {"from": _written(since), "to": _written(until)}
    speeds = {"rate": rate, "concurrent": concurrent, "request_seconds": request_seconds}
    of_key = {"key": key, "key_quota": key_quota, "key_rate": key_rate}
    asked = Asked.model_validate({**given, **time_asked, **speeds, **of_key, "price_month": price_month})
    found, catalogue = await section(get_what_if(ctx, asked)), await section(list_plans(ctx))
    plans = [] if catalogue.value is None else catalogue.value.plans
    sold = [(each.code, each.name) for each in plans if not each.archived]
    meters = [(name, name) for name in sorted({name for each in plans for name in each.meters})]
    values: dict[str, Any] = {
        "asked": asked,
        "since": since,
        "until": until,
        "plans": sold,
        "meters": meters,
        "reasons": RULES,
    }
    return viewer.page("analytics/what_if.html", found=found, **values)


def _written(day: date | None) -> str | None:
    return None if day is None else datetime.combine(day, time(), UTC).isoformat()

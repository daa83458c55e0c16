"""`/v1/decisions`: requests that gateways refused, and why any request was decided as it was."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from control import sql
from control.access.callers import Caller
from control.access.permissions import Permission
from control.api.decision_views import DecisionsView, decision_view
from control.api.refusal_views import CountedView, RefusalPage, refusal_view
from control.documents import BoundedMoment
from control.http.context import Ctx
from control.http.guards import Holding, Identified, refuse_others
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.moments import moment
from quota import problems
from quota.access import KEY_ID_PATTERN
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/decisions", tags=["decisions"], responses=DOCUMENTED)

COUNTED_DAYS = 1
CURSOR = r"^[0-9]{1,17}:[!-~]{1,200}$"

RequestId = Annotated[
    str,
    Path(
        pattern=r"^[!-.0-~]{1,200}$",
        description="X-Request-Id of the answer, `correlation_id` of a problem, or `request_id` of a line of the log.",
        examples=["9f2c41d0aa0000000001"],
    ),
]
OrgQuery = Annotated[
    str | None, Query(pattern=ORG_PATTERN, description="Of one organization. A token of one reads its own alone.")
]
KeyQuery = Annotated[str | None, Query(pattern=KEY_ID_PATTERN)]
Word = Annotated[str | None, Query(pattern=r"^[!-~]{1,100}$")]
UserQuery = Annotated[str | None, Query(min_length=1, max_length=128)]
ReadsDecisions = Holding(Permission.DECISIONS_READ)


@router.get("", dependencies=[ReadsDecisions])
async def list_refusals(
    ctx: Ctx,
    caller: Identified,
    org: OrgQuery = None,
    verdict: Word = None,
    key: KeyQuery = None,
    user: UserQuery = None,
    route: Word = None,
    since: Annotated[BoundedMoment | None, Query(alias="from")] = None,
    until: Annotated[BoundedMoment | None, Query(alias="to")] = None,
    before: Annotated[str | None, Query(pattern=CURSOR)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> RefusalPage:
    """Lists refused requests, the newest first: so many of each second are kept, and all are counted. They are here a
    second or two after the refusal."""
    org = _own(caller, org)
    at, request_id = _position(before)
    async with ctx.db.connection() as connection:
        rows = await sql.decisions.page(
            connection,
            org=org,
            verdict=verdict,
            key_id=key,
            user_id=user,
            route=route,
            since=since,
            until=until,
            before_at=at,
            before_id=request_id,
            limit_rows=limit,
        )
        ends = until or moment(ctx.clock()) + timedelta(minutes=1)
        begins = since or ends - timedelta(days=COUNTED_DAYS)
        counted = await sql.decisions.counted(connection, org=org, since=begins, until=ends)
    return RefusalPage(
        refusals=[refusal_view(row) for row in rows],
        counted=CountedView(
            since=begins,
            until=ends,
            refused=counted.refused,
            kept=counted.kept,
            not_kept=max(0, counted.refused - counted.kept),
        ),
        kept_days=ctx.explainer.kept_days,
        next=_text(rows[-1].at, rows[-1].request_id) if len(rows) == limit else None,
    )


@router.get("/{request_id}", dependencies=[ReadsDecisions])
async def explain_decision(request_id: RequestId, ctx: Ctx, caller: Identified) -> DecisionsView:
    """Explains what was decided of a request: each rule in order, the balances before and after, and the smallest
    change that would have admitted it. Refusals are found while they are kept, admitted requests by the usage event
    that they left."""
    explained = await ctx.explainer.find(request_id, _own(caller, None))
    if not explained:
        days = ctx.explainer.kept_days
        detail = (
            f"No decision is known by this id. Refusals are kept for {days} days, and so many of each second; admitted "
            "requests are found by the id in the gateway's log, if they were charged."
        )
        raise Refusal(problems.NOT_FOUND, detail)
    views = [decision_view(each) for each in explained]
    return DecisionsView(decisions=sorted(views, key=lambda view: view.at, reverse=True))


def _own(caller: Caller, org: str | None) -> str | None:
    """The organization that is asked about; None: all of them."""
    if caller.org is None:
        return org
    refuse_others(caller, org or caller.org)
    return caller.org


def _position(before: str | None) -> tuple[datetime | None, str | None]:
    if before is None:
        return None, None
    us, _, request_id = before.partition(":")
    if int(us) >= 4_102_444_800_000_000:  # the year 2100
        raise invalid_field("query.before", "is no cursor of this list")
    return moment(int(us) // 1_000_000) + timedelta(microseconds=int(us) % 1_000_000), request_id


def _text(at: datetime, request_id: str) -> str:
    whole = at.replace(microsecond=0)
    return f"{int(whole.timestamp()) * 1_000_000 + at.microsecond}:{request_id}"

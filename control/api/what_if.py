"""`/v1/analytics/what-if`: recorded usage and invoices under another plan, other limits or other prices."""

from collections import Counter
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query

from control import sql
from control.access.permissions import Permission
from control.analytics.what_if import asking
from control.analytics.what_if.asking import Compared, TooMuch
from control.api.what_if_questions import Asked, WhatIfBody, change_of, time_of
from control.cursors import Page, read_page
from control.documents import View
from control.http.context import Context, Ctx
from control.http.guards import Allowed
from control.http.refusals import DOCUMENTED, Refusal
from control.moments import moment
from control.organizations import store as organizations
from control.sql.what_if import Organization
from quota import problems

router = APIRouter(prefix="/v1/analytics/what-if", tags=["analytics"], responses=DOCUMENTED)

ROWS_OF_ANSWER: Final = 12_000  # recorded charges of a page of organizations, then it ends: half a second
REFUSALS_SHOWN: Final = 100


class WhatIfRefusalView(View):
    """A request that was served, and would not have been."""

    at: datetime
    request_id: str
    rule: str
    meter: str | None
    costs: dict[str, int]


class WhatIfInvoiceView(View):
    id: str
    number: str | None
    created_at: datetime
    reason: str | None
    currency: str
    recorded_minor: int
    remade_minor: int | None
    """Made again from what is kept here. null: something on it has no price here. What differs from `recorded_minor` is
    a coupon for one invoice, tax, or an item that somebody added."""
    otherwise_minor: int | None
    """What it would have been: the recorded one, and the difference that the plan makes. null: the plan is not sold in
    that currency, or for that interval."""


class WhatIfPeriodView(View):
    start: datetime
    meter: str
    used: int
    overage: int
    otherwise_used: int
    otherwise_overage: int


class OutcomeView(View):
    """One organization."""

    org: str
    name: str
    since: datetime
    """The start of the period in which the asked time begins."""
    requests: int
    """Recorded ones, served or refused."""
    reproduced: int
    """Of these, those that the terms in force decide again as is recorded, to the unit of what paid for them."""
    refused: int
    """Requests that were served, and would have been refused."""
    refused_units: dict[str, int]
    first_refused_at: datetime | None
    refused_by: dict[str, int]
    """The same by the rule that refuses: `meter`, `own_quota`, `rate`, `own_rate`, `concurrency`, `status`."""
    served: int
    """Requests that were refused, and would have been served."""
    unsure: int
    """Requests that were refused, of which the recorded times do not tell whether they would have been served. They
    count as refused."""
    unpaced: int
    """Requests that were served faster than the rate limit in force allows, since it did not apply to them: they were
    charged after an outage. Other rate limits do not apply to them either."""
    invoices: int
    remade: int
    """Of its invoices, those that come to the same amount when they are made again from what is kept here."""
    currency: str | None
    recorded_minor: int
    """What its invoices amounted to."""
    otherwise_minor: int | None
    """What they would have amounted to; null: not known of one of them."""


class WhatIfView(View):
    since: datetime
    until: datetime
    organizations: list[OutcomeView]
    too_much: list[str]
    """Organizations of which more is recorded than is looked at for one answer: ask about a shorter time."""
    refusals: list[WhatIfRefusalView]
    """Of one organization: the first that would have been refused."""
    invoices: list[WhatIfInvoiceView]
    """Of one organization."""
    periods: list[WhatIfPeriodView]
    """Of one organization."""
    next: str | None


@router.get("", dependencies=[Allowed(Permission.ANALYTICS_READ)])
async def get_what_if(ctx: Ctx, asked: Annotated[Asked, Query()]) -> WhatIfView:
    """Decides recorded requests again under another plan, and makes the invoices again: of one organization, or of a
    page of them. Without a plan: under the terms that were in force."""
    return await answer(ctx, asked.body(), "query")


@router.post("", dependencies=[Allowed(Permission.ANALYTICS_READ)])
async def ask_what_if(body: WhatIfBody, ctx: Ctx) -> WhatIfView:
    """The same under other allowances or prices, too. It changes nothing."""
    return await answer(ctx, body)


async def answer(ctx: Context, body: WhatIfBody, where: str = "body") -> WhatIfView:
    """`where`: in which part of the request the fields are. Raises Refusal, OrganizationUnknown, CursorUnknown,
    StoreUnavailable."""
    since, until = time_of(body, ctx.clock(), where)
    async with ctx.db.snapshot() as connection:
        catalogue = await asking.catalogue_of(connection)
        change = change_of(body, catalogue, where)
        if body.org is not None:
            name = (await organizations.find_any(ctx.db, body.org)).name
            page: Page[Organization, str] = Page([Organization(body.org, name)], None)
        else:
            page = await read_page(
                "after",
                body.after,
                body.limit,
                exists=lambda org: sql.organizations.find_any(connection, org=org),
                read=lambda org, rows_max: sql.what_if.organizations(
                    connection, after=org or "", on_plan=body.on_plan, limit_rows=rows_max
                ),
                cursor_of=lambda each: each.id,
            )
        compared, too_much, left = list[tuple[str, Compared]](), list[str](), ROWS_OF_ANSWER
        following = page.next
        for each in page.rows:
            rows_max = asking.ROWS_MAX if body.org is not None else ROWS_OF_ANSWER
            try:
                one = await asking.ask(
                    connection, each.id, since, until, change, catalogue, rows_max, body.request_seconds
                )
                compared.append((each.name, one))
                left -= one.rows
            except TooMuch:
                too_much.append(each.id)
                left -= ROWS_OF_ANSWER // 4  # they were read
            if left <= 0 and each is not page.rows[-1]:
                following = each.id  # the rest is the next page's
                break
    if body.org is not None and too_much:
        raise Refusal(problems.INVALID, f"More than {asking.ROWS_MAX} charges are recorded in that time.")
    details = compared[0][1] if body.org is not None else None
    return WhatIfView(
        since=since,
        until=until,
        organizations=[_outcome(name, each) for name, each in compared],
        too_much=too_much,
        refusals=[]
        if details is None
        else [WhatIfRefusalView.model_validate(r) for r in details.otherwise.refused[:REFUSALS_SHOWN]],
        invoices=[] if details is None else _invoices(details),
        periods=[] if details is None else _periods(details),
        next=following,
    )


def _outcome(name: str, compared: Compared) -> OutcomeView:
    recorded, otherwise = compared.recorded, compared.otherwise
    units: dict[str, int] = {}
    for each in otherwise.refused:
        for meter, cost in each.costs.items():
            units[meter] = units.get(meter, 0) + cost
    invoices = _invoices(compared)
    amounts = [each.otherwise_minor for each in invoices]
    known = [each for each in amounts if each is not None]
    return OutcomeView(
        org=compared.org,
        name=name,
        since=compared.since,
        requests=recorded.requests,
        reproduced=recorded.requests - recorded.differing,
        refused=len(otherwise.refused),
        refused_units=units,
        first_refused_at=otherwise.refused[0].at if otherwise.refused else None,
        refused_by=dict(Counter(each.rule for each in otherwise.refused)),
        served=otherwise.served,
        unsure=otherwise.unsure,
        unpaced=len(recorded.unpaced),
        invoices=len(invoices),
        remade=sum(each.remade_minor == each.recorded_minor for each in invoices),
        currency=invoices[0].currency if invoices else None,
        recorded_minor=sum(each.recorded_minor for each in invoices),
        otherwise_minor=sum(known) if len(known) == len(amounts) else None,
    )


def _invoices(compared: Compared) -> list[WhatIfInvoiceView]:
    views = []
    for was, otherwise in compared.invoices:
        invoice, again, other = was.invoice, was.again_minor, otherwise.again_minor
        moved = None if again is None or other is None else other - again
        views.append(
            WhatIfInvoiceView(
                id=invoice.id,
                number=invoice.number,
                created_at=invoice.created_at,
                reason=invoice.billing_reason,
                currency=invoice.currency,
                recorded_minor=invoice.total_minor,
                remade_minor=again,
                otherwise_minor=None if moved is None else invoice.total_minor + moved,
            )
        )
    return views


def _periods(compared: Compared) -> list[WhatIfPeriodView]:
    was, otherwise = compared.recorded.used, compared.otherwise.used
    views = []
    for start, meter in sorted({*was, *otherwise}):
        before, after = was.get((start, meter)), otherwise.get((start, meter))
        views.append(
            WhatIfPeriodView(
                start=moment(start),
                meter=meter,
                used=before.used if before else 0,
                overage=before.overage if before else 0,
                otherwise_used=after.used if after else 0,
                otherwise_overage=after.overage if after else 0,
            )
        )
    return views

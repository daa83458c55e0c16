"""`/v1/analytics/what-if`: recorded usage and invoices under another plan, other limits or other prices."""

from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field

from control import sql
from control.access.permissions import Permission
from control.analytics.what_if import asking
from control.analytics.what_if.asking import Compared, TooMuch
from control.analytics.what_if.invoices import Catalogue
from control.analytics.what_if.sold_plans import MeterChange, PlanChange
from control.billing.overage.overage_price import OveragePrice
from control.cursors import Page, read_page
from control.documents import Body, BoundedMoment, View, Whole
from control.entitlements.plans import Meter, PlanCode, Units
from control.http.context import Context, Ctx
from control.http.guards import Allowed
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.moments import moment
from control.organizations import store as organizations
from control.sql.what_if import Organization
from quota import problems
from quota.keys import ORG_PATTERN
from quota.model import OveragePolicy

router = APIRouter(prefix="/v1/analytics/what-if", tags=["analytics"], responses=DOCUMENTED)

ORGANIZATIONS_MAX: Final = 50  # of one answer: each is decided anew, request by request
ORGANIZATIONS_DEFAULT: Final = 20
DAYS_DEFAULT, DAYS_MAX = 90, 400
AHEAD_SECONDS: Final = 60  # Redis' clock, which dates what is recorded, may be ahead of ours
ROWS_OF_ANSWER: Final = 12_000  # recorded charges of a page of organizations, then it ends: half a second
REFUSALS_SHOWN: Final = 100
AMOUNT_MAX: Final = 10**9

Amount = Annotated[int, Whole, Field(strict=True, ge=0, le=AMOUNT_MAX)]
OrgId = Annotated[str, Field(pattern=ORG_PATTERN)]


class OtherOverage(Body):
    """What further units cost."""

    amount_minor: Amount
    units: Annotated[int, Whole, Field(strict=True, ge=1, le=AMOUNT_MAX)] = 1


class OtherMeter(Body):
    """What is otherwise about a meter."""

    allowance: Annotated[Units, Whole, Field(strict=True)] | None = None
    """Units included in a period; null: as it was."""
    overage: OtherOverage | None = None
    """The price of units beyond; null: as it was."""


class WhatIfBody(Body):
    """What would have been otherwise. Nothing: as it was, which shows that all of it can be recomputed."""

    plan: PlanCode | None = None
    """The newest version of this plan, in place of the one that each organization had."""
    policy: OveragePolicy | None = None
    meters: dict[Meter, OtherMeter] = Field(default={}, max_length=100)
    """Other allowances and prices, by meter."""
    price_minor: dict[str, Amount] = Field(default={}, max_length=2)
    """Other prices of the plan, by `month` and `year`."""
    org: OrgId | None = None
    """Only this organization, request by request; null: a page of all."""
    on_plan: PlanCode | None = None
    """Only organizations that have this plan now."""
    since: BoundedMoment | None = None
    """Default: 90 days before `until`. An organization's time begins with its period."""
    until: BoundedMoment | None = None
    """Exclusive. Default: a minute ahead."""
    after: OrgId | None = None
    """The `next` of the page before."""
    limit: Annotated[int, Whole, Field(strict=True, ge=1, le=ORGANIZATIONS_MAX)] = ORGANIZATIONS_DEFAULT


class RefusedView(View):
    """A request that was served, and would not have been."""

    at: datetime
    request_id: str
    rule: str
    meter: str | None
    costs: dict[str, int]


class InvoiceView(View):
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


class PeriodView(View):
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
    served: int
    """Requests that were refused, and would have been served."""
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
    refusals: list[RefusedView]
    """Of one organization: the first that would have been refused."""
    invoices: list[InvoiceView]
    """Of one organization."""
    periods: list[PeriodView]
    """Of one organization."""
    next: str | None


class Asked(Body):
    """A question as the query of a GET has it: another plan, the allowance of one meter, other prices."""

    plan: PlanCode | None = None
    meter: Meter | None = None
    allowance: Annotated[Units | None, Field(description="Of `meter`, in a period.")] = None
    price_month: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX, description="Minor units.")] = None
    price_year: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX, description="Minor units.")] = None
    org: OrgId | None = None
    on_plan: PlanCode | None = None
    since: Annotated[BoundedMoment | None, Field(alias="from", description="Default: 90 days before `to`.")] = None
    until: Annotated[BoundedMoment | None, Field(alias="to", description="Exclusive. Default: a minute ahead.")] = None
    after: OrgId | None = None
    limit: Annotated[int, Field(ge=1, le=ORGANIZATIONS_MAX)] = ORGANIZATIONS_DEFAULT

    def body(self) -> WhatIfBody:
        common = ("plan", "org", "on_plan", "since", "until", "after", "limit")
        prices = {"month": self.price_month, "year": self.price_year}
        return WhatIfBody(
            **{name: getattr(self, name) for name in common},
            meters={} if self.meter is None else {self.meter: OtherMeter(allowance=self.allowance)},
            price_minor={interval: amount for interval, amount in prices.items() if amount is not None},
        )


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
    since, until = _time(body, ctx.clock(), where)
    async with ctx.db.snapshot() as connection:
        catalogue = await asking.catalogue_of(connection)
        change = _change(body, catalogue, where)
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
                one = await asking.ask(connection, each.id, since, until, change, catalogue, rows_max)
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
        else [RefusedView.model_validate(r) for r in details.otherwise.refused[:REFUSALS_SHOWN]],
        invoices=[] if details is None else _invoices(details),
        periods=[] if details is None else _periods(details),
        next=following,
    )


def _time(body: WhatIfBody, now: float, where: str) -> tuple[datetime, datetime]:
    until = body.until or moment(now + AHEAD_SECONDS)
    since = body.since or max(until - timedelta(days=DAYS_DEFAULT), moment(0))
    if not timedelta(0) < until - since <= timedelta(days=DAYS_MAX):
        field, until_field = ("from", "to") if where == "query" else ("since", "until")
        raise invalid_field(f"{where}.{field}", f"must be before `{until_field}`, and at most {DAYS_MAX} days")
    return since, until


def _change(body: WhatIfBody, catalogue: Catalogue, where: str) -> PlanChange:
    """Raises Refusal for a plan or a meter that does not exist."""
    if unknown := body.price_minor.keys() - {"month", "year"}:
        raise invalid_field(f"{where}.price_minor", f"there is no interval {min(unknown)}, only month and year")
    plan = None
    for field, code in (("plan", body.plan), ("on_plan", body.on_plan)):
        if code is not None and not any(plan.code == code for plan in catalogue.plans.values()):
            raise invalid_field(f"{where}.{field}", f"there is no plan {code}")
    if body.plan is not None:
        plan = max((p for p in catalogue.plans.values() if p.code == body.plan), key=lambda p: p.version)
    if unknown_meters := body.meters.keys() - {m for p in catalogue.plans.values() for m in p.meters}:
        named = "query.meter" if where == "query" else "body.meters"
        raise invalid_field(named, f"no plan has the meter {min(unknown_meters)}")
    meters = {
        meter: MeterChange(
            other.allowance,
            None if other.overage is None else OveragePrice(other.overage.amount_minor, other.overage.units),
        )
        for meter, other in body.meters.items()
    }
    return PlanChange(plan, body.policy, meters, body.price_minor)


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
        served=otherwise.served,
        invoices=len(invoices),
        remade=sum(each.remade_minor == each.recorded_minor for each in invoices),
        currency=invoices[0].currency if invoices else None,
        recorded_minor=sum(each.recorded_minor for each in invoices),
        otherwise_minor=sum(known) if len(known) == len(amounts) else None,
    )


def _invoices(compared: Compared) -> list[InvoiceView]:
    views = []
    for was, otherwise in compared.invoices:
        invoice, again, other = was.invoice, was.again_minor, otherwise.again_minor
        moved = None if again is None or other is None else other - again
        views.append(
            InvoiceView(
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


def _periods(compared: Compared) -> list[PeriodView]:
    was, otherwise = compared.recorded.used, compared.otherwise.used
    views = []
    for start, meter in sorted({*was, *otherwise}):
        before, after = was.get((start, meter)), otherwise.get((start, meter))
        views.append(
            PeriodView(
                start=moment(start),
                meter=meter,
                used=before.used if before else 0,
                overage=before.overage if before else 0,
                otherwise_used=after.used if after else 0,
                otherwise_overage=after.overage if after else 0,
            )
        )
    return views

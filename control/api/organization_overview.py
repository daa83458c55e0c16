"""One organization as a whole: what it has, uses and pays now, and what its entitlement was and will be."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from control import sql
from control.access.permissions import Permission
from control.api.entitlement_views import SetView, set_of
from control.api.organization_views import CountView, OrganizationView, SummaryView, organization_view, summary_view
from control.directory.history import Entry, history
from control.directory.listing import COUNTED_MAX
from control.directory.reading import read_summaries
from control.documents import BoundedMoment, View
from control.entitlements.changes import wanted_of
from control.http.context import Ctx
from control.http.guards import Allowed, OfOrganization, Org
from control.http.refusals import DOCUMENTED
from control.moments import moment
from control.organizations import store
from control.organizations.store import OrganizationUnknown

router = APIRouter(prefix="/v1", responses=DOCUMENTED)


class CustomerView(View):
    id: str
    """Its id at Stripe."""
    main: bool
    """Portal, credit and sign-ups use this one."""


class OverviewView(View):
    organization: OrganizationView
    summary: SummaryView
    customers: list[CustomerView]
    people: CountView
    keys: CountView
    """Those that are active."""
    sites: CountView
    """Those that are active."""
    open_incidents: CountView
    changes: list[datetime]
    """When its entitlement will be another, as far as it is known now; the next first."""
    as_of: datetime


class EntitlementEntryView(View):
    """An entitlement, for as long as nothing of it changed."""

    start: datetime
    end: datetime | None
    """null: until further notice."""
    state: Literal["past", "current", "scheduled"]
    plan_name: str | None
    plan_version: int | None
    status: str | None
    """What payments made of it; null: nothing was in force."""
    subscription: str | None
    """It followed this subscription; null: an admin set it."""
    quantity: int | None
    """Seats: so many times the plan's allowances."""
    set: SetView | None
    """What is set, as GET of the entitlement has it; null: nothing was in force."""


class EntitlementHistoryPage(View):
    entries: list[EntitlementEntryView]
    """The newest first; what is scheduled comes before all others."""
    next: datetime | None
    """`before` of the next page; null on the last."""


@router.get(
    "/organizations/{org}/overview", tags=["organizations"], dependencies=[Allowed(Permission.ORGANIZATIONS_READ)]
)
async def get_organization_overview(org: Org, ctx: Ctx) -> OverviewView:
    """Returns what an organization has, uses and pays, and how many people, keys, sites and open incidents it has."""
    now = ctx.clock()
    async with ctx.db.snapshot() as connection:
        summary = (await read_summaries(connection, [org], now)).get(org)
        if summary is None:
            raise OrganizationUnknown(org)
        counts = await sql.directory.counts(connection, org=org, bound=COUNTED_MAX + 1)
        customers = await sql.billing.customers_of(connection, org=org)
        changes = await sql.entitlements.changes_ahead(connection, org=org, at=moment(now))
    return OverviewView(
        organization=organization_view(summary),
        summary=summary_view(summary),
        customers=[CustomerView.model_validate(each) for each in customers],
        people=_count(counts.people),
        keys=_count(counts.keys),
        sites=_count(counts.sites),
        open_incidents=_count(counts.open_incidents),
        changes=list(changes),
        as_of=moment(now),
    )


@router.get(
    "/entitlements/{org}/history", tags=["entitlements"], dependencies=[OfOrganization(Permission.ENTITLEMENTS_READ)]
)
async def get_entitlement_history(
    org: Org,
    ctx: Ctx,
    before: BoundedMoment | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> EntitlementHistoryPage:
    """Lists what the organization's entitlement was, is, and is scheduled to be."""
    await store.find_any(ctx.db, org)
    async with ctx.db.snapshot() as connection:
        page = await history(connection, org, before, limit)
    now = moment(ctx.clock())
    return EntitlementHistoryPage(entries=[_entry(each, now) for each in page.rows], next=page.next)


def _count(found: int) -> CountView:
    return CountView(found=min(found, COUNTED_MAX), more=found > COUNTED_MAX)


def _entry(entry: Entry, now: datetime) -> EntitlementEntryView:
    terms = entry.terms
    is_past = entry.until is not None and entry.until <= now
    return EntitlementEntryView(
        start=entry.at,
        end=entry.until,
        state="scheduled" if entry.at > now else "past" if is_past else "current",
        plan_name=terms.plan.name if terms else None,
        plan_version=terms.plan.version if terms else None,
        status=terms.status.word if terms else None,
        subscription=terms.subscription if terms else None,
        quantity=terms.quantity if terms else None,
        set=set_of(wanted_of(terms)) if terms else None,
    )

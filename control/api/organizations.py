"""`/v1/organizations`: who is billed, and the journal of what was changed about them."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from control import journal, sql
from control.access.people import organizations
from control.access.permissions import Permission
from control.access.publishing import announce, enforce
from control.api.organization_views import CountView, OrganizationPage, OrganizationView, listed_view
from control.directory import listing
from control.directory.listing import Filter, Order, Sort
from control.directory.reading import read_summaries
from control.documents import Body, View
from control.entitlements.plans import PlanCode
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor, OfOrganization, Org
from control.http.queries import unknown_word
from control.http.refusals import DOCUMENTED
from control.http.rereading import ReadingRoute
from control.organizations import store

router = APIRouter(prefix="/v1/organizations", tags=["organizations"], responses=DOCUMENTED, route_class=ReadingRoute)


OrganizationStatus = Literal["none", "active", "trialing", "grace", "suspended", "ended"]
SortWord = Literal[
    "id",
    "name",
    "created",
    "used",
    "mrr",
    "renewal",
    "-id",
    "-name",
    "-created",
    "-used",
    "-mrr",
    "-renewal",
]


SORTED: Final = (
    "With `-` from the largest, or the latest. `mrr` is in the order of the numbers of minor units, of several "
    "currencies of one organization by the largest one: nothing is converted."
)


class OrganizationBody(Body):
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class JournalEntryView(View):
    id: UUID
    at: datetime
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    correlation_id: str
    """The X-Request-Id of the request that changed it."""


class JournalPage(View):
    entries: list[JournalEntryView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


@router.put(
    "/{org}",
    dependencies=[Allowed(Permission.ORGANIZATIONS_WRITE)],
    responses={201: {"model": OrganizationView, "description": "The organization was created."}},
)
async def put_organization(
    org: Org, body: OrganizationBody, ctx: Ctx, author: CallAuthor, response: Response
) -> OrganizationView:
    """Creates an organization (201), or renames it (200). Its id is the value of the organization claim in its
    tokens."""
    organization, created = await store.put(ctx.db, org, body.name, ctx.clock(), author)
    response.status_code = 201 if created else 200
    return OrganizationView.model_validate(organization)


@router.get("", dependencies=[Allowed(Permission.ORGANIZATIONS_READ)])
async def list_organizations(
    ctx: Ctx,
    q: Annotated[
        str | None,
        Query(max_length=200, description="Beginnings of words: id, name, e-mail, Stripe customer, API key."),
    ] = None,
    plan: Annotated[PlanCode | None, Query(description="Its code.")] = None,
    status: OrganizationStatus | None = None,
    near_quota: Annotated[bool | None, Query(description="Has used 80 % of an allowance with its grants.")] = None,
    payment_failed: Annotated[bool | None, Query(description="Has an invoice that could not be collected.")] = None,
    shadow: Annotated[bool | None, Query(description="Is in shadow mode: it is measured and not refused.")] = None,
    sort: Annotated[SortWord, Query(description=SORTED)] = "id",
    after: Annotated[str | None, Query(min_length=1, max_length=1000, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    deleted: Annotated[bool, Query(description="Lists those that were deleted instead.")] = False,
) -> OrganizationPage:
    """Lists organizations: those that a search and filters match, in some order. The choice is up to five seconds old;
    what each of them has, uses and pays is as it is now, or as a replica has it (`Quotagate-As-Of`)."""
    chosen = Filter(q or None, plan, status, near_quota, payment_failed, shadow, deleted)
    order = Order(Sort[sort.removeprefix("-").upper()], sort.startswith("-"))
    async with ctx.reading.connection() as connection:
        if plan is not None and plan not in (known := await sql.directory.plans(connection)):
            raise unknown_word("plan", plan, known)
        searched = await listing.search(connection, chosen)
        found = await listing.page(connection, chosen, searched, order, after, limit)
        count = await listing.count(connection, chosen, searched) if after is None else None
        summaries = await read_summaries(connection, found.rows, ctx.clock())
    return OrganizationPage(
        organizations=[listed_view(summaries[org]) for org in found.rows if org in summaries],
        count=None if count is None else CountView.model_validate(count),
        next=found.next,
    )


@router.get("/{org}", dependencies=[OfOrganization(Permission.ORGANIZATIONS_READ)])
async def get_organization(org: Org, ctx: Ctx) -> OrganizationView:
    """Returns an organization."""
    return OrganizationView.model_validate(await store.find_any(ctx.db, org))


@router.delete("/{org}", status_code=204, dependencies=[Allowed(Permission.ORGANIZATIONS_DELETE)])
async def delete_organization(org: Org, ctx: Ctx, author: CallAuthor) -> None:
    """Deletes an organization: its entitlement ends, and its tokens and keys are refused from the answer on. What it
    used and paid stays. A subscription must be cancelled first (409)."""
    await organizations.delete(ctx.db, org, ctx.clock(), author)
    await enforce(ctx.publisher, org)


@router.post("/{org}/restore", dependencies=[Allowed(Permission.ORGANIZATIONS_DELETE)])
async def restore_organization(org: Org, ctx: Ctx, author: CallAuthor) -> OrganizationView:
    """Brings a deleted organization back, without an entitlement. Its tokens, keys and members are as they were."""
    organization, restored = await organizations.restore(ctx.db, org, ctx.clock(), author)
    if restored:
        await announce(ctx.publisher, org)
    return OrganizationView.model_validate(organization)


@router.get("/{org}/journal", dependencies=[Allowed(Permission.AUDIT_READ)])
async def list_organization_journal(
    org: Org, ctx: Ctx, before: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> JournalPage:
    """Lists the journal of an organization: who changed what."""
    await store.find_any(ctx.db, org)
    async with ctx.db.connection() as connection:
        page = await journal.of_organization(connection, org, before, limit)
    return JournalPage(entries=[JournalEntryView.model_validate(row) for row in page.rows], next=page.next)

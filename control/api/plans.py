"""`/v1/plans`: the catalogue."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from control import sql
from control.access.permissions import Permission
from control.api.entitlement_views import RateView, rate_view
from control.documents import Body, View
from control.entitlements import catalogue
from control.entitlements.plans import PlanCode, PlanTerms
from control.entitlements.rates import rate_of
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor, Holding
from control.http.refusals import DOCUMENTED
from quota.model import OveragePolicy

router = APIRouter(prefix="/v1/plans", tags=["plans"], responses=DOCUMENTED)


class OveragePriceView(View):
    amount_minor: int
    units: int


class PlanMeterView(View):
    allowance: int
    overage: OveragePriceView | None
    overage_max: int | None


class PlanView(View):
    code: str
    version: int
    name: str
    policy: OveragePolicy
    currency: str
    price_minor: dict[str, int]
    """The price of each billing interval, in minor units of the currency."""
    meters: dict[str, PlanMeterView]
    rate: RateView | None
    concurrent_max: int | None
    """The number of requests that may be under way at once; null: any number."""
    contact: bool
    """The plan has no list price: customers contact the vendor."""
    demo: bool
    archived: bool
    """The plan stays in force where it is, and is given to nobody else."""


class PlanList(View):
    plans: list[PlanView]


class CatalogueBody(Body):
    plans: Annotated[dict[PlanCode, PlanTerms], Field(min_length=1, max_length=500)]
    """Each as in the catalogue file."""
    expected: Annotated[dict[PlanCode, Annotated[int, Field(ge=1)]], Field(max_length=10_000)] | None = None
    """The version of each plan that is in the catalogue. Where it is another one by now, nothing changes (409). Left
    out: whatever they are."""
    prune: bool = False
    """Plans that are not named are archived: in force where they are, and given to nobody else."""
    dry_run: bool = False
    """Nothing is changed: the answer says what would be."""


class CatalogueChanges(View):
    changes: list[str]
    """What changed, in words; none: the catalogue was so already."""


@router.get("", dependencies=[Holding(Permission.PLANS_READ)])
async def list_plans(ctx: Ctx) -> PlanList:
    """Lists the newest version of each plan."""
    async with ctx.db.connection() as connection:
        return PlanList(plans=[_view(row) for row in await sql.plans.newest(connection)])


@router.put("", dependencies=[Allowed(Permission.PLANS_WRITE)])
async def put_plans(body: CatalogueBody, ctx: Ctx, author: CallAuthor) -> CatalogueChanges:
    """Adds and changes plans. A changed plan becomes a new version. When the answer is there, every organization that
    has the plan has the new version, and gateways go by it a moment later; what was used in the period stays used."""
    lines = await catalogue.apply_plans(
        ctx.db,
        body.plans,
        ctx.clock(),
        author,
        dry_run=body.dry_run,
        prune=body.prune,
        expected=body.expected,
    )
    return CatalogueChanges(changes=lines)


def _view(row: sql.plans.Plan) -> PlanView:
    plain = ("code", "version", "name", "policy", "currency", "price_minor", "meters")
    fields = (*plain, "concurrent_max", "contact", "demo")
    rate = rate_of(row.rate_requests, row.rate_seconds, row.rate_burst)
    content = {field: getattr(row, field) for field in fields}
    return PlanView(**content, rate=rate_view(rate), archived=row.archived_at is not None)

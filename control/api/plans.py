"""`/v1/plans`: the catalogue."""

from fastapi import APIRouter

from control import sql
from control.access.permissions import Permission
from control.api.entitlement_views import RateView, rate_view
from control.documents import View
from control.entitlements.rates import rate_of
from control.http.context import Ctx
from control.http.guards import Holding
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


@router.get("", dependencies=[Holding(Permission.PLANS_READ)])
async def list_plans(ctx: Ctx) -> PlanList:
    """Lists the newest version of each plan."""
    async with ctx.db.connection() as connection:
        return PlanList(plans=[_view(row) for row in await sql.plans.newest(connection)])


def _view(row: sql.plans.Plan) -> PlanView:
    plain = ("code", "version", "name", "policy", "currency", "price_minor", "meters")
    fields = (*plain, "concurrent_max", "contact", "demo")
    rate = rate_of(row.rate_requests, row.rate_seconds, row.rate_burst)
    content = {field: getattr(row, field) for field in fields}
    return PlanView(**content, rate=rate_view(rate), archived=row.archived_at is not None)

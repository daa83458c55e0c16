"""The page of all organizations: searched, filtered, sorted."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.organizations import OrganizationStatus, SortWord, list_organizations
from control.api.plans import list_plans
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.sections import section
from control.console.organizations.bulk_pages import offered
from control.entitlements.plans import PlanCode
from control.http.context import Ctx

router = Pages("/console/organizations")

ROWS = 20  # a page stays below 100 KB


@router.page("", permission=Permission.ORGANIZATIONS_READ, twin="/v1/organizations")
async def show(
    ctx: Ctx,
    viewer: Viewing,
    q: Annotated[str, Query(max_length=200)] = "",
    plan: PlanCode | None = None,
    status: OrganizationStatus | None = None,
    near_quota: bool | None = None,
    payment_failed: bool | None = None,
    shadow: bool | None = None,
    deleted: bool = False,
    sort: SortWord = "id",
    after: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
) -> Response:
    """Organizations."""
    found = await section(
        list_organizations(
            ctx,
            q=q,
            plan=plan,
            status=status,
            near_quota=near_quota,
            payment_failed=payment_failed,
            shadow=shadow,
            deleted=deleted,
            sort=sort,
            after=after,
            limit=ROWS,
        )
    )
    plans = await section(list_plans(ctx))
    chosen = {
        "q": q,
        "plan": plan,
        "status": status,
        "near_quota": near_quota,
        "payment_failed": payment_failed,
        "shadow": shadow,
        "deleted": deleted,
    }
    bulk = [] if deleted else offered(viewer, {name: value for name, value in chosen.items() if value})
    return viewer.page(
        "organizations/list.html", found=found, plans=plans, chosen=chosen, after=after, sort=sort, bulk=bulk
    )

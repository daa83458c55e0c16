"""The pages of one organization, a tab each."""

from collections.abc import Awaitable
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.actions.catalogue import ACTIONS
from control.api.billing import list_invoices
from control.api.entitlement_views import EntitlementView
from control.api.entitlements import read_entitlement
from control.api.grants import list_grants
from control.api.incidents import After, list_incidents
from control.api.keys import list_keys
from control.api.money import list_billing_entries
from control.api.organization_overview import get_entitlement_history, get_organization_overview
from control.api.organizations import list_organization_journal
from control.api.people import list_members
from control.api.revocations import list_revocations
from control.api.sites import list_sites
from control.api.usage import get_usage
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.sections import section, sections
from control.console.frame.viewer import Viewer
from control.console.organizations.tabs import tabs_of
from control.console.organizations.usage_charts import charted, ranked
from control.documents import BoundedMoment
from control.entitlements.changes import EntitlementMissing
from control.entitlements.plans import Meter
from control.http.context import Context, Ctx
from control.http.guards import Org
from control.organizations import store
from control.usage.buckets import Size

router = Pages("/console/organizations/{org}")

ROWS = 50
FEW = 5
Cursor = Annotated[str | None, Query(min_length=1, max_length=200)]


@router.page("", permission=Permission.ORGANIZATIONS_READ, twin="/v1/organizations/{org}/overview")
async def show_overview(org: Org, ctx: Ctx, viewer: Viewing) -> Response:
    """What it has, uses and pays now."""
    loading: dict[str, Awaitable[object]] = {"overview": get_organization_overview(org, ctx)}
    if viewer.can(Permission.ENTITLEMENTS_READ):
        loading["entitlement"] = _entitlement(ctx, org)
    if viewer.can(Permission.INCIDENTS_READ):
        loading["incidents"] = list_incidents(ctx, status="open", org=org, limit=FEW)
    if viewer.can(Permission.AUDIT_READ):
        loading["journal"] = list_organization_journal(org, ctx, limit=FEW)
    found = await sections(**loading)
    return await _page(ctx, viewer, org, "", found=found, actions=_actions(viewer))


@router.page("/usage", permission=Permission.USAGE_READ, twin="/v1/usage?org={org}")
async def show_usage(
    org: Org,
    ctx: Ctx,
    viewer: Viewing,
    bucket: Size = "day",
    by: Literal["key", "user"] | None = None,
    meter: Meter | None = None,
) -> Response:
    """What it used, by meter, time, key and user."""
    await store.find_any(ctx.db, org)
    found = await section(get_usage(org, ctx, bucket=bucket, meter=meter, by=by))
    charts = [] if found.value is None else charted(found.value)
    rankings = [] if found.value is None else ranked(found.value)
    chosen = {"bucket": bucket, "by": by, "meter": meter}
    return await _page(ctx, viewer, org, "usage", found=found, charts=charts, rankings=rankings, chosen=chosen)


@router.page("/entitlement", permission=Permission.ENTITLEMENTS_READ, twin="/v1/entitlements/{org}/history")
async def show_entitlement(org: Org, ctx: Ctx, viewer: Viewing, before: BoundedMoment | None = None) -> Response:
    """What it may use, what that was, and what is scheduled."""
    loading: dict[str, Awaitable[object]] = {
        "history": get_entitlement_history(org, ctx, before=before),
        "current": _entitlement(ctx, org),
    }
    if viewer.can(Permission.GRANTS_READ):
        loading["grants"] = list_grants(org, ctx)
    found = await sections(**loading)
    return await _page(ctx, viewer, org, "entitlement", found=found, before=before)


@router.page("/billing", permission=Permission.BILLING_READ, twin="/v1/organizations/{org}/invoices")
async def show_billing(
    org: Org, ctx: Ctx, viewer: Viewing, before: Cursor = None, entries_before: Cursor = None
) -> Response:
    """Its invoices, and money that went another way."""
    found = await sections(
        invoices=list_invoices(org, ctx, before=before),
        entries=list_billing_entries(org, ctx, before=entries_before),
        overview=get_organization_overview(org, ctx),
    )
    return await _page(ctx, viewer, org, "billing", found=found, before=before, entries_before=entries_before)


@router.page("/people", permission=Permission.MEMBERS_READ, twin="/v1/organizations/{org}/members")
async def show_people(org: Org, ctx: Ctx, viewer: Viewing, after: Cursor = None) -> Response:
    """Its members."""
    found = await section(list_members(org, ctx, viewer.caller, after=after, limit=ROWS))
    return await _page(ctx, viewer, org, "people", found=found, after=after)


@router.page("/access", permission=Permission.KEYS_READ, twin="/v1/organizations/{org}/keys")
async def show_access(
    org: Org, ctx: Ctx, viewer: Viewing, before: Cursor = None, sites_before: Cursor = None
) -> Response:
    """Its keys and sites, and what of it is revoked."""
    loading: dict[str, Awaitable[object]] = {"keys": list_keys(org, ctx, before=before, limit=ROWS)}
    if viewer.can(Permission.SITES_READ):
        loading["sites"] = list_sites(org, ctx, before=sites_before, limit=ROWS)
    if viewer.can(Permission.REVOCATIONS_READ):
        loading["revocations"] = list_revocations(org, ctx, limit=ROWS)
    found = await sections(**loading)
    return await _page(ctx, viewer, org, "access", found=found, before=before, sites_before=sites_before)


@router.page("/incidents", permission=Permission.INCIDENTS_READ, twin="/v1/incidents?org={org}")
async def show_incidents(
    org: Org, ctx: Ctx, viewer: Viewing, status: Literal["open", "closed"] | None = None, after: After = None
) -> Response:
    """Its incidents."""
    found = await section(list_incidents(ctx, status=status, org=org, after=after, limit=ROWS))
    return await _page(ctx, viewer, org, "incidents", found=found, chosen=status, after=after)


@router.page("/journal", permission=Permission.AUDIT_READ, twin="/v1/organizations/{org}/journal")
async def show_journal(org: Org, ctx: Ctx, viewer: Viewing, before: UUID | None = None) -> Response:
    """Who changed what of it."""
    found = await section(list_organization_journal(org, ctx, before=before, limit=ROWS))
    return await _page(ctx, viewer, org, "journal", found=found, before=before)


async def _entitlement(ctx: Context, org: str) -> EntitlementView | None:
    """None where it never had one."""
    try:
        return await read_entitlement(ctx, org)
    except EntitlementMissing:
        return None


async def _page(ctx: Context, viewer: Viewer, org: str, tab: str, **values: Any) -> Response:
    """Raises OrganizationUnknown."""
    organization = await store.find_any(ctx.db, org)
    template = f"organizations/{tab or 'overview'}.html"
    return viewer.page(template, organization=organization, tabs=tabs_of(viewer, org, tab), **values)


def _actions(viewer: Viewer) -> list[tuple[str, str]]:
    """Name and title of what the viewer may do to it."""
    return [(each.name, each.title) for each in ACTIONS.values() if viewer.can(each.permission)]

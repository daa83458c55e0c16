"""The plan and the invoices. A payment method, a plan change or the end of a subscription is Stripe's own page."""

from typing import Annotated, Final

from fastapi import Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.billing import PortalBody, list_invoices, start_billing_portal
from control.api.plans import list_plans
from control.console.frame.sections import sections
from control.http.context import Ctx
from control.portal.pages import Viewing, portal_pages
from control.portal.standing import entitlement_of

router = portal_pages("/billing")

SHOWN: Final = 20


@router.page("", permission=Permission.BILLING_READ, twin="/v1/organizations/{org}/invoices")
async def show(ctx: Ctx, viewer: Viewing, before: Annotated[str | None, Query(max_length=200)] = None) -> Response:
    """The plan, the plans that are sold, and the invoices."""
    found = await sections(
        invoices=list_invoices(viewer.org, ctx, before=before, limit=SHOWN),
        entitlement=entitlement_of(ctx, viewer.org),
        plans=list_plans(ctx),
    )
    return viewer.page("portal/billing.html", found=found, before=before, sells=ctx.billing is not None)


@router.action("/stripe", permission=Permission.BILLING_PORTAL)
async def open_stripe(ctx: Ctx, viewer: Viewing) -> Response:
    """A link to Stripe's page. No redirect: a browser refuses one of a form to another site, as the policy says."""
    made = await start_billing_portal(viewer.org, PortalBody(return_url=f"{ctx.portal_url}/portal/billing"), ctx)
    return viewer.page("portal/stripe.html", url=made.url)

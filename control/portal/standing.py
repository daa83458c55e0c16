"""What an organization may use and will have used; None where it has no entitlement, which is nothing unusual here."""

from starlette.responses import Response

from control.api.entitlement_views import EntitlementView
from control.api.entitlements import get_entitlement
from control.api.forecast import ForecastView, get_forecast
from control.entitlements.changes import EntitlementMissing
from control.http.context import Context


async def entitlement_of(ctx: Context, org: str) -> EntitlementView | None:
    try:
        return await get_entitlement(org, ctx, Response())
    except EntitlementMissing:
        return None


async def forecast_of(ctx: Context, org: str) -> ForecastView | None:
    try:
        return await get_forecast(org, ctx)
    except EntitlementMissing:
        return None

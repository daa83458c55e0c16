"""What the portal opens with: the plan, what is used and left of it, and how long it lasts."""

from starlette.responses import Response

from control.access.permissions import Permission
from control.api.usage import get_usage
from control.console.frame.sections import sections
from control.http.context import Ctx
from control.portal.outlooks import daily_chart, sentence_of
from control.portal.pages import Viewing, portal_pages
from control.portal.standing import entitlement_of, forecast_of

router = portal_pages()


@router.page("", permission=Permission.ENTITLEMENTS_READ, twin="/v1/entitlements/{org}")
async def show(ctx: Ctx, viewer: Viewing) -> Response:
    """The organization as it is now."""
    found = await sections(
        entitlement=entitlement_of(ctx, viewer.org),
        forecast=forecast_of(ctx, viewer.org),
        usage=get_usage(viewer.org, ctx),
    )
    return viewer.page("portal/overview.html", found=found, sentence_of=sentence_of, daily_chart=daily_chart)

"""What the console opens with: where to look first."""

from starlette.responses import Response

from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.http.context import Ctx

router = Pages("/console")


@router.page("", permission=None, twin=None)
async def show(ctx: Ctx, viewer: Viewing) -> Response:
    """The first page."""
    return viewer.page("overview/overview.html")

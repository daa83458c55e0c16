"""An address under /console that has no page. Its router is the last of the console's: it takes what is left."""

from starlette.responses import Response

from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages

router = Pages("/console")


@router.page("/{path:path}", permission=None, twin=None)
async def show(viewer: Viewing) -> Response:
    """Says so."""
    return viewer.page("overview/missing.html", 404)

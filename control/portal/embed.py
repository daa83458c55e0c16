"""The custom element `<quotagate-usage>`, for pages of the vendor."""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from control.portal.route import PortalRoute

router = APIRouter(prefix="/portal", include_in_schema=False, route_class=PortalRoute)

ELEMENT: Final = files("control.portal").joinpath("static/quotagate-usage.js").read_bytes()
HEADERS: Final = {
    # A module of another origin is loaded with CORS only. It holds nothing but its own text.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "public, max-age=3600",
}


@router.get("/quotagate-usage.js")
async def read_element() -> Response:
    """The element's script. Whoever wants it in the own repository copies it: it loads nothing else."""
    return Response(ELEMENT, headers=HEADERS, media_type="text/javascript")

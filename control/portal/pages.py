"""Routes of the portal's pages."""

from typing import Annotated, cast

from fastapi import Depends, Request

from control.console.frame.pages import Pages
from control.portal.route import PortalRoute
from control.portal.viewer import PortalViewer, portal_viewer


def portal_pages(path: str = "") -> Pages:
    return Pages(f"/portal{path}", viewer_of=portal_viewer, route_class=PortalRoute)


async def _viewer(request: Request) -> PortalViewer:
    return cast("PortalViewer", request.state.viewer)


Viewing = Annotated[PortalViewer, Depends(_viewer)]
"""Who looks at the page, as its guard has found."""

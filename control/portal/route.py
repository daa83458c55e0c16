"""Pages of the portal answer with pages of the portal, also when they refuse."""

from fastapi import Request
from starlette.responses import Response

from control.console.frame.page_route import PageRefused, PageRoute
from control.console.frame.rendering import page
from control.portal.viewer import PortalViewer, context_in


class PortalRoute(PageRoute):
    def answer(self, request: Request, refused: PageRefused) -> Response:
        viewer: PortalViewer | None = getattr(request.state, "viewer", None)
        values = {
            "title": refused.title,
            "detail": refused.detail,
            "correlation_id": request.scope["correlation_id"],
        }
        if viewer is None:
            brand = context_in(request).portal.settings.brand
            answer = page("portal/message.html", refused.status, brand=brand, **values)
        else:
            answer = viewer.page("portal/refused.html", refused.status, **values)
        if refused.retry_seconds is not None:
            answer.headers["Retry-After"] = str(refused.retry_seconds)
        return answer

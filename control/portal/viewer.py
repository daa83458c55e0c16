"""Who looks at a page of the portal. The organization is that of the session, never one that the address names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import Response

from control.access.permissions import Permission
from control.access.portal.sessions import Session
from control.access.signin.same_origin import token_of
from control.console.frame.page_route import NotSignedIn
from control.console.frame.viewer import Viewer
from control.http.context import Context
from control.http.signed_in import portal_secret

START: Final = "/portal"
SIGN_IN: Final = "/portal/sign-in"

ENTRIES: Final = (
    ("Overview", "/portal", None),
    ("Usage", "/portal/usage", Permission.USAGE_READ),
    ("Alerts", "/portal/alerts", Permission.ALERTS_READ),
    ("Caps", "/portal/caps", Permission.ENTITLEMENTS_READ),
    ("Plan and invoices", "/portal/billing", Permission.BILLING_READ),
    ("API keys", "/portal/keys", Permission.KEYS_READ),
    ("Sites", "/portal/sites", Permission.SITES_READ),
    ("People", "/portal/people", Permission.MEMBERS_READ),
)
"""Title, path, and the permission that the page needs."""


@dataclass(frozen=True)
class PortalViewer(Viewer):
    session: Session | None = None

    @property
    def org(self) -> str:
        assert self.session is not None  # noqa: S101  `portal_viewer` gives one
        return self.session.row.org

    @property
    def places(self) -> Mapping[str, Any]:
        return {**self.request.path_params, "org": self.org}

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        path = self.request.url.path
        shared = {
            "navigation": [
                (title, href, path == href or (href != "/portal" and path.startswith(f"{href}/")))
                for title, href, permission in ENTRIES
                if permission is None or self.can(permission)
            ],
            "brand": context_in(self.request).portal.settings.brand,
            "session": self.session,
        }
        return super().page(template, status, **(shared | values))


async def portal_viewer(ctx: Context, request: Request) -> PortalViewer:
    """A person of an organization. Raises NotSignedIn."""
    secret = portal_secret(request)
    session = None if secret is None else await ctx.portal.find(secret)
    if secret is None or session is None:
        raise NotSignedIn(SIGN_IN if ctx.portal_provider is None else f"{SIGN_IN}?{_back_to(request)}")
    who = session.row.user_id or session.row.org_name
    return PortalViewer(request, session.caller, who, token_of(secret), session=session)


def _back_to(request: Request) -> str:
    url = request.url
    return urlencode({"return": f"{url.path}?{url.query}" if url.query else url.path})


def context_in(request: Request) -> Context:
    return cast("Context", request.app.state.context)

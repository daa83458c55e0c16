"""Who may look at a page or do what it offers. A page names a permission, as an endpoint does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, cast
from urllib.parse import urlencode

from fastapi import Depends, Request

from control.access.permissions import Permission
from control.access.signin.same_origin import token_of
from control.access.signin.sessions import Session
from control.console.frame.forms import TOKEN
from control.console.frame.page_route import NotSignedIn, PageRefused
from control.console.frame.viewer import Viewer
from control.http.context import Context, Ctx
from control.http.guards import Naming
from control.http.signed_in import TOKEN_FIELD, refuse_foreign_page, refuse_wrong_token, session_secret

SIGN_IN = "/console/sign-in"

ViewerOf = Callable[[Context, Request], Awaitable[Viewer]]
"""Who looks. Raises NotSignedIn, PageRefused."""


async def console_viewer(ctx: Context, request: Request) -> Viewer:
    """A person of the vendor. Raises NotSignedIn, PageRefused."""
    secret = session_secret(request)
    session = None if secret is None else await ctx.signin.sessions.find(secret)
    if secret is None or session is None:
        url = request.url
        asked = f"{url.path}?{url.query}" if url.query else url.path
        raise NotSignedIn(f"{SIGN_IN}?{urlencode({'return': asked})}")
    if not session.roles:
        raise PageRefused(403, "You have no access", f"{name_of(session)} has no role here any more.")
    return Viewer(request, session.caller, name_of(session), token_of(secret))


def name_of(session: Session) -> str:
    return session.row.name or session.row.email or session.row.person


@dataclass(frozen=True, slots=True)
class PageGuard(Naming):
    """Before a page is made. What it finds out is the page's `Viewing`."""

    reach: ClassVar = "vendor"
    permission: Permission | None
    """None: whoever has signed in may look."""
    twin: str | None
    viewer_of: ViewerOf

    async def __call__(self, ctx: Ctx, request: Request) -> None:
        _admit(replace(await self.viewer_of(ctx, request), twin=self.twin), self.permission)


@dataclass(frozen=True, slots=True)
class ActionGuard(Naming):
    """Before something is done: a page of the same session sent the form, and the person may do it."""

    reach: ClassVar = "vendor"
    permission: Permission | None
    viewer_of: ViewerOf

    async def __call__(self, ctx: Ctx, request: Request) -> None:
        refuse_foreign_page(ctx, request)
        viewer = await self.viewer_of(ctx, request)
        given = request.headers.get(TOKEN_FIELD) or (await request.form()).get(TOKEN)
        refuse_wrong_token(viewer.token, given if isinstance(given, str) else None)
        _admit(viewer, self.permission)


def _admit(viewer: Viewer, permission: Permission | None) -> None:
    """Raises PageRefused."""
    viewer.request.state.viewer = viewer
    if permission is not None and not viewer.can(permission):
        detail = f"This needs the permission {permission.value}, which none of your roles has."
        raise PageRefused(403, "You may not do this", detail)


async def _viewer(request: Request) -> Viewer:
    return cast("Viewer", request.state.viewer)


Viewing = Annotated[Viewer, Depends(_viewer)]
"""Who looks at the page, as its guard has found."""

"""How a person comes into the portal, and leaves it."""

from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from control.access.guesses import Guess
from control.access.signin.sessions import Seen
from control.console.frame.page_route import PageRefused
from control.console.frame.rendering import page, redirect
from control.http.context import Ctx
from control.http.secrets import ClientAddress, TakesSecrets
from control.http.signed_in import PORTAL_COOKIE, portal_secret, refuse_foreign_page
from control.portal.pages import Viewing, portal_pages
from control.portal.route import PortalRoute

open_router = APIRouter(prefix="/portal", include_in_schema=False, route_class=PortalRoute)
router = portal_pages()
log = structlog.get_logger()

CODE_CHARACTERS_MAX: Final = 200
Code = Annotated[str, Query(max_length=CODE_CHARACTERS_MAX)]


@open_router.get("/link")
async def look_at_link(code: Code, ctx: Ctx) -> Response:
    """Asks whether to come in. Opening the address uses nothing up: chat programs and scanners open links, too."""
    return page("portal/link.html", code=code, brand=ctx.portal.settings.brand)


@open_router.post("/link", dependencies=[TakesSecrets])
async def use_link(
    ctx: Ctx, request: Request, client: ClientAddress, code: Annotated[str, Form(max_length=CODE_CHARACTERS_MAX)]
) -> Response:
    """Comes in by a one-time link."""
    refuse_foreign_page(ctx, request)
    await ctx.guesses.check(Guess.SIGN_IN, client, code)
    customer = await ctx.portal.use_link(code)
    if customer is None:
        await ctx.guesses.count(Guess.SIGN_IN, client, code)
        log.warning("a one-time link of the portal is not good", client=client)
        raise PageRefused(
            403, "This link is not good any more", "It was used, it has expired, or it never was one. Open another one."
        )
    seen = Seen(client, request.headers.get("user-agent", ""))
    secret = await ctx.portal.begin(customer, seen, portal_secret(request), request.scope["correlation_id"])
    answer = redirect("/portal")
    _keep(answer, secret, None)
    return answer


@open_router.get("/sign-in")
async def sign_in(ctx: Ctx) -> Response:
    """Says where to begin: the vendor's own pages know who a person is."""
    return page("portal/sign-in.html", 401, brand=ctx.portal.settings.brand)


@router.action("/sign-out", permission=None)
async def sign_out(ctx: Ctx, viewer: Viewing) -> Response:
    """Ends the session."""
    if viewer.session is not None:
        await ctx.portal.end(viewer.session.row.id, viewer.author, viewer.org)
    answer = redirect("/portal/signed-out")
    _keep(answer, "", 0)
    return answer


@open_router.get("/signed-out")
async def signed_out(ctx: Ctx) -> Response:
    """The end."""
    return page("portal/signed-out.html", brand=ctx.portal.settings.brand)


def _keep(answer: Response, secret: str, max_age_seconds: int | None) -> None:
    # Lax, since the vendor's page sends the browser here from another site; a form of another site sends none.
    answer.set_cookie(PORTAL_COOKIE, secret, max_age_seconds, path="/", secure=True, httponly=True, samesite="lax")

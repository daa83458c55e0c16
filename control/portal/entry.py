"""How a person comes into the portal, and leaves it."""

from typing import Annotated, Final, Literal

import structlog
from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from control.access.guesses import Guess
from control.access.lifetimes import Seen
from control.access.portal.sessions import Customer
from control.console.frame.page_route import PageRefused
from control.console.frame.rendering import page, redirect
from control.console.signin import cookies
from control.http.context import Context, Ctx
from control.http.secrets import ClientAddress, TakesSecrets
from control.http.signed_in import PORTAL_COOKIE, portal_secret, refuse_foreign_page
from control.portal.pages import Viewing, portal_pages
from control.portal.route import PortalRoute
from control.portal.viewer import START

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
    return await come_in(ctx, request, customer, START)


async def come_in(ctx: Context, request: Request, customer: Customer, to: str) -> Response:
    """Begins a session, which ends the one that the browser had before. `to`: a page of the portal."""
    seen = Seen(request.scope["client_address"], request.headers.get("user-agent", ""))
    secret = await ctx.portal.begin(customer, seen, portal_secret(request), request.scope["correlation_id"])
    answer = redirect(to)
    cookies.keep_session(answer, PORTAL_COOKIE, secret)
    return answer


@router.action("/sign-out", permission=None)
async def sign_out(ctx: Ctx, viewer: Viewing) -> Response:
    """Ends the session."""
    by_provider = viewer.session is not None and viewer.session.by_provider
    if viewer.session is not None:
        await ctx.portal.end(viewer.session.row.id, viewer.author, viewer.org)
    answer = redirect("/portal/signed-out?by=provider" if by_provider else "/portal/signed-out")
    cookies.forget(answer, PORTAL_COOKIE)
    return answer


@open_router.get("/signed-out")
async def signed_out(ctx: Ctx, by: Literal["provider"] | None = None) -> Response:
    """The end; the provider may still know the person, who can sign out there, too."""
    known = ctx.portal_provider
    leave_at = await known.end_session_url(f"{ctx.portal_url}/portal/signed-out") if known and by else None
    return page("portal/signed-out.html", brand=ctx.portal.settings.brand, leave_at=leave_at)

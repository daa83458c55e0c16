"""Who one is, where one is signed in, and the end of that."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Form
from starlette.responses import Response

from control.access.signin.sessions import Session
from control.console.frame.guards import SIGN_IN, Viewing
from control.console.frame.page_route import PageRefused, PageRoute
from control.console.frame.pages import Pages
from control.console.frame.rendering import page, redirect
from control.console.signin import cookies
from control.http.context import Context, Ctx
from control.http.signed_in import SESSION_COOKIE, session_secret

router = Pages("/console")
open_router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)

ACCOUNT = "/console/account"


@router.page("/account", permission=None, twin=None)
async def show(ctx: Ctx, viewer: Viewing) -> Response:
    """Who is signed in."""
    session = await _own(ctx, viewer)
    provider = ctx.signin.providers.get(session.row.provider or "")
    return viewer.page(
        "signin/account.html",
        session=session,
        signed_in_by=provider.settings.title if provider else session.row.provider or "a one-time link",
        roles=sorted(role.value for role in session.roles),
        sessions=await ctx.signin.sessions.live(session.row.person),
    )


@router.action("/sessions/end", permission=None)
async def end_one(ctx: Ctx, viewer: Viewing, session: Annotated[UUID, Form()]) -> Response:
    """Ends a session of the same person."""
    own = await _own(ctx, viewer)
    await ctx.signin.sessions.end(session, viewer.author, of=own.row.person)
    return redirect(ACCOUNT, done="The session has ended.")


@router.action("/sessions/end-others", permission=None)
async def end_others(ctx: Ctx, viewer: Viewing) -> Response:
    """Ends all sessions of the same person but this one."""
    own = await _own(ctx, viewer)
    await ctx.signin.sessions.end_all(own.row.person, viewer.author, spared=own.row.id)
    return redirect(ACCOUNT, done="All your other sessions have ended.")


@router.action("/sign-out", permission=None)
async def sign_out(ctx: Ctx, viewer: Viewing) -> Response:
    """Ends this session."""
    session = await _own(ctx, viewer)
    await ctx.signin.sessions.end(session.row.id, viewer.author)
    provider = session.row.provider
    answer = redirect("/console/signed-out" if provider is None else f"/console/signed-out?provider={provider}")
    cookies.forget(answer, SESSION_COOKIE)
    return answer


@open_router.get("/signed-out")
async def signed_out(ctx: Ctx, provider: str = "") -> Response:
    """The end; the provider may still know the person, who can sign out there, too."""
    actions = [{"href": SIGN_IN, "text": "Sign in again"}]
    known = ctx.signin.providers.get(provider)
    if known is not None:
        url = await known.end_session_url(f"{ctx.signin.settings.public_url}/console/signed-out")
        if url is not None:
            actions.append({"href": url, "text": f"Sign out of {known.settings.title}, too"})
    detail = "Your session has ended. Where others use this browser, sign out of your identity provider, too."
    return page("message.html", title="You are signed out", detail=detail, actions=actions)


async def _own(ctx: Context, viewer: Viewing) -> Session:
    """Raises PageRefused."""
    secret = cast("str", session_secret(viewer.request))  # the guard has found who it is by it
    session = await ctx.signin.sessions.find(secret)
    if session is None:
        raise PageRefused(403, "You are signed out", "The session has ended. Sign in again.")
    return session

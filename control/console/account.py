"""Who one is, where one is signed in, and the end of that."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import Response

from control.access.signin.same_origin import token_of
from control.access.signin.sessions import Session
from control.console import cookies
from control.console.page_route import PageRefused, PageRoute
from control.console.rendering import page, redirect, style
from control.http.context import Context, Ctx
from control.http.signed_in import refuse_foreign_page, refuse_without_token, session_secret
from control.journal import Author

router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)

SIGN_IN = "/console/sign-in"


async def own_form(ctx: Ctx, request: Request, token: Annotated[str | None, Form()] = None) -> str:
    """The session's secret, where one of its own pages sent the form. Raises Refusal."""
    refuse_foreign_page(ctx, request)
    secret = session_secret(request)
    if secret is None:
        raise PageRefused(403, "You are signed out", "Sign in again to do this.")
    refuse_without_token(secret, token)
    return secret


OwnForm = Annotated[str, Depends(own_form)]


@router.get("/static/console.css")
async def read_style() -> Response:
    """The style of all pages."""
    return style()


@router.get("")
async def show(ctx: Ctx, request: Request) -> Response:
    """Who is signed in."""
    secret = session_secret(request)
    session = None if secret is None else await ctx.signin.sessions.find(secret)
    if secret is None or session is None:
        return redirect(SIGN_IN)
    if not session.roles:
        raise PageRefused(403, "You have no access", f"{_who(session)} has no role here any more.")
    provider = ctx.signin.providers.get(session.row.provider or "")
    return page(
        "account.html",
        session=session,
        who=_who(session),
        signed_in_by=provider.settings.title if provider else session.row.provider or "a one-time link",
        roles=sorted(role.value for role in session.roles),
        sessions=await ctx.signin.sessions.live(session.row.person),
        token=token_of(secret),
    )


@router.post("/sessions/end")
async def end_one(ctx: Ctx, request: Request, secret: OwnForm, session: Annotated[UUID, Form()]) -> Response:
    """Ends a session of the same person."""
    own = await _own(ctx, secret)
    await ctx.signin.sessions.end(session, _author(own, request), of=own.row.person)
    return redirect("/console")


@router.post("/sessions/end-others")
async def end_others(ctx: Ctx, request: Request, secret: OwnForm) -> Response:
    """Ends all sessions of the same person but this one."""
    own = await _own(ctx, secret)
    await ctx.signin.sessions.end_all(own.row.person, _author(own, request), spared=own.row.id)
    return redirect("/console")


@router.post("/sign-out")
async def sign_out(ctx: Ctx, request: Request, secret: OwnForm) -> Response:
    """Ends this session."""
    session = await ctx.signin.sessions.find(secret)
    answer = redirect("/console/signed-out")
    if session is not None:
        await ctx.signin.sessions.end(session.row.id, _author(session, request))
        if session.row.provider is not None:
            answer = redirect(f"/console/signed-out?provider={session.row.provider}")
    cookies.forget_session(answer)
    return answer


@router.get("/signed-out")
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


async def _own(ctx: Context, secret: str) -> Session:
    """Raises PageRefused."""
    session = await ctx.signin.sessions.find(secret)
    if session is None:
        raise PageRefused(403, "You are signed out", "The session has ended. Sign in again.")
    return session


def _who(session: Session) -> str:
    return session.row.name or session.row.email or session.row.person


def _author(session: Session, request: Request) -> Author:
    return Author(session.actor, cast("str", request.scope["correlation_id"]))

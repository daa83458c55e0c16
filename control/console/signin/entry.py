"""How a person gets in: the list of providers, the way there and back, and one-time links."""

from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from control.access.guesses import Guess
from control.access.lifetimes import Seen
from control.access.signin.attempt import START, own_path
from control.access.signin.parts import signed_in_by
from control.access.signin.sessions import NoRole, SignedIn
from control.console.frame.page_route import PageRefused, PageRoute
from control.console.frame.rendering import page, redirect
from control.console.signin import cookies, round_trip
from control.console.signin.round_trip import Way
from control.http.context import Context, Ctx
from control.http.secrets import ClientAddress, TakesSecrets
from control.http.signed_in import SESSION_COOKIE, refuse_foreign_page, session_secret

router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)
log = structlog.get_logger()

ReturnTo = Annotated[str | None, Query(alias="return")]
CODE_CHARACTERS_MAX = 200
ATTEMPT_COOKIE = "__Host-quotagate-signin"


@router.get("/sign-in")
async def choose(ctx: Ctx, return_to: ReturnTo = None) -> Response:
    """The ways to sign in."""
    providers = [provider.settings for provider in ctx.signin.providers.values()]
    return page("signin/sign-in.html", providers=providers, return_query=urlencode({"return": own_path(return_to)}))


@router.get("/sign-in/{provider}")
async def leave(provider: str, ctx: Ctx, return_to: ReturnTo = None) -> Response:
    """To the provider, which sends the browser back to `arrive`."""
    return await round_trip.leave(_way(ctx, provider), return_to)


@router.get("/signed-in/{provider}", dependencies=[TakesSecrets])
async def arrive(provider: str, ctx: Ctx, request: Request, client: ClientAddress) -> Response:
    """Back from the provider, with a code or an error."""
    way = _way(ctx, provider)
    try:
        attempt, claims = await round_trip.come_back(ctx, request, client, way)
        answer = await _begin(ctx, request, signed_in_by(claims, way.provider.settings), attempt.return_to)
    except PageRefused as e:
        actions = [_AGAIN]
        if isinstance(e.__cause__, NoRole):  # the provider would let the same person in again
            url = await way.provider.end_session_url(f"{ctx.signin.settings.public_url}/console/signed-out")
            actions += [{"href": url, "text": f"Sign out of {way.title}"}] if url else []
        answer = page("message.html", e.status, title=e.title, detail=e.detail, actions=actions)
    cookies.forget(answer, ATTEMPT_COOKIE)
    return answer


_AGAIN = {"href": "/console/sign-in", "text": "Sign in again"}


@router.get("/link")
async def look_at_link(code: Annotated[str, Query(max_length=CODE_CHARACTERS_MAX)]) -> Response:
    """Asks whether to sign in. Opening the address uses nothing up: chat programs and scanners open links, too."""
    return page("signin/link.html", code=code)


@router.post("/link", dependencies=[TakesSecrets])
async def use_link(
    ctx: Ctx, request: Request, client: ClientAddress, code: Annotated[str, Form(max_length=CODE_CHARACTERS_MAX)]
) -> Response:
    """Signs in by a one-time link."""
    refuse_foreign_page(ctx, request)
    await ctx.guesses.check(Guess.SIGN_IN, client, code)
    signed_in = await ctx.signin.links.use(code)
    if signed_in is None:
        await ctx.guesses.count(Guess.SIGN_IN, client, code)
        log.warning("a one-time link is not good", client=client)
        raise PageRefused(
            403, "This link is not good any more", "It was used, it has expired, or it never was one. Make another one."
        )
    return await _begin(ctx, request, signed_in, "/console")


async def _begin(ctx: Context, request: Request, signed_in: SignedIn, return_to: str) -> Response:
    """Raises PageRefused."""
    seen = Seen(request.scope["client_address"], request.headers.get("user-agent", ""))
    try:
        secret = await ctx.signin.sessions.begin(
            signed_in, seen, session_secret(request), request.scope["correlation_id"]
        )
    except NoRole as e:
        log.warning("sign-in refused", person=str(e), reason="the person has no role")
        who = signed_in.email or signed_in.name or signed_in.person
        detail = f"You have signed in as {who}, who has no role here. Ask an admin of Quotagate for one."
        raise PageRefused(403, "You have no access", detail) from e
    answer = redirect(return_to)
    cookies.keep_session(answer, SESSION_COOKIE, secret)
    return answer


def _way(ctx: Context, name: str) -> Way:
    """Raises PageRefused."""
    provider = ctx.signin.providers.get(name)
    if provider is None:
        raise PageRefused(404, "There is no such page", "No identity provider has this name here.")
    begin_at = f"{ctx.signin.settings.public_url}{START}"
    return Way(provider, name, provider.settings.title, ATTEMPT_COOKIE, begin_at, START)

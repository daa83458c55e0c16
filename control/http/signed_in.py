"""A request that carries a session: who has signed in, and whether a page of ours makes the request."""

from typing import Final

from fastapi import Request

from control.access.callers import Caller, Kind
from control.access.signin.same_origin import SAFE_METHODS, ForeignPage, check_origin, check_token, token_of
from control.http.context import Context
from control.http.refusals import Refusal
from quota import problems

SESSION_COOKIE: Final = "__Host-quotagate"  # by this prefix a browser takes it from this very host only, over TLS
TOKEN_FIELD: Final = "x-csrf-token"  # noqa: S105  # a name


def session_secret(request: Request) -> str | None:
    """None: the browser has no session here."""
    return request.cookies.get(SESSION_COOKIE)


def refuse_foreign_page(ctx: Context, request: Request) -> None:
    """Raises Refusal."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    try:
        check_origin(request.method, site, origin, ctx.signin.settings.public_url)
    except ForeignPage as e:
        raise _refusal(e) from e


def refuse_wrong_token(token: str, given: str | None) -> None:
    """`token`: that of the session's pages. `given`: what the page sent. Raises Refusal."""
    try:
        check_token(token, given)
    except ForeignPage as e:
        raise _refusal(e) from e


async def session_caller(ctx: Context, request: Request, secret: str) -> Caller:
    """Raises Refusal."""
    refuse_foreign_page(ctx, request)
    if request.method not in SAFE_METHODS:
        refuse_wrong_token(token_of(secret), request.headers.get(TOKEN_FIELD))
    session = await ctx.signin.sessions.find(secret)
    if session is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="quotagate"'}
        raise Refusal(problems.TOKEN_REFUSED, "The session has ended. Sign in again.", challenge)
    return Caller(session.actor, None, session.permissions, Kind.SESSION)


def _refusal(e: ForeignPage) -> Refusal:
    return Refusal(problems.FORBIDDEN, str(e), reason="foreign_page")

"""A request that carries a session: who has signed in, and whether a page of ours makes the request.

A browser may have two: one of the console, of a person of the vendor, and one of the portal, of a person of an
organization. What changes something carries the token of its page, which is that of one session. Else the console's
counts, and the portal's where that has ended."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request

from control.access.callers import Caller
from control.access.signin.same_origin import SAFE_METHODS, ForeignPage, check_origin, check_token, token_of
from control.http.context import Context
from control.http.refusals import Refusal
from quota import problems

SESSION_COOKIE: Final = "__Host-quotagate"  # by this prefix a browser takes it from this very host only, over TLS
PORTAL_COOKIE: Final = "__Host-quotagate-portal"
TOKEN_FIELD: Final = "x-csrf-token"  # noqa: S105  # a name


def session_secret(request: Request) -> str | None:
    """Of the console; None: the browser has no session there."""
    return request.cookies.get(SESSION_COOKIE)


def portal_secret(request: Request) -> str | None:
    """The same of the portal."""
    return request.cookies.get(PORTAL_COOKIE)


def carries_session(request: Request) -> bool:
    return session_secret(request) is not None or portal_secret(request) is not None


def refuse_foreign_page(ctx: Context, request: Request) -> None:
    """Raises Refusal."""
    site, source = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    urls = (ctx.signin.settings.public_url, ctx.portal.settings.public_url)
    own = next((url for url in urls if url is not None and url == (source or "").lower()), urls[0])
    try:
        check_origin(request.method, site, source, own)
    except ForeignPage as e:
        raise _refusal(e) from e


def refuse_wrong_token(token: str, given: str | None) -> None:
    """`token`: that of the session's pages. `given`: what the page sent. Raises Refusal."""
    try:
        check_token(token, given)
    except ForeignPage as e:
        raise _refusal(e) from e


async def session_caller(ctx: Context, request: Request) -> Caller:
    """Raises Refusal."""
    refuse_foreign_page(ctx, request)
    for find, secret in _believable(request):
        caller = await find(ctx, secret)
        if caller is not None:
            return caller
    challenge = {"WWW-Authenticate": 'Bearer realm="quotagate"'}
    raise Refusal(problems.TOKEN_REFUSED, "The session has ended. Sign in again.", challenge)


Find = Callable[[Context, str], Awaitable[Caller | None]]


def _believable(request: Request) -> list[tuple[Find, str]]:
    """The sessions that the request may be of. Raises Refusal where it carries the token of none of them."""
    present: list[tuple[Find, str]] = [
        (find, secret)
        for find, secret in ((_of_console, session_secret(request)), (_of_portal, portal_secret(request)))
        if secret is not None
    ]
    if request.method in SAFE_METHODS:
        return present
    given, refused = request.headers.get(TOKEN_FIELD), None
    for each in present:
        try:
            check_token(token_of(each[1]), given)
        except ForeignPage as e:
            refused = e
        else:
            return [each]
    assert refused is not None  # noqa: S101  whoever calls has seen a session
    raise _refusal(refused) from refused


async def _of_console(ctx: Context, secret: str) -> Caller | None:
    session = await ctx.signin.sessions.find(secret)
    return None if session is None else session.caller


async def _of_portal(ctx: Context, secret: str) -> Caller | None:
    session = await ctx.portal.find(secret)
    return None if session is None else session.caller


def _refusal(e: ForeignPage) -> Refusal:
    return Refusal(problems.FORBIDDEN, str(e), reason="foreign_page")

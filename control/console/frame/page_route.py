"""Pages answer with pages, also when they refuse or something is away: a person reads them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl, urlencode

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control.access.guesses import TooManyGuesses
from control.access.signin.same_origin import SAFE_METHODS
from control.console.frame.rendering import page, redirect
from control.console.frame.viewer import Viewer
from control.db import StoreUnavailable, TextUnusable
from control.http.exception_handlers import REFUSALS
from control.http.refusals import Refusal
from control.http.rereading import rereading

log = structlog.get_logger()

PAGE_SECONDS_MAX: Final = (
    12.0  # longer than any part of a page may take; a store that says nothing is waited for no longer
)


class PageRefused(Exception):
    """Ends a request with a page that says why. The person reads title and detail."""

    def __init__(self, status: int, title: str, detail: str, retry_seconds: int | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_seconds = retry_seconds


class NotSignedIn(Exception):
    """The page needs a session, and the browser has none. The message is the address at which one begins."""


class PageRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # a coroutine is one
        handler = rereading(super().get_route_handler())

        async def handle(request: Request) -> Response:
            request.scope["query_string"] = without_empty(request.scope["query_string"])
            try:
                async with asyncio.timeout(PAGE_SECONDS_MAX if request.method in SAFE_METHODS else None):
                    return await handler(request)
            except NotSignedIn as e:
                return self._to_sign_in(request, str(e))
            except Exception as e:
                refused = refused_page(e, request)
                if refused is None:
                    raise
                return self.answer(request, refused)

        return handle

    def answer(self, request: Request, refused: PageRefused) -> Response:
        """The page of a refusal."""
        return _answer(request, refused)

    def _to_sign_in(self, request: Request, address: str) -> Response:
        if request.method not in SAFE_METHODS:
            return self.answer(request, PageRefused(403, "You are signed out", "Sign in again to do this."))
        if request.headers.get("hx-request") == "true":  # a part of a page would become the page of sign-in
            answer = self.answer(request, PageRefused(401, "You are signed out", "Sign in again."))
            answer.headers["HX-Redirect"] = address
            return answer
        return redirect(address)


def without_empty(query: bytes) -> bytes:
    """A form sends its fields that are left empty, too: those are not given. Pure."""
    if b"=&" not in query and not query.endswith(b"="):
        return query
    return urlencode(parse_qsl(query.decode("latin-1"))).encode()


def refused_page(e: Exception, request: Request) -> PageRefused | None:
    """None: a fault of ours."""
    match e:
        case PageRefused():
            return e
        case TooManyGuesses():
            if e.first:
                log.warning("too many wrong tries to sign in: they wait", client=request.scope["client_address"])
            detail = f"Too many tries were wrong. Wait {e.retry_seconds} seconds."
            return PageRefused(429, "Wait a moment", detail, e.retry_seconds)
        case TimeoutError():
            log.warning("a page waited too long", path=request.url.path)
            detail = "What this page is made of does not answer."
            return PageRefused(503, "Try again in a moment", detail, retry_seconds=1)
        case StoreUnavailable():
            log.warning("a page needs Postgres", reason=str(e))
            return PageRefused(503, "Try again in a moment", "The database does not answer.", retry_seconds=1)
        case Refusal() if e.status_code == 404:
            return PageRefused(404, "There is nothing here", str(e.detail))
        case HTTPException():
            return PageRefused(e.status_code, "This is not possible", str(e.detail))
        case RequestValidationError():
            wrong = ", ".join(sorted({str(fault["loc"][-1]) for fault in e.errors()}))
            detail = f"The address or the form is incomplete or wrong: {wrong}."
            return PageRefused(422, "This is not possible", detail)
        case TextUnusable():
            return PageRefused(422, "This is not possible", "A text has a character that cannot be stored.")
    refusal_of = next((REFUSALS[each] for each in type(e).__mro__ if each in REFUSALS), None)
    return None if refusal_of is None else refused_page(refusal_of(e), request)


def _answer(request: Request, refused: PageRefused) -> Response:
    viewer: Viewer | None = getattr(request.state, "viewer", None)
    values = {
        "title": refused.title,
        "detail": refused.detail,
        "actions": [{"href": "/console", "text": "Go to the console"}],
        "correlation_id": request.scope["correlation_id"],
    }
    if viewer is None:
        answer = page("message.html", refused.status, **values)
    else:
        answer = viewer.page("message.html", refused.status, **values)
    if refused.retry_seconds is not None:
        answer.headers["Retry-After"] = str(refused.retry_seconds)
    return answer

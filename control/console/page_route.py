"""Pages answer with pages, also when they refuse or something is away: a person reads them."""

from collections.abc import Awaitable, Callable

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control.access.guesses import TooManyGuesses
from control.console.rendering import page
from control.db import StoreUnavailable, TextUnusable

log = structlog.get_logger()


class PageRefused(Exception):
    """Ends a request with a page that says why. The person reads title and detail."""

    def __init__(self, status: int, title: str, detail: str, retry_seconds: int | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_seconds = retry_seconds


class PageRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # a coroutine is one
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except PageRefused as e:
                refused = e
            except TooManyGuesses as e:
                if e.first:
                    log.warning("too many wrong tries to sign in: they wait", client=request.scope["client_address"])
                detail = f"Too many tries were wrong. Wait {e.retry_seconds} seconds."
                refused = PageRefused(429, "Wait a moment", detail, e.retry_seconds)
            except HTTPException as e:  # refusals of the API's guards, too
                refused = PageRefused(e.status_code, "This is not possible", str(e.detail))
            except (RequestValidationError, TextUnusable):
                refused = PageRefused(422, "This is not possible", "The address or the form is incomplete.")
            except StoreUnavailable as e:
                log.warning("a page needs Postgres", reason=str(e))
                refused = PageRefused(503, "Try again in a moment", "The database does not answer.", retry_seconds=1)
            return _answer(request, refused)

        return handle


def _answer(request: Request, refused: PageRefused) -> Response:
    answer = page(
        "message.html",
        refused.status,
        title=refused.title,
        detail=refused.detail,
        actions=[{"href": "/console", "text": "Go to the console"}],
        correlation_id=request.scope["correlation_id"],
    )
    if refused.retry_seconds is not None:
        answer.headers["Retry-After"] = str(refused.retry_seconds)
    return answer

"""The way to an identity provider and back, of console and portal: what went wrong there becomes a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import Request
from starlette.responses import Response

from control.access.guesses import Guess
from control.access.signin.attempt import Attempt
from control.access.signin.id_token import AuthenticationTooWeak, IdTokenRefused
from control.access.signin.provider import OpenIdProvider, ProviderAway, SignInRefused
from control.console.frame.page_route import PageRefused
from control.console.frame.rendering import redirect
from control.console.signin import cookies
from control.http.context import Context

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Way:
    """To one provider, and back to our pages."""

    provider: OpenIdProvider[Any]
    name: str
    """In attempts and in the log."""
    title: str
    """What people call it."""
    cookie: str
    """That keeps the attempt."""
    begin_at: str
    """Where our pages begin, as browsers reach them."""
    start: str
    """The same without the host."""


async def leave(way: Way, return_to: str | None, organization: str = "") -> Response:
    """Sends the browser to the provider. Raises PageRefused."""
    attempt = Attempt.begin(way.name, return_to, way.start, organization)
    try:
        answer = redirect(await way.provider.authorization_url(attempt))
    except ProviderAway as e:
        raise _away(way, e) from e
    cookies.keep_attempt(answer, way.cookie, attempt)
    return answer


async def come_back(ctx: Context, request: Request, client: str, way: Way) -> tuple[Attempt, Mapping[str, Any]]:
    """What was wanted, and the claims of who signed in. Raises PageRefused, TooManyGuesses."""
    await ctx.guesses.check(Guess.SIGN_IN, client)
    attempt, query = cookies.attempt_of(request, way.cookie, way.start), request.query_params
    if attempt is None or attempt.provider != way.name or not attempt.is_answered_by(query.get("state", "")):
        await ctx.guesses.count(Guess.SIGN_IN, client)
        log.warning("sign-in refused", provider=way.name, reason="the state is not this browser's")
        detail = f"It took too long, or was begun in another browser, in another tab, or not at {way.begin_at}."
        raise PageRefused(400, "This sign-in cannot go on", detail)
    try:
        return attempt, await way.provider.identify(attempt, query)
    except ProviderAway as e:
        raise _away(way, e) from e
    except AuthenticationTooWeak as e:
        log.warning("sign-in refused", provider=way.name, reason=str(e))
        detail = f"{way.title} did not ask for what is required here, such as a second factor."
        raise PageRefused(403, "A stronger sign-in is required", detail) from e
    except (IdTokenRefused, SignInRefused) as e:
        log.warning("sign-in refused", provider=way.name, reason=str(e))
        if isinstance(e, SignInRefused) and e.cancelled:
            detail = f"{way.title} did not let you in, or you cancelled."
        else:
            await ctx.guesses.count(Guess.SIGN_IN, client)
            detail = f"The answer of {way.title} could not be accepted. Begin again at {way.begin_at}."
        raise PageRefused(403, "You are not signed in", detail) from e


def _away(way: Way, e: ProviderAway) -> PageRefused:
    log.error("an OpenID provider cannot be used", provider=way.name, reason=str(e))
    detail = f"{way.title} does not answer as it should. Try again in a moment."
    return PageRefused(503, "Sign-in is not possible now", detail, retry_seconds=5)

"""Who may call an endpoint, as FastAPI dependencies: `Admin`, `Reader` of one organization, or `Subject` of the call.

None of them waits but for an issuer's newer keys; they are coroutines since FastAPI would run a function in a thread,
which takes longer than all of them together.

401: no token that is believed. 503: no key could be read that would verify it. 403: a believed token that does not
reach this far, whether what it asks for exists or not.
"""

import hmac
from typing import Annotated

import structlog
from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPBearer

from control.access.callers import Caller, KeysUnavailable
from control.access.guesses import TooManyGuesses
from control.http.context import Ctx
from control.http.queries import refuse_unknown_queries
from control.http.refusals import Refusal, invalid_field
from control.journal import Author
from control.organizations import store
from identity.bearer import bearer_token
from identity.keysets import RETRY_SECONDS
from identity.refusals import Reason, TokenRefused
from quota import problems
from quota.keys import ORG_PATTERN

log = structlog.get_logger()


class _Bearer(HTTPBearer):
    """The token as the gateway finds it; FastAPI's own reading takes the first of two fields."""

    async def __call__(self, request: Request) -> bytes:  # type: ignore[override]  # FastAPI asks for its result only
        fields = [value for name, value in request.scope["headers"] if name == b"authorization"]
        try:
            if len(fields) > 1:
                raise TokenRefused(Reason.INVALID_REQUEST)
            return bearer_token(fields[0] if fields else None)
        except TokenRefused as e:
            raise refusal_of(e) from e


def refusal_of(refused: TokenRefused) -> Refusal:
    challenge = {"WWW-Authenticate": refused.challenge.decode()}
    return Refusal(problems.TOKEN_REFUSED, refused.detail, challenge, reason=refused.reason)


bearer = _Bearer(auto_error=False, description="The admin token; or an organization's token, which reads its own data.")

Org = Annotated[str, Path(pattern=ORG_PATTERN, description="The organization's id, as in its tokens.")]


async def identify_caller(ctx: Ctx, token: Annotated[bytes, Depends(bearer)], request: Request) -> Caller:
    client = request.scope["client_address"]
    try:
        identified = await ctx.callers.identify(token, client)
    except TokenRefused as e:
        raise refusal_of(e) from e
    except KeysUnavailable as e:
        # Whoever is told 401 throws a good token away.
        detail = "The keys that verify tokens could not be read. Try again."
        raise Refusal(problems.KEYS_UNAVAILABLE, detail, {"Retry-After": str(RETRY_SECONDS)}) from e
    except TooManyGuesses as e:
        if e.first:
            log.warning("too many wrong tokens of one address: it waits", client=client)
        detail = "Too many wrong tokens came from this address."
        raise Refusal(problems.RATE_LIMITED, detail, {"Retry-After": str(e.retry_seconds)}) from e
    refuse_unknown_queries(request)  # here, since strangers are told nothing else than that they are
    return identified


async def admin(caller: Annotated[Caller, Depends(identify_caller)]) -> Caller:
    if caller.org is not None:
        raise Refusal(problems.FORBIDDEN, "Only an admin may do this.")
    return caller


async def reader(org: Org, caller: Annotated[Caller, Depends(identify_caller)]) -> Caller:
    if caller.org not in (None, org):
        raise Refusal(problems.FORBIDDEN, "The token belongs to another organization.")
    return caller


async def require_known_organization(org: Org, ctx: Ctx, caller: Annotated[Caller, Depends(reader)]) -> None:
    await store.find(ctx.db, org)


async def subject(
    caller: Annotated[Caller, Depends(identify_caller)],
    org: Annotated[
        str | None,
        Query(
            pattern=ORG_PATTERN,
            description="The organization; required with the admin token. An organization's token names its own.",
        ),
    ] = None,
) -> str:
    if caller.org is not None:
        await reader(org or caller.org, caller)
        return caller.org
    if org is None:
        raise invalid_field("query.org", "is required with the admin token, which belongs to no organization")
    return org


async def author(request: Request, caller: Annotated[Caller, Depends(admin)]) -> Author:
    return Author(caller.actor, request.scope["correlation_id"])


async def documented(request: Request, ctx: Ctx) -> None:
    if not ctx.expose.docs:
        await admin(await identify_caller(ctx, await bearer(request), request))


async def scraper(request: Request, ctx: Ctx) -> None:
    if ctx.expose.metrics:
        return
    token = await bearer(request)
    metrics_token = ctx.expose.metrics_token.get_secret_value().encode()
    if not metrics_token or not hmac.compare_digest(token, metrics_token):
        await admin(await identify_caller(ctx, token, request))


Anyone = Depends(identify_caller)
"""Any believed token."""
Admin = Depends(admin)
Reader = Depends(reader)
Known = Depends(require_known_organization)
"""404 for an unknown organization, before anything else of the request is checked. It goes behind `Reader` or `Admin`:
a caller without rights must not learn which organizations exist."""
Subject = Annotated[str, Depends(subject)]
"""The organization that the call is about: the token's own, or the one that an admin names."""
Documented = Depends(documented)
"""Whoever may read what the API is: everybody or an admin, by the settings."""
Scraper = Depends(scraper)
"""The same for metrics; they may have a token of their own."""
AdminAuthor = Annotated[Author, Depends(author)]
"""An admin, as the journal's author."""

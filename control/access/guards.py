"""Who may call an endpoint, as FastAPI dependencies: `Admin`, `Reader` of one organization, or `Subject` of the call.

None of them waits; they are coroutines since FastAPI would run a function in a thread, which takes longer than all of
them together.

401: no token that is believed. 403: a believed token that does not reach this far, whether what it asks for exists or
not.
"""

from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from control.access.callers import Caller
from control.access.tokens import TokenRefused
from control.context import Ctx
from control.http.refusals import Refusal
from control.journal import Author
from quota import problems
from quota.keys import ORG_PATTERN

bearer = HTTPBearer(auto_error=False, description="The admin token, or (to read its own) an organization's token.")

Org = Annotated[str, Path(pattern=ORG_PATTERN, description="The organization's id, as in its tokens.")]


async def caller(ctx: Ctx, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Caller:
    if credentials is None:
        # RFC 6750 section 3.1: no error for a request that tried no token
        challenge = {"WWW-Authenticate": 'Bearer realm="quotagate"'}
        raise Refusal(problems.TOKEN_REFUSED, "A bearer token is required.", challenge)
    try:
        return ctx.callers.identify(credentials.credentials)
    except TokenRefused as e:
        challenge = {"WWW-Authenticate": f'Bearer realm="quotagate", error="invalid_token", error_description="{e}"'}
        raise Refusal(problems.TOKEN_REFUSED, f"{str(e).capitalize()}.", challenge) from e


async def admin(found: Annotated[Caller, Depends(caller)]) -> Caller:
    if found.org is not None:
        raise Refusal(problems.FORBIDDEN, "Only an admin may do this.")
    return found


async def reader(org: Org, found: Annotated[Caller, Depends(caller)]) -> Caller:
    if found.org not in (None, org):
        raise Refusal(problems.FORBIDDEN, "The token is of another organization.")
    return found


async def subject(
    found: Annotated[Caller, Depends(caller)],
    org: Annotated[
        str | None,
        Query(pattern=ORG_PATTERN, description="The organization, for admins. An organization's token names its own."),
    ] = None,
) -> str:
    if found.org is not None:
        await reader(org or found.org, found)
        return found.org
    if org is None:
        message = "the admin token speaks for no organization: name one"
        raise Refusal(problems.INVALID, f"query.org: {message}", errors=[{"field": "query.org", "message": message}])
    return org


async def author(request: Request, found: Annotated[Caller, Depends(admin)]) -> Author:
    return Author(found.actor, request.scope["correlation_id"])


Anyone = Depends(caller)
"""Any believed token."""
Admin = Depends(admin)
Reader = Depends(reader)
Subject = Annotated[str, Depends(subject)]
"""The organization that the call is about: the token's own, or the one that an admin names."""
AdminAuthor = Annotated[Author, Depends(author)]
"""An admin, as the journal's author."""

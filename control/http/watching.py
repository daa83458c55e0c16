"""Answers that go on for long: whether their caller may still have them, whatever was revoked since it asked."""

from collections.abc import Awaitable, Callable
from hashlib import sha256

from fastapi import Request

from control.access.callers import KeysUnavailable
from control.access.guesses import TooManyGuesses
from control.access.permissions import Permission
from control.db import StoreUnavailable
from control.http.context import Context
from control.http.guards import bearer
from control.http.signed_in import session_secret
from identity.refusals import TokenRefused


async def right_of(
    ctx: Context, request: Request, permission: Permission
) -> tuple[bytes, Callable[[], Awaitable[bool]]]:
    """For a caller that had the permission a moment ago: a digest of its session's secret or of its token, and whether
    it still has the permission. Looking is no use of the session: a page that is left open does not keep it alive.

    What is returned raises StoreUnavailable where nobody can tell."""
    token, secret = await bearer(request), session_secret(request) or ""
    client: str = request.scope["client_address"]

    async def session_may() -> bool:
        session = await ctx.signin.sessions.find(secret, is_use=False)
        return session is not None and permission in session.permissions

    async def token_may() -> bool:
        try:
            caller = await ctx.callers.identify(token or b"", client)
        except KeysUnavailable as e:
            raise StoreUnavailable("the keys that verify tokens") from e
        except (TokenRefused, TooManyGuesses):
            return False
        return caller.org is None and permission in caller.permissions

    return sha256(secret.encode() if token is None else token).digest(), session_may if token is None else token_may

"""A bearer token -> who calls."""

import hmac
from dataclasses import dataclass

from control.access.tokens import OrganizationTokens
from quota.identity.refusals import Reason, TokenRefused

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    actor: str
    """Who, as the journal names it."""
    org: str | None
    """The organization that the token speaks for; None: an admin, who speaks for all."""


class Callers:
    def __init__(self, admin_token: str, organizations: OrganizationTokens | None) -> None:
        self._admin_token = admin_token.encode()
        self._organizations = organizations

    async def identify(self, token: bytes) -> Caller:
        """Raises TokenRefused."""
        # In constant time: a comparison that ends at the first difference tells the token a character at a time.
        if hmac.compare_digest(token, self._admin_token):
            return Caller(ADMIN, None)
        if self._organizations is None:
            raise TokenRefused(Reason.UNKNOWN_KEY)
        org = (await self._organizations.claims(token)).org
        return Caller(f"org:{org}", org)

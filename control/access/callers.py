"""A bearer token -> who calls."""

import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from control.access.guesses import Guesses
from control.access.organization_tokens import OrganizationTokens
from control.access.permissions import ALL, TOKEN_PERMISSIONS, Permissions
from identity.refusals import Reason, TokenRefused

ADMIN = "admin"
_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class KeysUnavailable(Exception):
    """None of the keys that organizations' tokens are verified with could be read: the token may be good."""


class Kind(Enum):
    """By what a caller proves who it is."""

    SERVICE_TOKEN = "service_token"  # noqa: S105  # a name
    ORGANIZATION_TOKEN = "organization_token"  # noqa: S105  # a name


@dataclass(frozen=True, slots=True)
class Caller:
    actor: str
    """The caller's name in the journal."""
    org: str | None
    """The organization that the caller speaks for; None: all of them."""
    permissions: Permissions
    kind: Kind


class Callers:
    def __init__(
        self,
        admin_token: str,
        organizations: OrganizationTokens | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admin_token = admin_token.encode()
        self._organizations = organizations
        self._clock = clock
        self._guesses = Guesses()
        # An organization's token can be no guess, unless the admin token has its form.
        self._all_are_guesses = _COMPACT.fullmatch(self._admin_token) is not None

    async def identify(self, token: bytes, client: str) -> Caller:
        """`client` is the address that guesses are counted by.

        Raises TokenRefused, TooManyGuesses, KeysUnavailable."""
        guess = self._all_are_guesses or _COMPACT.fullmatch(token) is None
        if guess:
            self._guesses.check(client, self._clock())
        # In constant time: a comparison that ends at the first difference tells the token a character at a time.
        if hmac.compare_digest(token, self._admin_token):
            return Caller(ADMIN, None, ALL, Kind.SERVICE_TOKEN)
        try:
            if self._organizations is None:
                raise TokenRefused(Reason.UNKNOWN_KEY)
            org = (await self._organizations.claims(token)).org
        except TokenRefused as e:
            if guess:
                self._guesses.count(client, self._clock())
            if e.reason is Reason.UNKNOWN_KEY and self._organizations is not None and not self._organizations.usable:
                raise KeysUnavailable from e
            raise
        return Caller(f"org:{org}", org, TOKEN_PERMISSIONS, Kind.ORGANIZATION_TOKEN)

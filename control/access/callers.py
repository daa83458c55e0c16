"""A bearer token -> who calls."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from control.access.guesses import Guess, Guesses
from control.access.organization_tokens import OrganizationTokens
from control.access.people.service_tokens import ServiceTokens
from control.access.permissions import TOKEN_PERMISSIONS, Permissions
from identity.refusals import Reason, TokenRefused

_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class KeysUnavailable(Exception):
    """None of the keys that organizations' tokens are verified with could be read: the token may be good."""


class Kind(Enum):
    """By what a caller proves who it is."""

    SESSION = "session"
    """A person of the vendor, who has signed in to the console."""
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
        service_tokens: ServiceTokens,
        organizations: OrganizationTokens | None,
        guesses: Guesses,
    ) -> None:
        self._service_tokens = service_tokens
        self._organizations = organizations
        self._guesses = guesses
        # An organization's token can be no guess, unless the admin token of the settings has its form.
        self._all_are_guesses = _COMPACT.fullmatch(service_tokens.bootstrap) is not None

    async def identify(self, token: bytes, client: str) -> Caller:
        """`client` is the address that guesses are counted by.

        Raises TokenRefused, TooManyGuesses, KeysUnavailable, StoreUnavailable."""
        guess = self._all_are_guesses or _COMPACT.fullmatch(token) is None
        if guess:
            await self._guesses.check(Guess.BEARER, client)
        service = await self._service_tokens.find(token)
        if service is not None:
            return Caller(service.actor, service.org, service.permissions, Kind.SERVICE_TOKEN)
        try:
            if self._organizations is None:
                raise TokenRefused(Reason.UNKNOWN_KEY)
            org = (await self._organizations.claims(token)).org
        except TokenRefused as e:
            if guess:
                await self._guesses.count(Guess.BEARER, client)
            if e.reason is Reason.NO_KEYS:
                raise KeysUnavailable from e
            raise
        return Caller(f"org:{org}", org, TOKEN_PERMISSIONS, Kind.ORGANIZATION_TOKEN)

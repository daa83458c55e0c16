"""A bearer token -> who calls."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from control.access.guesses import Guess, Guesses
from control.access.makers import Maker
from control.access.organization_tokens import OrganizationTokens
from control.access.people.members import role_claimed
from control.access.people.service_tokens import ServiceTokens, is_service_token
from control.access.permissions import (
    ORGANIZATION_PERMISSIONS,
    TOKEN_PERMISSIONS,
    WITH_ANY_ROLE,
    OrganizationRole,
    Permission,
    Permissions,
)
from control.access.standing import Standings
from identity.claims import NONE, Claims
from identity.refusals import ApiKeyPresented, Reason, TokenRefused
from quota.access import encoded_user

_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


RoleOf = Callable[[str, str], Awaitable[OrganizationRole | None]]
"""The role of a user in an organization; None: it is not known here. Raises StoreUnavailable."""


class KeysUnavailable(Exception):
    """None of the keys that organizations' tokens are verified with could be read: the token may be good."""


class Kind(Enum):
    """By what a caller proves who it is."""

    SESSION = "session"
    """A person of the vendor, who has signed in to the console."""
    PORTAL_SESSION = "portal_session"
    """A person of an organization, who has come in to its portal."""
    SERVICE_TOKEN = "service_token"  # noqa: S105  # a name
    ORGANIZATION_TOKEN = "organization_token"  # noqa: S105  # a name
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class Caller:
    actor: str
    """The caller's name in the journal."""
    org: str | None
    """The organization that the caller speaks for; None: all of them."""
    permissions: Permissions
    """Of an organization's token: by what it says. The user's role in the organization, where it is known here, counts
    instead (`Callers.with_role`)."""
    kind: Kind
    user: str | None = None
    """The user that an organization's token names."""
    issuer: str | None = None
    """Of an organization's token: who issued it."""
    roles: frozenset[str] = NONE
    scopes: frozenset[str] = NONE
    """What it says: an organization can pass on no more than that to other tokens."""
    maker: Maker | None = field(default=None, compare=False)
    """As whom the caller makes one-time links; None: it makes none."""


class Callers:
    def __init__(
        self,
        service_tokens: ServiceTokens,
        organizations: OrganizationTokens | None,
        guesses: Guesses,
        role_of: RoleOf,
        standings: Standings,
    ) -> None:
        self._service_tokens = service_tokens
        self._organizations = organizations
        self._guesses = guesses
        self._role_of = role_of
        self._standings = standings
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
            maker = Maker(token=service.id)
            return Caller(service.actor, service.org, service.permissions, Kind.SERVICE_TOKEN, maker=maker)
        try:
            if is_service_token(token):
                raise TokenRefused(Reason.SERVICE_TOKEN_UNKNOWN)
            if self._organizations is None:
                raise TokenRefused(Reason.UNKNOWN_KEY)
            return await self._of_organization(self._organizations, token, client)
        except TokenRefused as e:
            if guess and not e.forbidden:
                await self._guesses.count(Guess.BEARER, client)
            if e.reason is Reason.NO_KEYS:
                raise KeysUnavailable from e
            raise

    async def _of_organization(self, organizations: OrganizationTokens, token: bytes, client: str) -> Caller:
        """Raises TokenRefused, StoreUnavailable."""
        try:
            claims = await organizations.claims(token)
        except ApiKeyPresented as e:
            key = await self._standings.key(e.digest16, client)
            return Caller(f"key:{key.key_id}", key.org, WITH_ANY_ROLE, Kind.API_KEY)
        await self._standings.check(claims)
        return _of_token(claims)

    async def with_role(self, caller: Caller, permission: Permission | None = None) -> Caller:
        """The caller with the role that the user has in the organization, where a token may say an old one.

        `permission`: what it is about; the role is not looked up for what everybody has. Raises StoreUnavailable."""
        if caller.kind is not Kind.ORGANIZATION_TOKEN or caller.user is None or caller.org is None:
            return caller
        if permission in WITH_ANY_ROLE:
            return caller
        role = await self._role_of(caller.org, caller.user)
        return caller if role is None else replace(caller, permissions=ORGANIZATION_PERMISSIONS[role])


def _of_token(claims: Claims) -> Caller:
    if claims.site is not None:  # it is on a customer's server, for one purpose
        return Caller(f"org:{claims.org}", claims.org, WITH_ANY_ROLE, Kind.ORGANIZATION_TOKEN)
    role = role_claimed(claims.roles)
    permissions = TOKEN_PERMISSIONS if role is None else ORGANIZATION_PERMISSIONS[role]
    user = None if claims.user is None else encoded_user(claims.user)
    actor = f"org:{claims.org}" if user is None else f"org:{claims.org}/u:{user}"
    return Caller(
        actor,
        claims.org,
        permissions,
        Kind.ORGANIZATION_TOKEN,
        claims.user,
        claims.issuer,
        claims.roles,
        claims.scopes,
    )

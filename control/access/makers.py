"""Who made a one-time link, and what that person or machine may do now.

What a link has opened ends when its maker could not make it any more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar
from uuid import UUID

from control import sql
from control.access.people import admin_roles
from control.access.people.service_tokens import permissions_of
from control.access.permissions import ADMIN_PERMISSIONS, AdminRole, Permissions
from control.db import Connection

Stored = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Maker:
    """A service token or a person. Who came in by a link makes links as who made that one, so none outlives a role."""

    token: UUID | None = None
    person: str | None = None
    """provider:subject"""
    provider: str | None = None
    email: str | None = None
    """As the provider has verified it."""
    roles: frozenset[AdminRole] = frozenset()
    """That the provider's claim gave, when the person signed in."""

    def stored(self) -> dict[str, Any]:
        if self.token is not None:
            return {"token": str(self.token)}
        roles = sorted(role.value for role in self.roles)
        return {"person": self.person, "provider": self.provider, "email": self.email, "roles": roles}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        if "token" in stored:
            return cls(token=UUID(stored["token"]))
        roles = frozenset(map(AdminRole, stored["roles"]))
        return cls(person=stored["person"], provider=stored["provider"], email=stored["email"], roles=roles)


class Made(Protocol):
    """A session, or a link."""

    @property
    def maker(self) -> dict[str, Any] | None: ...


R = TypeVar("R", bound=Made)


class Makers:
    def __init__(self, with_assignments: frozenset[str]) -> None:
        """`with_assignments`: providers of whose people a role that an admin gave here counts."""
        self._with_assignments = with_assignments

    async def may(self, connection: Connection, stored: Stored, wanted: Permissions) -> bool:
        """Whether the maker of a link has these permissions now. `stored`: None for a link of an earlier release."""
        return stored is None or wanted <= await self._permissions(connection, Maker.read(stored))

    async def backed(
        self, connection: Connection, rows: Sequence[R], needed_for: Callable[[R], Permissions]
    ) -> list[R]:
        """The sessions of which that is so. Most are of the same few makers, so each is looked up once."""
        known: dict[tuple[str, Permissions], bool] = {}
        for row in rows:
            key = repr(row.maker), needed_for(row)
            if key not in known:
                known[key] = await self.may(connection, row.maker, key[1])
        return [row for row in rows if known[repr(row.maker), needed_for(row)]]

    async def assigned(
        self, connection: Connection, person: str, provider: str | None, email: str | None
    ) -> frozenset[AdminRole]:
        """The role that an admin gave the person here."""
        if provider not in self._with_assignments:
            return frozenset()
        role = await admin_roles.role_of(connection, person, email)
        return frozenset() if role is None else frozenset({role})

    async def _permissions(self, connection: Connection, maker: Maker) -> Permissions:
        if maker.token is not None:
            token = await sql.service_tokens.find(connection, id=maker.token)
            if token is None or token.revoked_at is not None:
                return frozenset()
            return permissions_of(token.org, token.role, token.permissions)
        if maker.person is None:
            return frozenset()
        # What the provider said when the person signed in the last time: it may have withdrawn a role since the link.
        newest = await sql.sessions.newest_roles(connection, person=maker.person)
        claimed = maker.roles if newest is None else frozenset(map(AdminRole, newest))
        roles = claimed | await self.assigned(connection, maker.person, maker.provider, maker.email)
        return frozenset(permission for role in roles for permission in ADMIN_PERMISSIONS[role])

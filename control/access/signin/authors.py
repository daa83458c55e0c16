"""What somebody may do now who asked for something earlier, by the name that the journal has.

A person may do what the roles of the last sign-in allow, and those that were assigned since; after a sign-out, or when
somebody else has ended the sessions, nothing. Idleness takes no right away. Who came by a one-time link may do no more
than who made the link.
"""

from typing import Final

from common.clock import Clock
from control import sql
from control.access.makers import Makers
from control.access.people.service_tokens import BOOTSTRAP, BOOTSTRAP_ACTOR, permissions_of
from control.access.permissions import ADMIN_PERMISSIONS, AdminRole, Permissions
from control.db import Connection, Database
from control.moments import moment

PERSON: Final = "person:"
LINK: Final = "link:"
SERVICE: Final = "service:"
STEPS_MAX: Final = 20
NOTHING: Final[Permissions] = frozenset()


class Authors:
    def __init__(self, db: Database, makers: Makers, clock: Clock) -> None:
        self._db = db
        self._makers = makers
        self._clock = clock

    async def permissions_of(self, actor: str) -> Permissions:
        """Raises StoreUnavailable."""
        held = frozenset(permission for role in AdminRole for permission in ADMIN_PERMISSIONS[role])
        async with self._db.connection() as connection:
            for _ in range(STEPS_MAX):
                if not actor.startswith(PERSON):
                    return held & await self._of_token(connection, actor)
                person = actor.removeprefix(PERSON)
                held &= await self._of_person(connection, person)
                if not person.startswith(LINK):
                    return held
                actor = person.removeprefix(LINK)
        return NOTHING

    async def _of_person(self, connection: Connection, person: str) -> Permissions:
        row = await sql.sessions.newest(connection, person=person)
        if row is None:
            return NOTHING
        roles = frozenset(map(AdminRole, row.roles))
        roles |= await self._makers.assigned(connection, row.person, row.provider, row.email)
        return frozenset(permission for role in roles for permission in ADMIN_PERMISSIONS[role])

    async def _of_token(self, connection: Connection, actor: str) -> Permissions:
        name = BOOTSTRAP if actor == BOOTSTRAP_ACTOR else actor.removeprefix(SERVICE)
        row = await sql.service_tokens.named(connection, name=name, at=moment(self._clock()))
        return NOTHING if row is None else permissions_of(None, row.role, row.permissions)

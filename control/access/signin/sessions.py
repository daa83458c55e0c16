"""Sessions in PostgreSQL. One is looked up with every request, so what ends it ends it in all processes at once."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from common.clock import Clock
from control import journal, sql
from control.access.people import admin_roles
from control.access.permissions import ADMIN_PERMISSIONS, AdminRole, Permissions
from control.db import Connection, Database
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from control.signin_settings import SignIn
from control.sql.sessions import Session as Row

SECRET_BYTES: Final = 32
BROWSER_CHARACTERS_MAX: Final = 300
TOUCH_SECONDS: Final = 60.0  # of idleness nobody needs to know more exactly, and each use would be a write
KEPT_DAYS: Final = 30  # after its end
LISTED_MAX: Final = 500


class NoRole(Exception):
    """The person has no admin role, neither by a claim nor by an assignment."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who has just signed in, and how."""

    person: str
    provider: str | None
    """None: a one-time link."""
    email: str | None
    """As the provider has verified it."""
    name: str | None
    roles: frozenset[AdminRole]
    """Given by the provider's claim or by the link."""


@dataclass(frozen=True, slots=True)
class Seen:
    """From where a person signed in, for people who look at the list."""

    address: str
    browser: str


@dataclass(frozen=True, slots=True)
class Session:
    row: Row
    roles: frozenset[AdminRole]

    @property
    def actor(self) -> str:
        """In the journal."""
        return actor_of(self.row.person, self.row.email)

    @property
    def permissions(self) -> Permissions:
        return frozenset(permission for role in self.roles for permission in ADMIN_PERMISSIONS[role])


def actor_of(person: str, email: str | None) -> str:
    return f"person:{email or person}"


class Sessions:
    def __init__(self, db: Database, settings: SignIn, clock: Clock) -> None:
        self._db = db
        self._idle = timedelta(minutes=settings.idle_minutes)
        self._lasts = timedelta(hours=settings.session_hours)
        self._touch = min(timedelta(seconds=TOUCH_SECONDS), self._idle / 2)
        self._clock = clock
        self._with_assignments = frozenset(each.name for each in settings.providers if each.assignments)

    async def begin(self, signed_in: SignedIn, seen: Seen, replaced: str | None, correlation_id: str) -> str:
        """The new session's secret; the one that the browser had before has ended. Raises NoRole."""
        secret, session, at = secrets.token_urlsafe(SECRET_BYTES), uuid7(), moment(self._clock())
        author = Author(actor_of(signed_in.person, signed_in.email), correlation_id)
        async with self._db.transaction() as connection:
            roles = signed_in.roles | await self._assigned_to(connection, signed_in)
            if not roles:
                raise NoRole(author.actor)
            if replaced is not None:
                await sql.sessions.end_by_digest(connection, digest=digest_of(replaced), now=at)
            await sql.sessions.forget(connection, before=at - timedelta(days=KEPT_DAYS))
            await sql.sessions.insert(
                connection,
                id=session,
                digest=digest_of(secret),
                person=signed_in.person,
                provider=signed_in.provider,
                email=signed_in.email,
                name=signed_in.name,
                roles=sorted(role.value for role in signed_in.roles),
                address=seen.address,
                browser=seen.browser[:BROWSER_CHARACTERS_MAX].replace("\x00", ""),
                at=at,
                expires_at=at + self._lasts,
            )
            after = {
                "session": str(session),
                "person": signed_in.person,
                "roles": sorted(role.value for role in roles),
                "address": seen.address,
            }
            await journal.record(connection, author, at.timestamp(), [Change("session.began", None, None, after)])
        return secret

    async def find(self, secret: str, *, is_use: bool = True) -> Session | None:
        """None where it has ended. Its roles are those that the person has now. `is_use`: it puts off the session's end
        by idleness."""
        now = moment(self._clock())
        async with self._db.connection() as connection:
            row = await sql.sessions.find(connection, digest=digest_of(secret), now=now, idle_since=now - self._idle)
            if row is None:
                return None
            if is_use and now - row.used_at > self._touch:
                await sql.sessions.touch(connection, id=row.id, now=now)
            assigned = await self._assigned_to(connection, row)
        return Session(row, frozenset(map(AdminRole, row.roles)) | assigned)

    async def live(self, person: str | None = None) -> Sequence[Row]:
        """Those that were used last first, at most LISTED_MAX. `person`: an identity or an e-mail address."""
        now = moment(self._clock())
        async with self._db.connection() as connection:
            return await sql.sessions.live(
                connection, person=person, now=now, idle_since=now - self._idle, limit_rows=LISTED_MAX
            )

    async def end(self, session: UUID, author: Author, of: str | None = None) -> bool:
        """Whether there was one to end. `of`: only where it is this person's."""
        now = self._clock()
        async with self._db.transaction() as connection:
            person = await sql.sessions.end(connection, id=session, person=of, now=moment(now))
            if person is None:
                return False
            await journal.record(connection, author, now, [_ended(session, person)])
        return True

    async def end_all(self, person: str, author: Author, spared: UUID | None = None) -> int:
        """How many there were. `person`: an identity or an e-mail address; `spared`: goes on."""
        now = self._clock()
        async with self._db.transaction() as connection:
            ended = await sql.sessions.end_all(connection, person=person, spared=spared, now=moment(now))
            await journal.record(connection, author, now, [_ended(each, person) for each in ended])
        return len(ended)

    async def _assigned_to(self, connection: Connection, whom: SignedIn | Row) -> frozenset[AdminRole]:
        """The role that an admin gave the person here."""
        if whom.provider not in self._with_assignments:
            return frozenset()
        role = await admin_roles.role_of(connection, whom.person, whom.email)
        return frozenset() if role is None else frozenset({role})


def digest_of(secret: str) -> bytes:
    """What is stored. The secret is random, so a plain hash is enough."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _ended(session: UUID, person: str) -> Change:
    return Change("session.ended", None, {"session": str(session), "person": person}, None)

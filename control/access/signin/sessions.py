"""Sessions in PostgreSQL. One is looked up with every request, so what ends it ends it in all processes at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from common.clock import Clock
from control import journal, sql
from control.access.callers import Caller, Kind
from control.access.lifetimes import KEPT, LISTED_MAX, Lifetimes, Seen, digest_of, new_secret
from control.access.makers import Maker, Makers, Stored
from control.access.permissions import ADMIN_PERMISSIONS, AdminRole, Permission, Permissions
from control.db import Connection, Database
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from control.settings.signin import SignIn
from control.sql.sessions import Session as Row


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
    maker: Stored = None
    """Of the link."""


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

    @property
    def caller(self) -> Caller:
        """As the control API knows this person."""
        row = self.row
        if row.maker is not None:
            maker = Maker.read(row.maker)
        else:
            roles = frozenset(map(AdminRole, row.roles))
            maker = Maker(person=row.person, provider=row.provider, email=row.email, roles=roles)
        return Caller(self.actor, None, self.permissions, Kind.SESSION, maker=maker)


def needed_for(roles: Iterable[str]) -> Permissions:
    """What somebody must have who makes a link with these roles."""
    given = (ADMIN_PERMISSIONS[AdminRole(role)] for role in roles)
    return frozenset({Permission.ACCESS_ADMIN}).union(*given)


def actor_of(person: str, email: str | None) -> str:
    return f"person:{email or person}"


class Sessions:
    def __init__(self, db: Database, settings: SignIn, makers: Makers, clock: Clock) -> None:
        self._db = db
        self._lifetimes = Lifetimes.of(settings.idle_minutes, settings.session_hours)
        self._makers = makers
        self._clock = clock

    async def begin(self, signed_in: SignedIn, seen: Seen, replaced: str | None, correlation_id: str) -> str:
        """The new session's secret; the one that the browser had before has ended. Raises NoRole."""
        secret, session, at = new_secret(), uuid7(), moment(self._clock())
        author = Author(actor_of(signed_in.person, signed_in.email), correlation_id)
        async with self._db.transaction() as connection:
            roles = signed_in.roles | await self._assigned_to(connection, signed_in)
            if roles:
                if replaced is not None:
                    await sql.sessions.end_by_digest(connection, digest=digest_of(replaced), now=at)
                await self._insert(connection, signed_in, seen, session, secret, at)
                after = {
                    "session": str(session),
                    "person": signed_in.person,
                    "roles": sorted(role.value for role in roles),
                    "address": seen.address,
                }
                await journal.record(connection, author, at.timestamp(), [Change("session.began", None, None, after)])
            else:  # nor do sessions have one that began when the provider still gave one
                await sql.sessions.withdraw_roles(connection, person=signed_in.person)
        if not roles:
            raise NoRole(author.actor)
        return secret

    async def _insert(
        self, connection: Connection, signed_in: SignedIn, seen: Seen, session: UUID, secret: str, at: datetime
    ) -> None:
        await sql.sessions.forget(connection, before=at - KEPT)
        await sql.sessions.insert(
            connection,
            id=session,
            digest=digest_of(secret),
            person=signed_in.person,
            provider=signed_in.provider,
            email=signed_in.email,
            name=signed_in.name,
            roles=sorted(role.value for role in signed_in.roles),
            maker=signed_in.maker,
            address=seen.address,
            browser=seen.browser_stored,
            at=at,
            expires_at=at + self._lifetimes.lasts,
        )

    async def find(self, secret: str, *, is_use: bool = True) -> Session | None:
        """None where it has ended. Its roles are those that the person has now. `is_use`: it puts off the session's end
        by idleness."""
        now = moment(self._clock())
        async with self._db.connection() as connection:
            since = now - self._lifetimes.idle
            row = await sql.sessions.find(connection, digest=digest_of(secret), now=now, idle_since=since)
            if row is None or not await self._is_backed(connection, row):
                return None
            if is_use and self._lifetimes.is_touched(row.used_at, now):
                await sql.sessions.touch(connection, id=row.id, now=now)
            assigned = await self._assigned_to(connection, row)
        return Session(row, frozenset(map(AdminRole, row.roles)) | assigned)

    async def live(self, person: str | None = None) -> Sequence[Row]:
        """Those that were used last first, at most LISTED_MAX. `person`: an identity or an e-mail address."""
        now = moment(self._clock())
        async with self._db.connection() as connection:
            since = now - self._lifetimes.idle
            rows = await sql.sessions.live(connection, person=person, now=now, idle_since=since, limit_rows=LISTED_MAX)
            return await self._makers.backed(connection, rows, lambda row: needed_for(row.roles))

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
        return await self._makers.assigned(connection, whom.person, whom.provider, whom.email)

    async def _is_backed(self, connection: Connection, row: Row) -> bool:
        """Whether whoever made the link of the session could still make it."""
        return row.maker is None or await self._makers.may(connection, row.maker, needed_for(row.roles))


def _ended(session: UUID, person: str) -> Change:
    return Change("session.ended", None, {"session": str(session), "person": person}, None)

"""One look at an object of Clerk's: afterwards it is here as it is there.

What is written is what was read under a claim of the object, and the claim is checked in the transaction that writes:
of two looks the later one wins. That Clerk has an object no more is final, since it gives no id twice.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from common.clock import Clock
from control import incidents, journal, sql
from control.access.people import access_ends, members, organizations, users
from control.access.people.mirror.client import ClerkClient
from control.access.people.mirror.objects import (
    Kind,
    Person,
    Subject,
    id_of,
    is_organization,
    is_user,
    member_of,
    name_of,
    person_of,
)
from control.access.people.users import UserUnknown
from control.access.permissions import OrganizationRole
from control.access.publishing import Publisher, announce
from control.db import Connection, Database
from control.entitlements import changes
from control.entitlements.changes import BilledBySubscription
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.mirror import Look

AUTHOR: Final = Author("clerk", "mirror")
SUBSCRIBED: Final = "mirror_deleted_subscribed"
ROWS_AT_ONCE: Final = 500


class Converger:
    def __init__(
        self,
        db: Database,
        client: ClerkClient,
        publisher: Publisher,
        roles: Mapping[str, OrganizationRole],
        clock: Clock,
    ) -> None:
        self._db = db
        self._client = client
        self._publisher = publisher
        self._roles = roles
        self._clock = clock

    async def __call__(self, look: Look, until: datetime) -> None:
        """Raises what the client raises, StoreUnavailable, BilledBySubscription."""
        match Kind(look.kind):
            case Kind.USER:
                await self._user(look, until)
            case Kind.ORGANIZATION:
                await self._organization(look, until)
            case Kind.ALL:
                await self._everything(look, until)

    # Users

    async def _user(self, look: Look, until: datetime) -> None:
        found = await self._client.user(look.subject)
        orgs: Sequence[str] = ()
        if found is None:
            orgs = await self._forget(look.subject)
        async with self._db.transaction() as connection:
            if not await self._holds(connection, look, until):
                return
            if found is not None:
                await self._write_person(connection, person_of(found))
            await self._finish(connection, look)
        await self._publish(orgs)

    async def _write_person(self, connection: Connection, person: Person) -> None:
        now = self._clock()
        created = await sql.people.insert_user(connection, id=person.id, mirrored=True, at=moment(now)) is not None
        stored = await users.locked(connection, person.id)
        created |= stored.deleted_at is not None
        if created or (stored.email, stored.name, stored.mirrored) != (person.email, person.name, True):
            await sql.people.set_user(connection, id=person.id, email=person.email, name=person.name, mirrored=True)
            change = Change("user.created" if created else "user.changed", None, None, {"user": person.id})
            await journal.record(connection, AUTHOR, now, [change])

    async def _forget(self, user: str) -> Sequence[str]:
        async with self._db.connection() as connection:
            stored = await sql.people.user(connection, id=user)
        if stored is None or not stored.mirrored or stored.deleted_at is not None:
            return ()
        try:
            return await users.delete(self._db, user, self._clock(), AUTHOR, mirrored=True)
        except UserUnknown:
            return ()  # another process was faster

    # Organizations

    async def _organization(self, look: Look, until: datetime) -> None:
        org = look.subject
        found = await self._client.organization(org)
        memberships = None if found is None else await self._client.memberships(org)
        if found is None or memberships is None:
            published = await self._end(org)
            async with self._db.transaction() as connection:
                if await self._holds(connection, look, until):
                    await self._finish(connection, look)
        else:
            wanted = dict(member_of(each, self._roles) for each in memberships)
            wanted = {user: role for user, role in wanted.items() if is_user(user)}
            async with self._db.transaction() as connection:
                if not await self._holds(connection, look, until):
                    return
                published = await self._write_organization(connection, org, name_of(found))
                published |= await self._write_members(connection, org, wanted)
                await self._finish(connection, look)
        if published:
            await self._publish([org])

    async def _write_organization(self, connection: Connection, org: str, name: str) -> bool:
        """Whether it must be published."""
        now = self._clock()
        if await sql.organizations.insert(connection, id=org, name=name, created_at=moment(now)) is not None:
            await journal.record(connection, AUTHOR, now, [Change("organization.created", org, None, {"name": name})])
        stored = await sql.organizations.lock_any(connection, org=org)
        if stored is None:
            raise OrganizationUnknown(org)  # it was inserted above
        if stored.deleted_at is not None and not stored.mirrored:
            return False  # an admin deleted it here
        if not stored.mirrored:
            await sql.organizations.set_mirrored(connection, id=org, mirrored=True)
        if stored.name != name:
            await sql.organizations.rename(connection, id=org, name=name)
            change = Change("organization.renamed", org, {"name": stored.name}, {"name": name})
            await journal.record(connection, AUTHOR, now, [change])
        if stored.deleted_at is not None:
            await organizations.unmark_deleted(connection, org, now, AUTHOR)
        return stored.deleted_at is not None

    async def _write_members(self, connection: Connection, org: str, wanted: Mapping[str, OrganizationRole]) -> bool:
        """Whether the organization must be published."""
        if await sql.organizations.lock(connection, org=org) is None:
            return False
        now, published = self._clock(), False
        held = {row.user_id: row for row in await sql.people.all_members(connection, org=org)}
        for user, role in sorted(wanted.items()):
            before = held.get(user)
            old = None if before is None else before.role
            published |= await members.put(connection, org, user, role, old, now, AUTHOR, mirrored=True)
            if before is None:
                await sql.mirror.ask(connection, kind=Kind.USER.value, subject=user, at=moment(now))
        for user in sorted(held.keys() - wanted.keys()):
            await members.remove(connection, held[user], now, AUTHOR)
            await access_ends.of_user(connection, org, user, now, AUTHOR, for_good=False)
            published = True
        return published

    async def _end(self, org: str) -> bool:
        """Whether it must be published."""
        now = self._clock()
        async with self._db.connection() as connection:
            stored = await sql.organizations.find(connection, org=org)
        if stored is None or not stored.mirrored:
            return False
        try:
            await changes.end_entitlement(self._db, org, None, now, AUTHOR)
        except BilledBySubscription as e:
            async with self._db.transaction() as connection:
                content = {"subscription": str(e)}
                await incidents.open(connection, now, SUBSCRIBED, org, org, content)
        async with self._db.transaction() as connection:
            if await sql.organizations.lock(connection, org=org) is None:
                return False
            await organizations.mark_deleted(connection, org, now, AUTHOR)
        return True

    # Everything

    async def _everything(self, look: Look, until: datetime) -> None:
        """Asks for a look at each object that may be different."""
        asked = {Subject(Kind.ORGANIZATION, org) async for org in self._mirrored_organizations()}
        async for organization in self._client.organizations():
            if is_organization(id_of(organization)):
                asked.add(Subject(Kind.ORGANIZATION, id_of(organization)))
        asked |= await self._different_users()
        async with self._db.transaction() as connection:
            if not await self._holds(connection, look, until):
                return
            for subject in sorted(asked, key=lambda each: (each.kind.value, each.id)):
                await sql.mirror.ask(connection, kind=subject.kind.value, subject=subject.id, at=moment(self._clock()))
            await self._finish(connection, look)

    async def _different_users(self) -> set[Subject]:
        here = {user.id: user async for user in self._mirrored_users()}
        different = set()
        async for user in self._client.users():
            there = person_of(user)
            if not is_user(there.id):
                continue
            if here.pop(there.id, None) != there:
                different.add(Subject(Kind.USER, there.id))
        return different | {Subject(Kind.USER, user) for user in here}

    async def _mirrored_users(self) -> AsyncIterator[Person]:
        after: str | None = ""
        while after is not None:
            async with self._db.connection() as connection:
                rows = await sql.people.mirrored_users(connection, after=after, limit_rows=ROWS_AT_ONCE)
            for row in rows:
                yield Person(row.id, row.email, row.name)
            after = rows[-1].id if len(rows) == ROWS_AT_ONCE else None

    async def _mirrored_organizations(self) -> AsyncIterator[str]:
        after: str | None = ""
        while after is not None:
            async with self._db.connection() as connection:
                rows = await sql.organizations.mirrored(connection, after=after, limit_rows=ROWS_AT_ONCE)
            for row in rows:
                yield row
            after = rows[-1] if len(rows) == ROWS_AT_ONCE else None

    async def _holds(self, connection: Connection, look: Look, until: datetime) -> bool:
        return bool(await sql.mirror.hold(connection, kind=look.kind, subject=look.subject, until=until))

    async def _finish(self, connection: Connection, look: Look) -> None:
        await sql.mirror.finish(
            connection, kind=look.kind, subject=look.subject, asked=look.asked, at=moment(self._clock())
        )

    async def _publish(self, orgs: Sequence[str]) -> None:
        """Where that fails now, the publisher does it when it can."""
        for org in orgs:
            await announce(self._publisher, org)

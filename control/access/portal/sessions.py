"""Sessions of the portal, in PostgreSQL. One is looked up with every request, and with it what has become of the person
and the organization: whatever ends one of them ends the session in all processes at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from common.clock import Clock
from control import journal, sql
from control.access.callers import Caller, Kind
from control.access.lifetimes import KEPT, LISTED_MAX, Lifetimes, Link, Seen, digest_of, new_secret
from control.access.makers import Maker, Makers, Stored
from control.access.permissions import ORGANIZATION_PERMISSIONS, OrganizationRole, Permission, Permissions
from control.db import Database
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from control.settings.portal import Portal
from control.sql.portal import Session as Row
from quota.access import encoded_user

PROVIDER: Final = "oidc:"
"""Before the identity provider's own id of a person: who opened a session. A link is opened by `admin`, `service:…` or
`person:…`."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Who comes in, and who says so."""

    org: str
    user: str | None
    """None: nobody of the organization's users; the role is all that is known."""
    role: OrganizationRole
    opened_by: str
    """Whoever made the link, or the person as an identity provider names it."""
    issued_at: datetime
    """When that was said: a revocation of what was issued before refuses the session."""
    return_url: str | None = None
    maker: Stored = None
    """Of the link."""


@dataclass(frozen=True, slots=True)
class Session:
    row: Row

    @property
    def role(self) -> OrganizationRole:
        return OrganizationRole(self.row.role)

    @property
    def by_provider(self) -> bool:
        """Whether an identity provider said who this is."""
        return self.row.opened_by.startswith(PROVIDER)

    @property
    def actor(self) -> str:
        """In the journal."""
        return actor_of(self.row.org, self.row.user_id)

    @property
    def permissions(self) -> Permissions:
        return ORGANIZATION_PERMISSIONS[self.role]

    @property
    def caller(self) -> Caller:
        """As the control API knows this person."""
        roles = frozenset({self.role.value})
        return Caller(self.actor, self.row.org, self.permissions, Kind.PORTAL_SESSION, self.row.user_id, roles=roles)


def actor_of(org: str, user: str | None) -> str:
    """As an organization's token is named."""
    return f"org:{org}" if user is None else f"org:{org}/u:{encoded_user(user)}"


NEEDED: Final = frozenset({Permission.PORTAL_WRITE})
"""What somebody must have who makes a link."""


class PortalSessions:
    def __init__(self, db: Database, settings: Portal, makers: Makers, clock: Clock) -> None:
        self.settings = settings
        self._db = db
        self._lifetimes = Lifetimes.of(settings.idle_minutes, settings.session_hours)
        self._makers = makers
        self._clock = clock

    async def create_link(
        self,
        org: str,
        user: str | None,
        role: OrganizationRole,
        return_url: str | None,
        author: Author,
        maker: Maker | None,
    ) -> Link:
        """The organization must be known."""
        at = moment(self._clock())
        link = Link.new(at, self.settings.link_minutes)
        async with self._db.transaction() as connection:
            await sql.portal.forget_links(connection, before=at - KEPT)
            await sql.portal.insert_link(
                connection,
                digest=digest_of(link.code),
                org=org,
                user_id=user,
                role=role.value,
                return_url=return_url,
                created_by=author.actor,
                maker=None if maker is None else maker.stored(),
                at=at,
                expires_at=link.expires_at,
            )
            after = {"user": user, "role": role.value, "expires_at": link.expires_at.isoformat()}
            await journal.record(connection, author, at.timestamp(), [Change("portal_link.created", org, None, after)])
        return link

    async def use_link(self, code: str) -> Customer | None:
        """Whom it lets in; None where it is unknown, used or expired, or whoever made it could not make it any more. Of
        two at once one gets it."""
        async with self._db.connection() as connection:
            used = await sql.portal.use_link(connection, digest=digest_of(code), now=moment(self._clock()))
            if used is None or not await self._makers.may(connection, used.maker, NEEDED):
                return None
        role = OrganizationRole(used.role)
        return Customer(used.org, used.user_id, role, used.created_by, used.created_at, used.return_url, used.maker)

    async def begin(self, customer: Customer, seen: Seen, replaced: str | None, correlation_id: str) -> str:
        """The new session's secret; the one that the browser had before has ended."""
        secret, session, at = new_secret(), uuid7(), moment(self._clock())
        author = Author(actor_of(customer.org, customer.user), correlation_id)
        async with self._db.transaction() as connection:
            if replaced is not None:
                await sql.portal.end_by_digest(connection, digest=digest_of(replaced), now=at)
            await sql.portal.forget(connection, before=at - KEPT)
            await sql.portal.insert(
                connection,
                id=session,
                digest=digest_of(secret),
                org=customer.org,
                user_id=customer.user,
                role=customer.role.value,
                opened_by=customer.opened_by,
                maker=customer.maker,
                return_url=customer.return_url,
                address=seen.address,
                browser=seen.browser_stored,
                issued_at=customer.issued_at,
                at=at,
                expires_at=at + self._lifetimes.lasts,
            )
            after = {
                "session": str(session),
                "user": customer.user,
                "role": customer.role.value,
                "opened_by": customer.opened_by,
                "address": seen.address,
            }
            change = Change("portal_session.began", customer.org, None, after)
            await journal.record(connection, author, at.timestamp(), [change])
        return secret

    async def find(self, secret: str) -> Session | None:
        """None where it has ended, by itself or with the organization or the user. Its role is the one that the user
        has now, where the user is known here as a member."""
        now = moment(self._clock())
        async with self._db.connection() as connection:
            since = now - self._lifetimes.idle
            row = await sql.portal.find(connection, digest=digest_of(secret), now=now, idle_since=since)
            if row is None or not await self._makers.may(connection, row.maker, NEEDED):
                return None
            if self._lifetimes.is_touched(row.used_at, now):
                await sql.portal.touch(connection, id=row.id, now=now)
        return Session(row)

    async def live(self, org: str, user: str | None = None) -> Sequence[Row]:
        """Those that were used last first, at most LISTED_MAX."""
        now = moment(self._clock())
        async with self._db.connection() as connection:
            since = now - self._lifetimes.idle
            rows = await sql.portal.live(
                connection, org=org, user_id=user, now=now, idle_since=since, limit_rows=LISTED_MAX
            )
            return await self._makers.backed(connection, rows, lambda _: NEEDED)

    async def end(self, session: UUID, author: Author, of: str | None = None) -> bool:
        """Whether there was one to end. `of`: only where it is this organization's."""
        now = self._clock()
        async with self._db.transaction() as connection:
            ended = await sql.portal.end(connection, id=session, org=of, now=moment(now))
            if ended is None:
                return False
            before = {"session": str(session), "user": ended.user_id}
            change = Change("portal_session.ended", ended.org, before, None)
            await journal.record(connection, author, now, [change])
        return True

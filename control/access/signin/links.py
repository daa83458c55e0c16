"""One-time links into the console: for the first person, and for a stack without an OpenID provider."""

from typing import Final

from common.clock import Clock
from control import journal, sql
from control.access.lifetimes import KEPT, Link, digest_of
from control.access.makers import Maker, Makers
from control.access.permissions import AdminRole
from control.access.signin.sessions import SignedIn, needed_for
from control.db import Database
from control.journal import Author, Change
from control.moments import moment

LINK_MINUTES: Final = 15


class Links:
    def __init__(self, db: Database, makers: Makers, clock: Clock) -> None:
        self._db = db
        self._makers = makers
        self._clock = clock

    async def create(self, role: AdminRole, author: Author, maker: Maker | None) -> Link:
        at = moment(self._clock())
        link = Link.new(at, LINK_MINUTES)
        async with self._db.transaction() as connection:
            await sql.sessions.forget_links(connection, before=at - KEPT)
            await sql.sessions.insert_link(
                connection,
                digest=digest_of(link.code),
                role=role.value,
                created_by=author.actor,
                maker=None if maker is None else maker.stored(),
                at=at,
                expires_at=link.expires_at,
            )
            after = {"role": role.value, "expires_at": link.expires_at.isoformat()}
            await journal.record(
                connection, author, at.timestamp(), [Change("console_link.created", None, None, after)]
            )
        return link

    async def use(self, code: str) -> SignedIn | None:
        """Who it signs in; None where it is unknown, used or expired, or whoever made it could not make it any more. Of
        two at once one gets it."""
        async with self._db.connection() as connection:
            used = await sql.sessions.use_link(connection, digest=digest_of(code), now=moment(self._clock()))
            if used is None or not await self._makers.may(connection, used.maker, needed_for([used.role])):
                return None
        return SignedIn(
            person=f"link:{used.created_by}",
            provider=None,
            email=None,
            name=None,
            roles=frozenset({AdminRole(used.role)}),
            maker=used.maker,
        )

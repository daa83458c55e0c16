"""One-time links into the console: for the first person, and for a stack without an OpenID provider."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from common.clock import Clock
from control import journal, sql
from control.access.permissions import AdminRole
from control.access.signin.sessions import KEPT_DAYS, SignedIn, digest_of
from control.db import Database
from control.journal import Author, Change
from control.moments import moment

LINK_MINUTES: Final = 15
CODE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, repr=False)
class Link:
    code: str
    expires_at: datetime


class Links:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(self, role: AdminRole, author: Author) -> Link:
        at = moment(self._clock())
        link = Link(secrets.token_urlsafe(CODE_BYTES), at + timedelta(minutes=LINK_MINUTES))
        async with self._db.transaction() as connection:
            await sql.sessions.forget_links(connection, before=at - timedelta(days=KEPT_DAYS))
            await sql.sessions.insert_link(
                connection,
                digest=digest_of(link.code),
                role=role.value,
                created_by=author.actor,
                at=at,
                expires_at=link.expires_at,
            )
            after = {"role": role.value, "expires_at": link.expires_at.isoformat()}
            await journal.record(
                connection, author, at.timestamp(), [Change("console_link.created", None, None, after)]
            )
        return link

    async def use(self, code: str) -> SignedIn | None:
        """Who it signs in; None where it is unknown, used or expired. Of two at once one gets it."""
        async with self._db.connection() as connection:
            used = await sql.sessions.use_link(connection, digest=digest_of(code), now=moment(self._clock()))
        if used is None:
            return None
        return SignedIn(
            person=f"link:{used.created_by}",
            provider=None,
            email=None,
            name=None,
            roles=frozenset({AdminRole(used.role)}),
        )

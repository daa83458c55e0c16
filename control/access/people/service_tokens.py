"""Service tokens: what machines call the control API with. The bootstrap token of the settings is one of them.

A token's standing is read from Postgres with each call, so that a revoked one is refused by every process at once.
While Postgres is away, one that was good within the last minutes is believed: it can report usage, which needs Redis
only, and nobody can revoke it meanwhile.
"""

import asyncio
import hmac
import re
import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from common.clock import Clock
from control import journal, sql
from control.access.permissions import (
    ADMIN_PERMISSIONS,
    ORGANIZATION_PERMISSIONS,
    AdminRole,
    OrganizationRole,
    Permission,
    Permissions,
)
from control.cursors import Page, read_page
from control.db import Database, StoreUnavailable
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from control.sql.service_tokens import LiveToken, ServiceToken
from identity.api_key import RANDOM_CHARACTERS, checksum, hash_of
from identity.refusals import Reason, TokenRefused

PREFIX: Final = "qgs"
BOOTSTRAP: Final = "bootstrap"
BOOTSTRAP_ACTOR: Final = "admin"  # as the journal has always called it
BELIEVED_SECONDS: Final = 600.0  # without Postgres
WAIT_SECONDS: Final = 2.0  # for Postgres, where the last answer is remembered
MINUTE_SECONDS: Final = 60

_FORM: Final = re.compile(rb"(qgs_[0-9A-Za-z]{28})_([0-9A-Za-z]{6})")
_ALPHABET: Final = string.digits + string.ascii_letters


class NameTaken(Exception):
    """A service token of this name is in use."""


class LastAdministrator(Exception):
    """Without this service token nobody could make another one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a live token may do."""

    id: UUID
    actor: str
    org: str | None
    permissions: Permissions


def generate() -> str:
    """A new token. It is shown once, and only its hash is stored."""
    body = f"{PREFIX}_" + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return f"{body}_{checksum(body.encode())}"


def is_service_token(token: bytes) -> bool:
    """Whether it has the form and the right checksum, so that it is looked up."""
    parts = _FORM.fullmatch(token)
    return parts is not None and checksum(parts[1]).encode() == parts[2]


def permissions_of(org: str | None, role: str | None, permissions: Sequence[str] | None) -> Permissions:
    """What a stored role, or stored permissions, allow. One that this release does not know allows nothing."""
    if permissions is not None:
        return frozenset(each for each in Permission if each.value in permissions)
    try:
        if org is None:
            return ADMIN_PERMISSIONS[AdminRole(role)]
        return ORGANIZATION_PERMISSIONS[OrganizationRole(role)]
    except ValueError:
        return frozenset()


def _standing(row: LiveToken) -> Standing:
    actor = BOOTSTRAP_ACTOR if row.name == BOOTSTRAP else f"service:{row.name}"
    return Standing(row.id, actor, row.org, permissions_of(row.org, row.role, row.permissions))


class ServiceTokens:
    def __init__(self, db: Database, bootstrap: str, clock: Clock) -> None:
        """`bootstrap`: the token of the settings, which may have any form."""
        self._db = db
        self.bootstrap = bootstrap.encode()
        self._clock = clock
        self._believed: dict[bytes, tuple[LiveToken, float]] = {}

    async def file_bootstrap(self) -> None:
        """Files the token of the settings, unless it was revoked; a new value in the settings replaces the old one."""
        now = self._clock()
        async with self._db.transaction() as connection:
            filed = await sql.service_tokens.file_bootstrap(
                connection, id=uuid7(), hash=hash_of(self.bootstrap), at=moment(now)
            )
            if filed is not None:
                change = Change("service_token.filed", None, None, {"id": str(filed), "name": BOOTSTRAP})
                await journal.record(connection, Author("settings", "start"), now, [change])

    async def find(self, token: bytes) -> Standing | None:
        """None: it is no service token, or is none any more. Raises TokenRefused for one that has expired, which only
        its owner can know; StoreUnavailable."""
        # In constant time: a comparison that ends at the first difference tells the token a character at a time.
        if not hmac.compare_digest(token, self.bootstrap) and not is_service_token(token):
            return None
        hash_ = hash_of(token)
        row, now = await self._live(hash_), self._clock()
        if row is None:
            return None
        if row.expires_at is not None and row.expires_at <= moment(now):
            raise TokenRefused(Reason.EXPIRED)
        return _standing(row)

    async def _live(self, hash_: bytes) -> LiveToken | None:
        believed = self._believed.get(hash_)
        try:
            async with asyncio.timeout(None if believed is None else WAIT_SECONDS):
                row = await self._read(hash_)
        except (StoreUnavailable, TimeoutError) as e:
            if believed is None or time.monotonic() - believed[1] > BELIEVED_SECONDS:
                raise StoreUnavailable(str(e) or "Postgres does not answer") from e
            return believed[0]
        if row is None:
            self._believed.pop(hash_, None)
        else:
            self._believed[hash_] = (row, time.monotonic())
        return row

    async def _read(self, hash_: bytes) -> LiveToken | None:
        now = self._clock()
        minute = moment(now - now % MINUTE_SECONDS)
        async with self._db.connection() as connection:
            row = await sql.service_tokens.live(connection, hash=hash_)
            if row is not None and (row.last_used_at is None or row.last_used_at < minute):
                await sql.service_tokens.mark_used(connection, id=row.id, at=minute)
        return row


@dataclass(frozen=True, slots=True)
class NewToken:
    name: str
    org: str | None
    role: str | None
    permissions: Sequence[str] | None
    expires_at: datetime | None


async def create(db: Database, wanted: NewToken, now: float, author: Author) -> tuple[ServiceToken, str]:
    """The token as it is stored, and its text. Raises NameTaken."""
    token, id_ = generate(), uuid7()
    async with db.transaction() as connection:
        created = await sql.service_tokens.insert(
            connection,
            id=id_,
            name=wanted.name,
            hash=hash_of(token.encode()),
            org=wanted.org,
            role=wanted.role,
            permissions=wanted.permissions,
            created_at=moment(now),
            created_by=author.actor,
            expires_at=wanted.expires_at,
        )
        if created is None:
            raise NameTaken(wanted.name)
        stored = await sql.service_tokens.find(connection, id=id_)
        assert stored is not None  # noqa: S101  it was written in this transaction
        await journal.record(
            connection, author, now, [Change("service_token.created", wanted.org, None, _content(stored))]
        )
    return stored, token


async def revoke(db: Database, id_: UUID, now: float, author: Author) -> bool:
    """False: there is no such token. A second time changes nothing. Raises LastAdministrator."""
    async with db.transaction() as connection:
        rows = await sql.service_tokens.lock_all(connection, at=moment(now))
        stored = await sql.service_tokens.find(connection, id=id_)
        if stored is None or stored.revoked_at is not None:
            return stored is not None
        administrators = [row.id for row in rows if Permission.ACCESS_ADMIN in _standing(row).permissions]
        if administrators == [id_]:
            raise LastAdministrator
        await sql.service_tokens.revoke(connection, id=id_, at=moment(now))
        await journal.record(
            connection, author, now, [Change("service_token.revoked", stored.org, _content(stored), None)]
        )
    return True


async def page(db: Database, before: UUID | None, limit: int) -> Page[ServiceToken, UUID]:
    """The newest first. Raises CursorUnknown."""
    async with db.connection() as connection:
        return await read_page(
            "before",
            before,
            limit,
            exists=lambda id_: sql.service_tokens.find(connection, id=id_),
            read=lambda id_, rows_max: sql.service_tokens.page(connection, before=id_, limit_rows=rows_max),
            cursor_of=lambda row: row.id,
        )


def _content(token: ServiceToken) -> dict[str, object]:
    return {
        "id": str(token.id),
        "name": token.name,
        "role": token.role,
        "permissions": None if token.permissions is None else list(token.permissions),
        "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
    }

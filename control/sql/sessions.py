"""The types of `sessions.sql`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("sessions")


@dataclass(frozen=True, slots=True)
class Session:
    id: UUID
    person: str
    provider: str | None
    email: str | None
    name: str | None
    roles: Sequence[str]
    maker: dict[str, Any] | None
    """Of the link that opened it."""
    address: str
    browser: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime


@sql
async def insert(
    connection: Connection,
    *,
    id: UUID,
    digest: bytes,
    person: str,
    provider: str | None,
    email: str | None,
    name: str | None,
    roles: Sequence[str],
    maker: Mapping[str, Any] | None,
    address: str,
    browser: str,
    at: datetime,
    expires_at: datetime,
) -> None: ...


@sql
async def newest(connection: Connection, *, person: str) -> Session | None: ...


@sql
async def find(connection: Connection, *, digest: bytes, now: datetime, idle_since: datetime) -> Session | None: ...


@sql
async def touch(connection: Connection, *, id: UUID, now: datetime) -> None: ...


@sql
async def live(
    connection: Connection, *, person: str | None, now: datetime, idle_since: datetime, limit_rows: int
) -> list[Session]: ...


@sql
async def end(connection: Connection, *, id: UUID, person: str | None, now: datetime) -> str | None: ...


@sql
async def end_all(connection: Connection, *, person: str, spared: UUID | None, now: datetime) -> list[UUID]: ...


@sql
async def end_by_digest(connection: Connection, *, digest: bytes, now: datetime) -> str | None: ...


@sql
async def newest_roles(connection: Connection, *, person: str) -> list[str] | None: ...


@sql
async def withdraw_roles(connection: Connection, *, person: str) -> None: ...


@sql
async def forget(connection: Connection, *, before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class UsedLink:
    role: str
    created_by: str
    maker: dict[str, Any] | None


@sql
async def insert_link(
    connection: Connection,
    *,
    digest: bytes,
    role: str,
    created_by: str,
    maker: Mapping[str, Any] | None,
    at: datetime,
    expires_at: datetime,
) -> None: ...


@sql
async def use_link(connection: Connection, *, digest: bytes, now: datetime) -> UsedLink | None: ...


@sql
async def forget_links(connection: Connection, *, before: datetime) -> None: ...

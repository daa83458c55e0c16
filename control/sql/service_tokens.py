"""The types of `service_tokens.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("service_tokens")


@sql
async def file_bootstrap(connection: Connection, *, id: UUID, hash: bytes, at: datetime) -> UUID | None: ...


@sql
async def insert(
    connection: Connection,
    *,
    id: UUID,
    name: str,
    hash: bytes,
    org: str | None,
    role: str | None,
    permissions: Sequence[str] | None,
    created_at: datetime,
    created_by: str,
    expires_at: datetime | None,
) -> UUID | None: ...


@dataclass(frozen=True, slots=True)
class LiveToken:
    id: UUID
    name: str
    org: str | None
    role: str | None
    permissions: Sequence[str] | None
    expires_at: datetime | None
    last_used_at: datetime | None


@sql
async def live(connection: Connection, *, hash: bytes) -> LiveToken | None: ...


@sql
async def named(connection: Connection, *, name: str, at: datetime) -> LiveToken | None: ...


@sql
async def mark_used(connection: Connection, *, id: UUID, at: datetime) -> None: ...


@sql
async def lock_all(connection: Connection, *, at: datetime) -> list[LiveToken]: ...


@sql
async def revoke(connection: Connection, *, id: UUID, at: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class ServiceToken:
    id: UUID
    name: str
    org: str | None
    role: str | None
    permissions: Sequence[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@sql
async def find(connection: Connection, *, id: UUID) -> ServiceToken | None: ...


@sql
async def page(connection: Connection, *, before: UUID | None, limit_rows: int) -> list[ServiceToken]: ...

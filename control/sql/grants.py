"""The types of `grants.sql`."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("grants")


@dataclass(frozen=True, slots=True)
class Grant:
    id: UUID
    meter: str
    units: int
    expires_at: datetime
    reason: str
    created_at: datetime
    revoked_at: datetime | None


@sql
async def insert(
    connection: Connection,
    *,
    id: UUID,
    org: str,
    meter: str,
    units: int,
    expires_at: datetime,
    reason: str,
    idempotency_key: str | None,
    created_at: datetime,
) -> Grant: ...


@sql
async def by_idempotency_key(connection: Connection, *, org: str, idempotency_key: str) -> Grant | None: ...


@sql
async def live(connection: Connection, *, org: str, at: datetime) -> int: ...


@dataclass(frozen=True, slots=True)
class UsedGrant:
    id: UUID
    meter: str
    units: int
    expires_at: datetime
    reason: str
    created_at: datetime
    revoked_at: datetime | None
    used: int


@sql
async def of_organization(
    connection: Connection, *, org: str, before: UUID | None, limit_rows: int
) -> list[UsedGrant]: ...


@sql
async def revoke(connection: Connection, *, org: str, id: UUID, at: datetime) -> Grant | None: ...


@sql
async def find(connection: Connection, *, org: str, id: UUID) -> Grant | None: ...

"""The types of `organizations.sql`."""

from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("organizations")


@dataclass(frozen=True, slots=True)
class Organization:
    id: str
    name: str
    created_at: datetime
    deleted_at: datetime | None
    mirrored: bool
    shadow: bool


@sql
async def lock(connection: Connection, *, org: str) -> Organization | None: ...


@sql
async def lock_any(connection: Connection, *, org: str) -> Organization | None: ...


@sql
async def insert(connection: Connection, *, id: str, name: str, created_at: datetime) -> str | None: ...


@sql
async def rename(connection: Connection, *, id: str, name: str) -> None: ...


@sql
async def set_mirrored(connection: Connection, *, id: str, mirrored: bool) -> None: ...


@sql
async def set_shadow(connection: Connection, *, id: str, shadow: bool) -> None: ...


@sql
async def set_deleted(connection: Connection, *, id: str, deleted_at: datetime | None) -> None: ...


@sql
async def find(connection: Connection, *, org: str) -> Organization | None: ...


@sql
async def find_any(connection: Connection, *, org: str) -> Organization | None: ...


@sql
async def mirrored(connection: Connection, *, after: str, limit_rows: int) -> list[str]: ...

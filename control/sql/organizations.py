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


@sql
async def lock(connection: Connection, *, org: str) -> Organization | None: ...


@sql
async def insert(connection: Connection, *, id: str, name: str, created_at: datetime) -> str | None: ...


@sql
async def rename(connection: Connection, *, id: str, name: str) -> None: ...


@sql
async def find(connection: Connection, *, org: str) -> Organization | None: ...


@sql
async def page(connection: Connection, *, after: str | None, limit_rows: int) -> list[Organization]: ...

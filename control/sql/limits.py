"""The types of `limits.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("limits")


@sql
async def watch(
    connection: Connection,
    *,
    orgs: Sequence[str],
    meters: Sequence[str],
    period_starts: Sequence[datetime],
    period_ends: Sequence[datetime],
) -> None: ...


@dataclass(frozen=True, slots=True)
class Watched:
    org: str
    meter: str
    period_start: datetime
    period_end: datetime


@sql
async def due(connection: Connection, *, before: datetime, limit_rows: int) -> list[Watched]: ...


@sql
async def open_keys(connection: Connection, *, kind: str, keys: Sequence[str]) -> list[str]: ...


@sql
async def mark_looked_at(
    connection: Connection,
    *,
    orgs: Sequence[str],
    meters: Sequence[str],
    period_starts: Sequence[datetime],
    at: datetime,
) -> None: ...


@sql
async def unwatch(
    connection: Connection, *, orgs: Sequence[str], meters: Sequence[str], period_starts: Sequence[datetime]
) -> None: ...

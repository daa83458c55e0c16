"""The types of `archive.sql`."""

from dataclasses import dataclass
from datetime import date, datetime

from control.sql.statements import Connection, Statements

sql = Statements("archive")


@dataclass(frozen=True, slots=True)
class Day:
    day: date
    file: str | None
    events: int
    bytes: int | None
    restored_at: datetime | None


@sql
async def days(connection: Connection) -> list[Day]: ...


@sql
async def lock_archive(connection: Connection) -> None: ...


@sql
async def limit_lock_wait(connection: Connection) -> None: ...


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    day: date
    file: str
    events: int
    sha256: str


@sql
async def archived(connection: Connection, *, day: date) -> ArchivedDay | None: ...


@sql
async def insert_archive(
    connection: Connection, *, day: date, file: str, events: int, sha256: str, at: datetime
) -> None: ...


@sql
async def set_restored(connection: Connection, *, day: date, at: datetime) -> None: ...


@sql
async def drop_sums(connection: Connection, *, day: date) -> None: ...


@sql
async def insert_sums(connection: Connection, *, day: date, starts: datetime, ends: datetime) -> None: ...


@sql
async def may_move_days(connection: Connection) -> bool: ...

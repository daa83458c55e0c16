"""The types of `mirror.sql`."""

from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("mirror")


@sql
async def file_event(connection: Connection, *, id: str, type: str, at: datetime) -> str | None: ...


@sql
async def drop_events(connection: Connection, *, before: datetime) -> None: ...


@sql
async def ask(connection: Connection, *, kind: str, subject: str, at: datetime) -> None: ...


@sql
async def ask_again(connection: Connection, *, kind: str, subject: str, at: datetime, before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class Look:
    kind: str
    subject: str
    asked: int
    attempts: int


@sql
async def claim(connection: Connection, *, at: datetime, until: datetime, limit_rows: int) -> list[Look]: ...


@sql
async def hold(connection: Connection, *, kind: str, subject: str, until: datetime) -> bool | None: ...


@sql
async def finish(connection: Connection, *, kind: str, subject: str, asked: int, at: datetime) -> None: ...


@sql
async def fail(
    connection: Connection, *, kind: str, subject: str, until: datetime, next_attempt_at: datetime, error: str
) -> None: ...


@sql
async def waiting(connection: Connection) -> int: ...


@dataclass(frozen=True, slots=True)
class WaitingLook:
    kind: str
    subject: str
    attempts: int
    next_attempt_at: datetime
    last_error: str | None


@sql
async def waiting_looks(connection: Connection, *, limit_rows: int) -> list[WaitingLook]: ...

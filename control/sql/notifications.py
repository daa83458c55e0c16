"""The types of `notifications.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("notifications")


@sql
async def add(
    connection: Connection,
    *,
    ids: Sequence[UUID],
    types: Sequence[str],
    orgs: Sequence[str | None],
    bodies: Sequence[str],
    at: datetime,
) -> None: ...


@dataclass(frozen=True, slots=True)
class Claimed:
    id: UUID
    type: str
    org: str | None
    body: str
    attempts: int


@sql
async def claim(
    connection: Connection, *, at: datetime, lost_at: datetime, disabled_kind: str, endpoint: str, limit_rows: int
) -> list[Claimed]: ...


@sql
async def delivered(connection: Connection, *, id: UUID, at: datetime) -> None: ...


@sql
async def retry(connection: Connection, *, id: UUID, attempts: int, next_attempt_at: datetime, error: str) -> None: ...


@sql
async def put_back(connection: Connection, *, id: UUID, attempts: int, at: datetime, error: str) -> None: ...


@sql
async def give_up(connection: Connection, *, id: UUID, attempts: int, at: datetime, error: str) -> UUID | None: ...


@sql
async def drop_ended(connection: Connection, *, before: datetime, limit_rows: int) -> int: ...


@sql
async def is_notification(connection: Connection, *, id: UUID) -> bool: ...


@dataclass(frozen=True, slots=True)
class Notification:
    id: UUID
    type: str
    org: str | None
    body: str
    state: str
    attempts: int
    created_at: datetime
    ended_at: datetime | None
    next_attempt_at: datetime | None
    last_error: str | None


@sql
async def page(
    connection: Connection, *, state: str | None, before: UUID | None, limit_rows: int
) -> list[Notification]: ...


@sql
async def resend_given_up(connection: Connection, *, at: datetime) -> int: ...


@sql
async def keep_attempt(connection: Connection, *, id: UUID, attempt: int, at: datetime, error: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    at: datetime
    attempt: int
    error: str


@sql
async def failed_attempts(connection: Connection, *, id: UUID, limit_rows: int) -> list[Attempt]: ...


@sql
async def find(connection: Connection, *, id: UUID) -> Notification | None: ...


@sql
async def resend(connection: Connection, *, id: UUID, at: datetime) -> UUID | None: ...

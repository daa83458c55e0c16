"""The types of `webhooks.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control.sql.statements import Connection, Statements

sql = Statements("webhooks")


@sql
async def receive(
    connection: Connection,
    *,
    ids: Sequence[str],
    types: Sequence[str],
    customers: Sequence[str | None],
    created_ats: Sequence[datetime],
    payloads: Sequence[dict[str, Any]],
    at: datetime,
    traceparent: str | None,
) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    type: str
    customer: str | None
    payload: dict[str, Any]
    attempts: int
    received_at: datetime
    traceparent: str | None = None


@sql
async def claim(connection: Connection, *, at: datetime, lost_at: datetime, limit_rows: int) -> list[Event]: ...


@sql
async def finish(connection: Connection, *, ids: Sequence[str], outcome: str, at: datetime) -> None: ...


@sql
async def retry(connection: Connection, *, id: str, attempts: int, next_attempt_at: datetime, error: str) -> None: ...


@sql
async def give_up(connection: Connection, *, id: str, attempts: int, at: datetime, error: str) -> str | None: ...


@sql
async def requeue(connection: Connection, *, ids: Sequence[str], at: datetime) -> list[str]: ...


@sql
async def requeue_between(connection: Connection, *, since: datetime, until: datetime, at: datetime) -> list[str]: ...


@sql
async def close_dead(connection: Connection, *, kind: str, at: datetime) -> None: ...


@sql
async def close_refused(connection: Connection, *, kind: str, at: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class Backlog:
    waiting: int
    oldest_seconds: float
    dead: int


@sql
async def backlog(connection: Connection, *, at: datetime) -> Backlog: ...


@sql
async def is_event(connection: Connection, *, id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class EventOfPage:
    id: str
    type: str
    customer: str | None
    state: str
    created_at: datetime
    received_at: datetime
    attempts: int
    ended_at: datetime | None
    next_attempt_at: datetime | None
    last_error: str | None


@sql
async def page(
    connection: Connection, *, state: str | None, before: str | None, limit_rows: int
) -> list[EventOfPage]: ...


@sql
async def drop_ended(connection: Connection, *, before: datetime, limit_rows: int) -> None: ...


@sql
async def keep_attempt(connection: Connection, *, id: str, attempt: int, at: datetime, error: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    at: datetime
    attempt: int
    error: str


@sql
async def failed_attempts(connection: Connection, *, id: str, limit_rows: int) -> list[Attempt]: ...


@dataclass(frozen=True, slots=True)
class WholeEvent(EventOfPage):
    payload: dict[str, Any]


@sql
async def find(connection: Connection, *, id: str) -> WholeEvent | None: ...


@sql
async def requeue_dead(connection: Connection, *, at: datetime) -> int: ...

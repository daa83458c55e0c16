"""The types of `incidents.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("incidents")


@sql
async def open(  # noqa: A001 - the statement has this name
    connection: Connection,
    *,
    id: UUID,
    kind: str,
    key: str,
    org: str | None,
    content: dict[str, Any],
    times: int,
    at: datetime,
) -> UUID: ...


@sql
async def close(connection: Connection, *, kind: str, key: str, at: datetime) -> UUID | None: ...


@sql
async def mark_seen(connection: Connection, *, kind: str, key: str, at: datetime) -> None: ...


@sql
async def close_unseen(
    connection: Connection, *, kind: str, prefix: str, before: datetime, at: datetime
) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class OpenIncident:
    kind: str
    key: str
    content: dict[str, Any]
    last_seen_at: datetime


@sql
async def open_of_kinds(connection: Connection, *, kinds: Sequence[str], prefix: str) -> list[OpenIncident]: ...


@sql
async def renew(connection: Connection, *, kind: str, key: str, content: dict[str, Any], at: datetime) -> None: ...


@sql
async def take_turns(connection: Connection, *, kind: str) -> None: ...


@sql
async def close_seen_before(
    connection: Connection, *, kind: str, keys: Sequence[str], before: datetime, at: datetime
) -> list[str]: ...


@sql
async def close_other_keys(connection: Connection, *, kind: str, key: str, at: datetime) -> list[str]: ...


@sql
async def open_keys(connection: Connection, *, kind: str) -> list[str]: ...


@sql
async def close_delivered(connection: Connection, *, kind: str, at: datetime) -> list[str]: ...


@sql
async def close_unsubscribed(connection: Connection, *, kind: str, at: datetime) -> list[str]: ...


@sql
async def close_unusable_keys(connection: Connection, *, kind: str, at: datetime) -> list[str]: ...


@sql
async def drop_closed(connection: Connection, *, before: datetime, limit_rows: int) -> int: ...


@sql
async def open_content(connection: Connection, *, kind: str, key: str) -> dict[str, Any] | None: ...


@sql
async def content_of(connection: Connection, *, kind: str, key: str) -> dict[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class Incident:
    id: UUID
    kind: str
    key: str
    org: str | None
    content: dict[str, Any]
    count: int
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None


@sql
async def lock(connection: Connection, *, id: UUID) -> Incident | None: ...


@sql
async def close_one(connection: Connection, *, id: UUID, at: datetime) -> None: ...


@sql
async def is_incident(connection: Connection, *, id: UUID) -> bool: ...


@sql
async def find(connection: Connection, *, id: UUID) -> Incident | None: ...


@sql
async def page(
    connection: Connection,
    *,
    is_open: bool | None,
    kind: str | None,
    kinds: Sequence[str] | None,
    org: str | None,
    is_acknowledged: bool | None,
    after_open: bool | None,
    after_id: UUID | None,
    limit_rows: int,
) -> list[Incident]: ...


@sql
async def acknowledge(connection: Connection, *, id: UUID, at: datetime, author: str) -> None: ...


@sql
async def withdraw_acknowledgement(connection: Connection, *, id: UUID) -> None: ...


@sql
async def add_note(
    connection: Connection, *, id: UUID, incident: UUID, at: datetime, author: str, text: str
) -> None: ...


@dataclass(frozen=True, slots=True)
class Note:
    id: UUID
    at: datetime
    author: str
    text: str


@sql
async def notes(connection: Connection, *, incident: UUID, limit_rows: int) -> list[Note]: ...


@sql
async def has_kind(connection: Connection, *, kind: str) -> bool: ...

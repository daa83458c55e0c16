"""The types of `actions.sql`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.journal import Entry
from control.sql.statements import Connection, Statements

sql = Statements("actions")


@dataclass(frozen=True, slots=True)
class AdminAction:
    id: UUID
    org: str
    name: str
    fields: dict[str, Any]
    reason: str
    token: str
    state: str
    asked_by: str
    asked_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    note: str | None
    done: dict[str, Any] | None
    undo: dict[str, Any] | None
    undone_by: str | None
    undone_at: datetime | None
    undo_reason: str | None


@sql
async def insert(
    connection: Connection,
    *,
    id: UUID,
    org: str,
    name: str,
    fields: Mapping[str, Any],
    reason: str,
    token: str,
    state: str,
    asked_by: str,
    asked_at: datetime,
) -> UUID | None: ...


@sql
async def find(connection: Connection, *, id: UUID) -> AdminAction | None: ...


@sql
async def by_token(connection: Connection, *, token: str) -> AdminAction | None: ...


@sql
async def lock(connection: Connection, *, id: UUID) -> AdminAction | None: ...


@sql
async def newest_of(connection: Connection, *, org: str) -> str | None: ...


@sql
async def page(
    connection: Connection, *, org: str | None, waiting: bool, before: UUID | None, limit_rows: int
) -> list[AdminAction]: ...


@sql
async def decide(
    connection: Connection, *, id: UUID, state: str, decided_by: str, decided_at: datetime, note: str | None
) -> None: ...


@sql
async def set_done(
    connection: Connection, *, id: UUID, state: str, done: Mapping[str, Any] | None, undo: Mapping[str, Any] | None
) -> None: ...


@sql
async def set_state(connection: Connection, *, id: UUID, state: str, note: str | None) -> None: ...


@sql
async def set_undone(
    connection: Connection,
    *,
    id: UUID,
    state: str,
    undone_by: str | None,
    undone_at: datetime | None,
    undo_reason: str | None,
) -> None: ...


@sql
async def since(connection: Connection, *, org: str, after: UUID | None, limit_rows: int) -> list[Entry]: ...


@sql
async def last_entry(connection: Connection, *, org: str) -> UUID | None: ...


@dataclass(frozen=True, slots=True)
class Given:
    org: str
    actor: str
    amount_minor: int


@sql
async def given_since(connection: Connection, *, since: datetime) -> list[Given]: ...


@sql
async def maker_of_token(connection: Connection, *, name: str) -> str | None: ...

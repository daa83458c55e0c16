"""The types of `bulk.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("bulk")


@sql
async def insert(
    connection: Connection,
    *,
    id: UUID,
    name: str,
    fields: dict[str, Any],
    filter: dict[str, Any],
    reason: str,
    asked_by: str,
    correlation_id: str,
    at: datetime,
) -> None: ...


@sql
async def insert_items(connection: Connection, *, id: UUID, orgs: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class BulkAction:
    id: UUID
    name: str
    fields: dict[str, Any]
    filter: dict[str, Any]
    reason: str
    asked_by: str
    correlation_id: str
    asked_at: datetime
    stopped_at: datetime | None
    total: int
    waiting: int
    done: int
    asked: int
    refused: int
    stopped: int


@sql
async def find(connection: Connection, *, id: UUID) -> BulkAction | None: ...


@sql
async def newest(connection: Connection, *, limit_rows: int) -> list[UUID]: ...


@dataclass(frozen=True, slots=True)
class RefusedItem:
    org: str
    note: str | None


@sql
async def refused(connection: Connection, *, id: UUID, limit_rows: int) -> list[RefusedItem]: ...


@dataclass(frozen=True, slots=True)
class Item:
    bulk: UUID
    org: str
    token: str | None
    name: str
    fields: dict[str, Any]
    reason: str
    asked_by: str
    correlation_id: str


@sql
async def claim(connection: Connection, *, at: datetime, until: datetime) -> Item | None: ...


@sql
async def set_token(connection: Connection, *, bulk: UUID, org: str, token: str) -> None: ...


@sql
async def end_item(connection: Connection, *, bulk: UUID, org: str, state: str, note: str | None) -> None: ...


@sql
async def stop(connection: Connection, *, id: UUID, at: datetime) -> UUID | None: ...

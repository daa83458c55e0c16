"""The types of `journal.sql`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("journal")


@dataclass(frozen=True, slots=True)
class NewEntry:
    id: UUID
    at: datetime
    actor: str
    action: str
    org: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    correlation_id: str


@sql
async def record(connection: Connection, rows: Sequence[NewEntry]) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    id: UUID
    at: datetime
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    correlation_id: str


@sql
async def of_organization(
    connection: Connection, *, org: str, before_at: datetime | None, before: UUID | None, limit_rows: int
) -> list[Entry]: ...


@sql
async def time_of(connection: Connection, *, org: str | None, id: UUID) -> datetime | None: ...


@sql
async def has_action(connection: Connection, *, action: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class SealedEntry:
    id: UUID
    at: datetime
    actor: str
    action: str
    org: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    correlation_id: str
    seq: int | None
    hash: str | None


@sql
async def page(
    connection: Connection,
    *,
    org: str | None,
    action: str | None,
    actors: Sequence[str] | None,
    words: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
    before_at: datetime | None,
    before: UUID | None,
    limit_rows: int,
) -> list[SealedEntry]: ...


@sql
async def find(connection: Connection, *, id: UUID) -> SealedEntry | None: ...


@sql
async def count_roughly(connection: Connection, *, most: str) -> str: ...


@sql
async def entries_with_rarest(connection: Connection, *, words: str) -> int: ...


@sql
async def search_by_words(connection: Connection, *, by_words: bool) -> str: ...

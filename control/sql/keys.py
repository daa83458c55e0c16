"""The types of `keys.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control.sql.statements import Connection, Statements

sql = Statements("keys")


@sql
async def draw_version(connection: Connection, *, org: str) -> int: ...


@sql
async def insert(
    connection: Connection,
    *,
    id: str,
    org: str,
    digest: bytes,
    starts_with: str,
    last_four: str | None,
    name: str,
    environment: str,
    user_id: str | None,
    scopes: Sequence[str],
    networks: Sequence[str],
    quotas: list[list[Any]],
    rate_requests: int | None,
    rate_seconds: float | None,
    rate_burst: int | None,
    state: str,
    imported: bool,
    created_at: datetime,
    expires_at: datetime | None,
    rolled_from: str | None,
    version: int,
) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    org: str
    starts_with: str
    last_four: str | None
    name: str
    environment: str
    user_id: str | None
    scopes: Sequence[str]
    networks: Sequence[str]
    quotas: list[list[Any]]
    rate_requests: int | None
    rate_seconds: float | None
    rate_burst: int | None
    state: str
    imported: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rolled_from: str | None
    rolled_to: str | None
    dropped_at: datetime | None
    used_at: datetime | None


@sql
async def find(connection: Connection, *, org: str, id: str) -> Key | None: ...


@sql
async def by_digest(connection: Connection, *, digest: bytes) -> Key | None: ...


@sql
async def page(
    connection: Connection,
    *,
    org: str,
    before: str | None,
    state: str | None,
    user_id: str | None,
    environment: str | None,
    at: datetime,
    limit_rows: int,
) -> list[Key]: ...


@sql
async def published_count(connection: Connection, *, org: str) -> int: ...


@sql
async def change(
    connection: Connection,
    *,
    org: str,
    id: str,
    name: str,
    scopes: Sequence[str],
    networks: Sequence[str],
    quotas: list[list[Any]],
    rate_requests: int | None,
    rate_seconds: float | None,
    rate_burst: int | None,
    state: str,
    expires_at: datetime | None,
    revoked_at: datetime | None,
    rolled_to: str | None,
    version: int,
) -> None: ...


@sql
async def revoke_all(connection: Connection, *, org: str, user_id: str | None, at: datetime, version: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Published:
    number: int
    id: str
    digest: bytes
    state: str
    expires_at: datetime | None
    environment: str
    user_id: str | None
    scopes: Sequence[str]
    networks: Sequence[str]
    quotas: list[list[Any]]
    rate_requests: int | None
    rate_seconds: float | None
    rate_burst: int | None
    is_dropped: bool


@sql
async def published(
    connection: Connection, *, org: str, since: int, after: int, limit_rows: int
) -> list[Published]: ...


@dataclass(frozen=True, slots=True)
class Limited:
    org: str
    id: str
    quotas: list[list[Any]]
    quotas_changed_at: datetime | None


@sql
async def limited(connection: Connection, *, orgs: Sequence[str]) -> list[Limited]: ...


@dataclass(frozen=True, slots=True)
class Indexed:
    number: int
    org: str
    digest: bytes


@sql
async def indexed(connection: Connection, *, after: int, limit_rows: int) -> list[Indexed]: ...


@dataclass(frozen=True, slots=True)
class Over:
    org: str
    id: str


@sql
async def over(connection: Connection, *, before: datetime, limit_rows: int) -> list[Over]: ...


@sql
async def drop(
    connection: Connection, *, org: str, ids: Sequence[str], before: datetime, version: int, at: datetime
) -> list[bytes]: ...


@sql
async def mark_used(connection: Connection, *, key_ids: Sequence[str], used_at: Sequence[datetime]) -> None: ...

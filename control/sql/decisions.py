"""The types of `decisions.sql`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from control.sql.statements import Connection, Statements

sql = Statements("decisions")


@sql
async def keep_published(
    connection: Connection, *, org: str, version: int, at: datetime, terms: Mapping[str, Any]
) -> None: ...


@dataclass(frozen=True, slots=True)
class Published:
    version: int
    published_at: datetime
    terms: dict[str, Any]


@sql
async def published_at(connection: Connection, *, org: str, version: int | None, at: datetime) -> Published | None: ...


@dataclass(frozen=True, slots=True)
class Source:
    sequence: int
    refused: int


@sql
async def lock_source(connection: Connection, *, source: str, gateway: str, at: datetime) -> Source: ...


@sql
async def move_source(connection: Connection, *, source: str, sequence: int, refused: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    at: datetime
    request_id: str
    correlation: str | None
    org: str | None
    key_id: str | None
    user_id: str | None
    route: str
    method: str
    status: int
    verdict: str
    shadow: bool
    detail: str
    charges: list[list[Any]]
    version: int | None
    limits: str
    said: dict[str, Any]
    gateway: str


@sql
async def insert_refusals(connection: Connection, rows: Sequence[Refusal]) -> None: ...


@sql
async def count_refusals(
    connection: Connection, *, minute: datetime, orgs: Sequence[str], refused: Sequence[int], kept: Sequence[int]
) -> None: ...


@sql
async def create_day(connection: Connection, *, day: date) -> None: ...


@sql
async def drop_days(connection: Connection, *, before: date) -> int: ...


@sql
async def drop_old(connection: Connection, *, before: datetime) -> None: ...


@sql
async def find_refusals(
    connection: Connection, *, request_id: str, org: str | None, limit_rows: int
) -> list[Refusal]: ...


@sql
async def page(
    connection: Connection,
    *,
    org: str | None,
    verdict: str | None,
    key_id: str | None,
    user_id: str | None,
    route: str | None,
    since: datetime | None,
    until: datetime | None,
    before_at: datetime | None,
    before_id: str | None,
    limit_rows: int,
) -> list[Refusal]: ...


@dataclass(frozen=True, slots=True)
class Counted:
    refused: int
    kept: int


@sql
async def counted(connection: Connection, *, org: str | None, since: datetime, until: datetime) -> Counted: ...


@dataclass(frozen=True, slots=True)
class Event:
    org: str
    occurred_at: datetime
    stream_seq: int
    stream_ms: int
    meter: str
    kind: str
    request_id: str
    period_start: datetime
    units: int
    overage: int
    burnt: dict[str, int] | None
    key_id: str | None
    user_id: str | None
    taken_at: datetime | None


@sql
async def events_of(connection: Connection, *, request_id: str, org: str | None, limit_rows: int) -> list[Event]: ...


@sql
async def events_from(
    connection: Connection, *, org: str, from_at: datetime, until_at: datetime, limit_rows: int
) -> list[Event]: ...


@dataclass(frozen=True, slots=True)
class UsageBefore:
    meter: str
    used: int
    burnt: int
    overage: int


@sql
async def usage_before(
    connection: Connection, *, org: str, period_start: datetime, at: datetime
) -> list[UsageBefore]: ...


@dataclass(frozen=True, slots=True)
class GrantBefore:
    grant_id: str
    used: int


@sql
async def grants_before(connection: Connection, *, org: str, at: datetime) -> list[GrantBefore]: ...


@dataclass(frozen=True, slots=True)
class KeyUsageBefore:
    meter: str
    used: int


@sql
async def key_usage_before(
    connection: Connection, *, org: str, key_id: str, from_at: datetime, before: datetime
) -> list[KeyUsageBefore]: ...


@sql
async def is_written(connection: Connection, *, shard: int, ms: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class KeyDigest:
    digest: bytes
    imported: bool


@sql
async def key_digest(connection: Connection, *, org: str, key_id: str) -> KeyDigest | None: ...

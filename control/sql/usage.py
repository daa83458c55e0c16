"""The types of `usage.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from control.sql.statements import Connection, Statements

sql = Statements("usage")


@sql
async def create_watermarks(connection: Connection, *, shards: Sequence[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Watermark:
    shard: int
    stream_ms: int
    stream_seq: int
    fence: int
    """Each recovery of Redis raises it."""


@sql
async def watermarks(connection: Connection, *, region: int) -> list[Watermark]: ...


@sql
async def lock_watermarks(connection: Connection, *, shards: Sequence[int]) -> list[Watermark]: ...


@sql
async def lock_all_watermarks(connection: Connection) -> list[int]: ...


@sql
async def raise_fences(connection: Connection, *, shards: Sequence[int]) -> None: ...


@sql
async def move_watermarks(
    connection: Connection, *, shards: Sequence[int], stream_ms: Sequence[int], stream_seqs: Sequence[int]
) -> None: ...


@dataclass(frozen=True, slots=True)
class Moved:
    org: str
    period_start: datetime
    meter: str


@sql
async def add_usage(
    connection: Connection,
    *,
    region: int,
    orgs: Sequence[str],
    period_starts: Sequence[datetime],
    meters: Sequence[str],
    used: Sequence[int],
    burnt: Sequence[int],
    overage: Sequence[int],
) -> list[Moved]: ...


@sql
async def add_grant_usage(
    connection: Connection, *, region: int, orgs: Sequence[str], grant_ids: Sequence[str], used: Sequence[int]
) -> None: ...


@dataclass(frozen=True, slots=True)
class Quarantined:
    shard: int
    stream_ms: int
    stream_seq: int
    entry: bytes
    reason: str


@sql
async def quarantine(connection: Connection, rows: Sequence[Quarantined]) -> None: ...


@sql
async def create_day(connection: Connection, *, day: date) -> None: ...


@dataclass(frozen=True, slots=True)
class Counters:
    stream_ms: int | None
    stream_seq: int | None
    usage: list[list[Any]]
    grant_used: list[list[Any]]


@sql
async def counters(
    connection: Connection, *, region: int, orgs: Sequence[str], shard: int, since: datetime
) -> Counters: ...


@dataclass(frozen=True, slots=True)
class Counted:
    usage: list[list[Any]]
    grant_used: list[list[Any]]


@sql
async def counted_elsewhere(
    connection: Connection, *, region: int, orgs: Sequence[str], since: datetime
) -> Counted: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    meter: str
    start: datetime
    units: int
    overage: int
    burnt: int
    events: int | None
    """None: days of it are in files."""


@sql
async def buckets(
    connection: Connection, *, org: str, bucket: str, since: datetime, until: datetime, meter: str | None
) -> list[Bucket]: ...


@dataclass(frozen=True, slots=True)
class PrincipalBucket:
    principal: str | None
    meter: str
    start: datetime
    units: int
    overage: int
    burnt: int
    events: int | None


@sql
async def buckets_by(
    connection: Connection,
    *,
    org: str,
    by_key: bool,
    bucket: str,
    since: datetime,
    until: datetime,
    meter: str | None,
    limit_groups: int,
) -> list[PrincipalBucket]: ...


@sql
async def add_key_usage(
    connection: Connection,
    *,
    region: int,
    orgs: Sequence[str],
    key_ids: Sequence[str],
    meters: Sequence[str],
    period_starts: Sequence[datetime],
    hours: Sequence[datetime],
    used: Sequence[int],
) -> None: ...


@sql
async def drop_key_usage(connection: Connection, *, before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class NodeUsage:
    org: str
    key_id: str
    meter: str
    window_seconds: int
    start: int
    used: int
    is_exact: bool


@sql
async def node_usage(
    connection: Connection,
    *,
    region: int,
    orgs: Sequence[str],
    key_ids: Sequence[str],
    meters: Sequence[str],
    window_seconds: Sequence[int],
    starts: Sequence[datetime],
) -> list[NodeUsage]: ...

"""The types of `reconcile.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("reconcile")


@sql
async def organizations(connection: Connection, *, region: int, after: str, limit_rows: int) -> list[str]: ...


@sql
async def quarantined(connection: Connection, *, shard: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Difference:
    org: str
    period_start: datetime
    meter: str
    used: int
    burnt: int
    overage: int
    events_used: int
    events_burnt: int
    events_overage: int


@sql
async def differing_counters(connection: Connection, *, org: str | None) -> list[Difference]: ...


@dataclass(frozen=True, slots=True)
class RegionDifference(Difference):
    region: int


@sql
async def differing_region_counters(connection: Connection, *, org: str | None) -> list[RegionDifference]: ...


@sql
async def count_counters(connection: Connection, *, org: str | None) -> int: ...


@dataclass(frozen=True, slots=True)
class KeyDifference:
    org: str
    key_id: str
    meter: str
    period_start: datetime
    hour: datetime
    used: int
    events_used: int


@sql
async def differing_key_counters(
    connection: Connection, *, org: str | None, since: datetime
) -> list[KeyDifference]: ...


@sql
async def count_key_counters(connection: Connection, *, org: str | None) -> int: ...


@sql
async def written_after(connection: Connection, *, shard: int, stream_ms: int, since: datetime) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Settled:
    org: str
    request_id: str


@sql
async def settled_since(
    connection: Connection, *, shards: Sequence[int], since: datetime, org: str, request_id: str, limit_rows: int
) -> list[Settled]: ...


@sql
async def lock_recovery(connection: Connection, *, region: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class Epoch:
    shard: int
    epoch: int
    server: str


@sql
async def last_epochs(connection: Connection, *, shards: Sequence[int]) -> list[Epoch]: ...


@sql
async def lock_epochs(connection: Connection) -> None: ...


@sql
async def vouch(connection: Connection, *, server: str, above: int, shards: Sequence[int] | None) -> int: ...


@sql
async def ended_at(connection: Connection, *, epoch: int, shards: Sequence[int]) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Published:
    org: str
    published_version: int


@sql
async def published_since(
    connection: Connection, *, region: int, since: datetime | None, after: str, limit_rows: int
) -> list[Published]: ...


@dataclass(frozen=True, slots=True)
class Recorded:
    kind: str
    request_id: str


@sql
async def recorded(
    connection: Connection, *, region: int, orgs: Sequence[str], request_ids: Sequence[str], since: datetime
) -> list[Recorded]: ...


@sql
async def written_since(connection: Connection, *, region: int, since: datetime) -> list[str]: ...

"""The types of `entitlements.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("entitlements")


@dataclass(frozen=True, slots=True)
class State:
    id: str
    name: str
    version: int
    entitled: bool
    renew_at: datetime | None
    shadow: bool
    entitlement_id: UUID | None
    status: str | None
    period_anchor: datetime | None
    period_every: int | None
    period_unit: str | None
    period_bounds: Sequence[int] | None
    period_starts_at: datetime | None
    effective_from: datetime | None
    effective_to: datetime | None
    subscription: str | None
    quantity: int | None
    prorated: dict[str, int] | None
    plan_code: str | None
    plan_version: int | None
    plan_name: str | None
    plan_policy: str | None
    plan_rate_requests: int | None
    plan_rate_seconds: float | None
    plan_rate_burst: int | None
    plan_concurrent_max: int | None
    plan_meters: list[list[Any]] | None
    policy: str | None
    allowances: dict[str, int]
    overage_max: dict[str, int]
    rate_requests: int | None
    rate_seconds: float | None
    rate_burst: int | None
    concurrent_max: int | None
    held: bool
    next_change_at: datetime | None
    grants: list[list[Any]]
    caps: dict[str, int]


@sql
async def states(connection: Connection, *, orgs: Sequence[str], at: datetime) -> list[State]: ...


@dataclass(frozen=True, slots=True)
class Closed:
    effective_to: datetime | None


@sql
async def close_entitlement(connection: Connection, *, org: str, at: datetime) -> Closed | None: ...


@sql
async def drop_scheduled(connection: Connection, *, org: str, at: datetime) -> None: ...


@sql
async def insert_entitlement(
    connection: Connection,
    *,
    id: UUID,
    org: str,
    plan_id: UUID,
    status: str,
    period_anchor: datetime,
    period_every: int,
    period_unit: str,
    period_bounds: Sequence[int],
    period_starts_at: datetime | None,
    effective_from: datetime,
    effective_to: datetime | None,
    subscription: str | None,
    quantity: int,
    prorated: dict[str, int],
) -> None: ...


@dataclass(frozen=True, slots=True)
class Entitlement:
    id: UUID
    plan_id: UUID
    status: str
    period_anchor: datetime
    period_every: int
    period_unit: str
    period_bounds: Sequence[int]
    period_starts_at: datetime | None
    effective_from: datetime
    effective_to: datetime | None
    subscription: str | None
    quantity: int
    prorated: dict[str, int]
    plan_code: str
    plan_version: int


@sql
async def timeline(connection: Connection, *, org: str, at: datetime) -> list[Entitlement]: ...


@sql
async def end_at(connection: Connection, *, id: UUID, at: datetime | None) -> None: ...


@sql
async def set_overrides(
    connection: Connection,
    *,
    org: str,
    at: datetime,
    policy: str | None,
    allowances: dict[str, int],
    overage_max: dict[str, int],
    rate_requests: int | None,
    rate_seconds: float | None,
    rate_burst: int | None,
    concurrent_max: int | None,
    held: bool,
) -> None: ...


@sql
async def is_admin_suspended(connection: Connection, *, org: str, at: datetime) -> bool: ...


@sql
async def set_admin_suspended(connection: Connection, *, org: str, at: datetime, held: bool) -> None: ...


@sql
async def changes_ahead(connection: Connection, *, org: str, at: datetime) -> list[datetime]: ...


@sql
async def is_scheduled(connection: Connection, *, org: str, at: datetime) -> bool: ...


@sql
async def drop_scheduled_by_admin(connection: Connection, *, org: str, at: datetime) -> None: ...


@sql
async def keep_in_force(connection: Connection, *, org: str, at: datetime) -> None: ...


@sql
async def drop_overrides(connection: Connection, *, org: str, at: datetime) -> None: ...


@sql
async def drop_scheduled_overrides(connection: Connection, *, org: str, at: datetime) -> None: ...


@sql
async def open_publication(connection: Connection, *, org: str) -> int: ...


@sql
async def bump_publication(connection: Connection, *, org: str) -> int | None: ...


@sql
async def bump_due(connection: Connection, *, region: int, org: str, at: datetime) -> None: ...


@sql
async def overtake(connection: Connection, *, org: str, version: int) -> None: ...


@sql
async def mark_published(
    connection: Connection, *, region: int, org: str, version: int, renew_at: datetime | None
) -> None: ...


@sql
async def add_regions(connection: Connection, *, numbers: Sequence[int], names: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class RegionRow:
    number: int
    name: str


@sql
async def regions(connection: Connection) -> list[RegionRow]: ...


@dataclass(frozen=True, slots=True)
class Pending:
    org: str
    traceparent: str | None


@sql
async def pending_publications(connection: Connection, *, region: int, limit_rows: int) -> list[Pending]: ...


@sql
async def due_publications(connection: Connection, *, region: int, at: datetime, limit_rows: int) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Allowance:
    plan_id: UUID
    meter: str
    allowance: int


@sql
async def allowances(connection: Connection, *, plan_ids: Sequence[UUID]) -> list[Allowance]: ...

"""The types of `plans.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("plans")


@sql
async def lock_catalogue(connection: Connection) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    id: UUID
    code: str
    version: int
    name: str
    policy: str
    currency: str
    rate_requests: int | None
    rate_seconds: float | None
    rate_burst: int | None
    concurrent_max: int | None
    contact: bool
    demo: bool
    archived_at: datetime | None
    meters: dict[str, dict[str, Any]]
    price_minor: dict[str, int]


@sql
async def newest(connection: Connection) -> list[Plan]: ...


@dataclass(frozen=True, slots=True)
class PlanVersion:
    id: UUID
    code: str
    version: int
    archived_at: datetime | None


@sql
async def newest_of(connection: Connection, *, code: str) -> PlanVersion | None: ...


@sql
async def version_of(connection: Connection, *, code: str, version: int) -> PlanVersion | None: ...


@sql
async def insert_plan(
    connection: Connection,
    *,
    id: UUID,
    code: str,
    version: int,
    name: str,
    policy: str,
    currency: str,
    rate_requests: int | None,
    rate_seconds: float | None,
    rate_burst: int | None,
    concurrent_max: int | None,
    contact: bool,
    demo: bool,
    created_at: datetime,
) -> None: ...


@dataclass(frozen=True, slots=True)
class NewPlanMeter:
    plan_id: UUID
    meter: str
    allowance: int
    overage_max: int | None
    overage_amount_minor: int | None
    overage_units: int | None


@sql
async def insert_plan_meter(connection: Connection, rows: Sequence[NewPlanMeter]) -> None: ...


@dataclass(frozen=True, slots=True)
class NewPlanPrice:
    plan_id: UUID
    billing_interval: str
    amount_minor: int


@sql
async def insert_plan_price(connection: Connection, rows: Sequence[NewPlanPrice]) -> None: ...


@sql
async def supersede(connection: Connection, *, id: UUID, at: datetime) -> None: ...


@sql
async def set_archived(connection: Connection, *, id: UUID, at: datetime | None) -> None: ...


@sql
async def lock_outdated_organizations(connection: Connection, *, at: datetime, limit_rows: int) -> list[str]: ...


@sql
async def meters(connection: Connection) -> list[str]: ...


@sql
async def count_outdated(connection: Connection, *, at: datetime) -> int: ...


@dataclass(frozen=True, slots=True)
class Outdated:
    id: UUID
    org: str
    effective_to: datetime | None
    code: str
    old_version: int
    plan_id: UUID
    version: int


@sql
async def outdated_entitlements(connection: Connection, *, orgs: Sequence[str], at: datetime) -> list[Outdated]: ...


@sql
async def close_outdated(connection: Connection, *, ids: Sequence[UUID], at: datetime) -> None: ...


@sql
async def insert_successors(
    connection: Connection,
    *,
    old_ids: Sequence[UUID],
    ids: Sequence[UUID],
    plan_ids: Sequence[UUID],
    effective_tos: Sequence[datetime | None],
) -> None: ...


@sql
async def bump_publications(connection: Connection, *, orgs: Sequence[str]) -> None: ...

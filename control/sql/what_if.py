"""The types of `what_if.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("what_if")


@dataclass(frozen=True, slots=True)
class Organization:
    id: str
    name: str


@sql
async def organizations(
    connection: Connection, *, after: str, on_plan: str | None, limit_rows: int
) -> list[Organization]: ...


@sql
async def change_points(connection: Connection, *, org: str, since: datetime, until: datetime) -> list[datetime]: ...


@dataclass(frozen=True, slots=True)
class KnownGrant:
    id: UUID
    meter: str
    units: int
    expires_at: datetime
    created_at: datetime
    revoked_at: datetime | None


@sql
async def grants(connection: Connection, *, org: str) -> list[KnownGrant]: ...


@dataclass(frozen=True, slots=True)
class Charged:
    occurred_at: datetime
    stream_seq: int
    request_id: str
    kind: str
    period_start: datetime
    meter: str
    units: int
    overage: int
    burnt: dict[str, int] | None
    key_id: str | None
    taken_at: datetime | None


@sql
async def recorded(
    connection: Connection, *, org: str, since: datetime, until: datetime, limit_rows: int
) -> list[Charged]: ...


@dataclass(frozen=True, slots=True)
class KeptRefusal:
    at: datetime
    request_id: str
    charges: list[list[Any]]
    key_id: str | None
    said: dict[str, Any]


@sql
async def refused(
    connection: Connection, *, org: str, since: datetime, until: datetime, limit_rows: int
) -> list[KeptRefusal]: ...


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    subscription: str
    valid_from: datetime
    valid_to: datetime | None
    status: str
    currency: str
    plan: str | None
    items: list[dict[str, Any]]
    discounts: list[dict[str, Any]]


@sql
async def states(connection: Connection, *, org: str) -> list[SubscriptionState]: ...


@dataclass(frozen=True, slots=True)
class Anchor:
    effective_from: datetime
    period_anchor: datetime
    subscription: str | None


@sql
async def anchors(connection: Connection, *, org: str) -> list[Anchor]: ...


@dataclass(frozen=True, slots=True)
class Invoice:
    id: str
    number: str | None
    subscription: str
    status: str
    billing_reason: str | None
    currency: str
    total_minor: int
    created_at: datetime


@sql
async def invoices(connection: Connection, *, org: str, since: datetime, until: datetime) -> list[Invoice]: ...


@dataclass(frozen=True, slots=True)
class PriceMeaning:
    id: str
    code: str
    version: int
    meter: str | None


@sql
async def prices(connection: Connection) -> list[PriceMeaning]: ...


@dataclass(frozen=True, slots=True)
class PlanVersion:
    code: str
    version: int
    name: str
    policy: str
    currency: str
    archived_at: datetime | None
    rate_requests: int | None
    rate_seconds: float | None
    rate_burst: int | None
    concurrent_max: int | None
    meters: dict[str, list[int | None]]
    price_minor: dict[str, int]


@sql
async def plans(connection: Connection) -> list[PlanVersion]: ...


@dataclass(frozen=True, slots=True)
class LimitedKey:
    id: str
    quotas: list[list[Any]]
    rate_requests: int | None
    rate_seconds: float | None
    rate_burst: int | None


@sql
async def keys(connection: Connection, *, org: str, ids: Sequence[str]) -> list[LimitedKey]: ...


@dataclass(frozen=True, slots=True)
class KeyChange:
    id: str
    at: datetime
    before: dict[str, Any]


@sql
async def key_changes(connection: Connection, *, org: str, ids: Sequence[str]) -> list[KeyChange]: ...


@dataclass(frozen=True, slots=True)
class KeyWindow:
    id: str
    seconds: int
    meter: str
    used: int


@sql
async def key_windows(
    connection: Connection,
    *,
    org: str,
    ids: Sequence[str],
    seconds: Sequence[int],
    starts: Sequence[datetime],
    before: datetime,
) -> list[KeyWindow]: ...

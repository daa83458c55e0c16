"""The types of `analytics.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from control.sql.statements import Connection, Statements

sql = Statements("analytics")


@dataclass(frozen=True, slots=True)
class HeldState:
    subscription: str
    valid_from: datetime
    org: str
    customer: str
    status: str
    currency: str
    plan: str | None
    items: list[Any]
    discounts: list[Any]
    trial_start: datetime | None
    trial_end: datetime | None
    cancel_at: datetime | None
    ended_at: datetime | None
    priced: bool
    assumed: bool


@sql
async def newest_states(connection: Connection, *, subscriptions: Sequence[str]) -> list[HeldState]: ...


@sql
async def live_states(connection: Connection, *, customer: str) -> list[HeldState]: ...


@sql
async def end_state(connection: Connection, *, subscription: str, at: datetime) -> None: ...


@sql
async def drop_state(connection: Connection, *, subscription: str, valid_from: datetime) -> None: ...


@sql
async def put_state(
    connection: Connection,
    *,
    subscription: str,
    valid_from: datetime,
    valid_to: datetime | None,
    org: str,
    customer: str,
    status: str,
    currency: str,
    plan: str | None,
    items: list[Any],
    discounts: list[Any],
    trial_start: datetime | None,
    trial_end: datetime | None,
    cancel_at: datetime | None,
    ended_at: datetime | None,
    annual_stripe: Decimal,
    annual_chartmogul: Decimal,
    annual_baremetrics: Decimal,
    priced: bool,
    assumed: bool,
    recorded_at: datetime,
) -> None: ...


@sql
async def move_history(connection: Connection, *, customer: str, org: str) -> list[str]: ...


@sql
async def drop_movements(connection: Connection, *, org: str) -> None: ...


@sql
async def derive_movements(connection: Connection, *, org: str) -> None: ...


@dataclass(frozen=True, slots=True)
class OrganizationMrr:
    org: str
    currency: str
    stripe_minor: int
    chartmogul_minor: int
    baremetrics_minor: int


@sql
async def mrr_of(connection: Connection, *, orgs: Sequence[str]) -> list[OrganizationMrr]: ...

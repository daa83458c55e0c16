"""The types of `billing.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("billing")


@dataclass(frozen=True, slots=True)
class Price:
    id: str
    plan_id: UUID
    code: str
    version: int
    meter: str | None


@sql
async def prices(connection: Connection, *, ids: Sequence[str]) -> list[Price]: ...


@dataclass(frozen=True, slots=True)
class PriceOfPlan:
    id: str
    meter: str | None


@sql
async def prices_of_plan(connection: Connection, *, plan_id: UUID, billing_interval: str) -> list[PriceOfPlan]: ...


@sql
async def put_price(
    connection: Connection, *, id: str, plan_id: UUID, billing_interval: str, meter: str | None, at: datetime
) -> None: ...


@dataclass(frozen=True, slots=True)
class PlanVersion:
    id: UUID
    code: str
    version: int


@sql
async def newest_plan(connection: Connection, *, code: str) -> PlanVersion | None: ...


@dataclass(frozen=True, slots=True)
class StripeMeter:
    meter: str
    id: str
    event_name: str


@sql
async def meters(connection: Connection) -> list[StripeMeter]: ...


@sql
async def put_meter(connection: Connection, *, meter: str, id: str, event_name: str) -> None: ...


@sql
async def setting(connection: Connection, *, name: str) -> str | None: ...


@sql
async def put_setting(connection: Connection, *, name: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Customer:
    id: str
    org: str
    main: bool
    deleted_at: datetime | None


@sql
async def customer(connection: Connection, *, id: str) -> Customer | None: ...


@dataclass(frozen=True, slots=True)
class MainCustomer:
    id: str
    org: str
    linked_at: datetime


@sql
async def customer_of(connection: Connection, *, org: str) -> MainCustomer | None: ...


@dataclass(frozen=True, slots=True)
class CustomerOf:
    id: str
    main: bool


@sql
async def customers_of(connection: Connection, *, org: str) -> list[CustomerOf]: ...


@dataclass(frozen=True, slots=True)
class AnyCustomer:
    id: str
    deleted_at: datetime | None


@sql
async def all_customers_of(connection: Connection, *, org: str) -> list[AnyCustomer]: ...


@dataclass(frozen=True, slots=True)
class Linked:
    org: str
    main: bool


@sql
async def link_customer(connection: Connection, *, id: str, org: str, at: datetime) -> Linked | None: ...


@sql
async def unset_main(connection: Connection, *, org: str, except_id: str) -> None: ...


@sql
async def make_main(connection: Connection, *, id: str, org: str, at: datetime) -> None: ...


@sql
async def promote(connection: Connection, *, org: str) -> str | None: ...


@sql
async def move_subscriptions(connection: Connection, *, customer: str, org: str) -> None: ...


@sql
async def move_invoices(connection: Connection, *, customer: str, org: str) -> None: ...


@sql
async def move_entries(connection: Connection, *, customer: str, org: str) -> None: ...


@sql
async def delete_customer(connection: Connection, *, id: str, at: datetime) -> None: ...


@sql
async def lock_sessions(connection: Connection, *, org: str) -> None: ...


@sql
async def open_session(connection: Connection, *, id: str, org: str, expires_at: datetime) -> None: ...


@sql
async def older_sessions(connection: Connection, *, id: str, at: datetime) -> list[str]: ...


@sql
async def close_sessions(connection: Connection, *, ids: Sequence[str], at: datetime) -> None: ...


@sql
async def drop_sessions(connection: Connection, *, org: str, before: datetime) -> None: ...


@sql
async def next_look(connection: Connection) -> int: ...


@sql
async def applied_look(connection: Connection, *, org: str, look: int) -> int | None: ...


@sql
async def end_subscriptions(connection: Connection, *, customer: str, at: datetime) -> None: ...


@sql
async def put_subscription(
    connection: Connection, *, id: str, org: str, customer: str, status: str, content: dict[str, Any], at: datetime
) -> None: ...


@dataclass(frozen=True, slots=True)
class SeenSubscription:
    id: str
    customer: str
    status: str
    content: dict[str, Any]


@sql
async def subscriptions_of_customer(connection: Connection, *, customer: str) -> list[SeenSubscription]: ...


@dataclass(frozen=True, slots=True)
class Subscription:
    id: str
    customer: str
    status: str
    content: dict[str, Any]
    updated_at: datetime


@sql
async def subscriptions_of(connection: Connection, *, org: str) -> list[Subscription]: ...


@sql
async def put_invoice(
    connection: Connection,
    *,
    id: str,
    org: str,
    customer: str,
    subscription: str | None,
    number: str | None,
    status: str,
    billing_reason: str | None,
    currency: str,
    total_minor: int,
    amount_paid_minor: int,
    amount_remaining_minor: int,
    period_start: datetime,
    period_end: datetime,
    created_at: datetime,
    finalized_at: datetime | None,
    paid_at: datetime | None,
    hosted_url: str | None,
    pdf_url: str | None,
) -> str | None: ...


@sql
async def drop_invoice(connection: Connection, *, id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Invoice:
    id: str
    subscription: str | None
    number: str | None
    status: str
    billing_reason: str | None
    currency: str
    total_minor: int
    amount_paid_minor: int
    amount_remaining_minor: int
    period_start: datetime
    period_end: datetime
    created_at: datetime
    finalized_at: datetime | None
    paid_at: datetime | None
    hosted_url: str | None
    pdf_url: str | None


@sql
async def invoices_of(connection: Connection, *, org: str, before: str | None, limit_rows: int) -> list[Invoice]: ...


@sql
async def is_invoice(connection: Connection, *, org: str, id: str) -> bool: ...


@sql
async def currency_of_invoice(connection: Connection, *, org: str, id: str) -> str | None: ...


@sql
async def put_entry(
    connection: Connection,
    *,
    id: str,
    kind: str,
    org: str,
    customer: str,
    invoice: str | None,
    amount_minor: int,
    currency: str,
    status: str | None,
    reason: str | None,
    created_at: datetime,
) -> str | None: ...


@sql
async def is_entry(connection: Connection, *, org: str, id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Entry:
    id: str
    kind: str
    invoice: str | None
    amount_minor: int
    currency: str
    status: str | None
    reason: str | None
    created_at: datetime


@sql
async def entries_of(connection: Connection, *, org: str, before: str | None, limit_rows: int) -> list[Entry]: ...


@sql
async def adopt_price(
    connection: Connection, *, id: str, plan_id: UUID, billing_interval: str, at: datetime
) -> None: ...


@sql
async def unpriced(connection: Connection, *, kind: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class ListedPlan:
    id: UUID
    code: str
    version: int
    name: str
    currency: str
    policy: str
    price_minor: dict[str, int]
    overage: dict[str, list[int]]
    prices: list[list[Any]]


@sql
async def catalogue(connection: Connection) -> list[ListedPlan]: ...


@sql
async def superseded_prices(connection: Connection) -> list[str]: ...


@sql
async def subscription_in_force(connection: Connection, *, org: str) -> str | None: ...

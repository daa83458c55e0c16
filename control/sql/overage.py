"""The types of `overage.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("overage")


@dataclass(frozen=True, slots=True)
class Unreported:
    org: str
    period_start: datetime
    meter: str
    overage: int
    reported: int
    revision: int
    customer: str
    event_name: str
    period_anchor: datetime | None
    period_every: int | None
    period_unit: str | None
    period_bounds: Sequence[int] | None
    period_starts_at: datetime | None
    counted_from: int | None


@sql
async def unreported(connection: Connection, *, since: datetime, org: str | None) -> list[Unreported]: ...


@sql
async def lock_freezing(connection: Connection) -> None: ...


@sql
async def freeze(
    connection: Connection,
    *,
    org: str,
    period_start: datetime,
    meter: str,
    revision: int,
    units: int,
    customer: str,
    event_name: str,
    identifier: str,
    event_at: datetime,
    at: datetime,
) -> None: ...


@dataclass(frozen=True, slots=True)
class Unsent:
    org: str
    period_start: datetime
    meter: str
    revision: int
    units: int
    customer: str
    event_name: str
    identifier: str
    event_at: datetime
    frozen_at: datetime


@sql
async def unsent(connection: Connection, *, org: str | None) -> list[Unsent]: ...


@dataclass(frozen=True, slots=True)
class Terms:
    amount_minor: int
    amount_units: int
    currency: str
    subscription: str | None
    effective_from: datetime
    period_anchor: datetime
    period_every: int
    period_unit: str
    period_bounds: Sequence[int]
    period_starts_at: datetime | None
    before: int


@sql
async def terms_of(
    connection: Connection, *, org: str, period_start: datetime, meter: str, revision: int, event_at: datetime
) -> list[Terms]: ...


@sql
async def give_up(connection: Connection, *, identifier: str, at: datetime) -> None: ...


@sql
async def resend(connection: Connection, *, org: str, at: datetime, too_old: datetime) -> list[str]: ...


@sql
async def sent(connection: Connection, *, identifier: str, at: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class Total:
    org: str
    period_start: datetime
    meter: str
    customer: str
    meter_id: str
    units: int
    first_at: datetime
    last_at: datetime
    sent_at: datetime


@sql
async def totals(connection: Connection, *, since: datetime, until: datetime, org: str | None) -> list[Total]: ...


@dataclass(frozen=True, slots=True)
class Backlog:
    units: int
    oldest_seconds: float


@sql
async def backlog(connection: Connection) -> Backlog: ...


@sql
async def close_item(
    connection: Connection,
    *,
    subscription: str,
    item: str,
    org: str,
    customer: str,
    price: str,
    meter: str,
    period_from: datetime,
    counted_from: datetime,
    period_to: datetime,
    closed_at: datetime,
    ended: bool,
    replaced: bool,
    prorates_removed: bool,
    at: datetime,
) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Closing:
    subscription: str
    item: str
    org: str
    customer: str
    price: str
    meter: str
    period_from: datetime
    counted_from: datetime
    period_to: datetime
    closed_at: datetime
    ended: bool
    replaced: bool
    prorates_removed: bool
    amount_minor: int
    amount_units: int
    currency: str


@sql
async def due_closings(connection: Connection, *, at: datetime, org: str | None) -> list[Closing]: ...


@sql
async def owed(
    connection: Connection,
    *,
    org: str,
    customer: str,
    subscription: str,
    meter: str,
    period_from: datetime,
    counted_from: datetime,
    closed_at: datetime,
    replaced: bool,
) -> int: ...


@sql
async def check_again(
    connection: Connection, *, subscription: str, item: str, next_check_at: datetime, settled_at: datetime | None
) -> None: ...

"""The types of `thresholds.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("thresholds")


@dataclass(frozen=True, slots=True)
class CounterTerms:
    n: int
    used: int
    period_anchor: datetime | None
    period_every: int | None
    period_unit: str | None
    period_bounds: Sequence[int] | None
    period_starts_at: datetime | None
    effective_from: datetime | None
    own_percents: Sequence[int]
    allowance: int


@sql
async def terms(
    connection: Connection,
    *,
    orgs: Sequence[str],
    period_starts: Sequence[datetime],
    meters: Sequence[str],
    at: datetime,
) -> list[CounterTerms]: ...


@dataclass(frozen=True, slots=True)
class Reached:
    org: str
    meter: str
    period_start: datetime
    percent: int


@sql
async def reach(
    connection: Connection,
    *,
    orgs: Sequence[str],
    meters: Sequence[str],
    period_starts: Sequence[datetime],
    percents: Sequence[int],
    allowances: Sequence[int],
    used: Sequence[int],
    at: datetime,
) -> list[Reached]: ...


@sql
async def move_notices(
    connection: Connection,
    *,
    orgs: Sequence[str],
    period_starts: Sequence[datetime],
    meters: Sequence[str],
    notice_at: Sequence[int],
) -> None: ...


@dataclass(frozen=True, slots=True)
class Review:
    id: int
    org: str


@sql
async def due_reviews(connection: Connection, *, at: datetime, limit_rows: int) -> list[Review]: ...


@dataclass(frozen=True, slots=True)
class Counter:
    org: str
    period_start: datetime
    meter: str


@sql
async def counters(connection: Connection, *, orgs: Sequence[str], since: datetime) -> list[Counter]: ...


@sql
async def end_reviews(connection: Connection, *, ids: Sequence[int]) -> None: ...


@sql
async def alerts(connection: Connection, *, org: str) -> Sequence[int] | None: ...


@sql
async def set_alerts(connection: Connection, *, org: str, percents: Sequence[int]) -> None: ...


@sql
async def review(connection: Connection, *, org: str, at: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class ReachedThreshold:
    meter: str
    period_start: datetime
    percent: int
    allowance: int
    used: int
    reached_at: datetime


@sql
async def reached_last(connection: Connection, *, org: str, limit_rows: int) -> list[ReachedThreshold]: ...

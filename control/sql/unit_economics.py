"""The types of `unit_economics.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from control.sql.statements import Connection, Statements

sql = Statements("unit_economics")


@sql
async def lock_days(connection: Connection) -> None: ...


@sql
async def forget_days(connection: Connection, *, days: Sequence[date]) -> None: ...


@sql
async def uncounted_days(connection: Connection, *, since: date, until: date) -> list[date]: ...


@sql
async def count_days(
    connection: Connection, *, days: Sequence[date], since: datetime, until: datetime, at: datetime
) -> None: ...


@dataclass(frozen=True, slots=True)
class UsedOnDay:
    day: date
    meter: str
    calls: int | None
    units: int
    overage: int


@sql
async def used(
    connection: Connection,
    *,
    since: date,
    until: date,
    live_since: datetime,
    live_until: datetime,
    meter: str | None,
) -> list[UsedOnDay]: ...


@dataclass(frozen=True, slots=True)
class UsedMost:
    org: str
    name: str
    periods: int
    units: int
    burnt: int
    overage: int


@sql
async def most(
    connection: Connection, *, meter: str, since: datetime, until: datetime, limit_rows: int
) -> list[UsedMost]: ...


@dataclass(frozen=True, slots=True)
class Collected:
    start: date
    paid_minor: int
    refunded_minor: int


@sql
async def collected(connection: Connection, *, currency: str, since: datetime, until: datetime) -> list[Collected]: ...

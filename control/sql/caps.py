"""The types of `caps.sql`."""

from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("caps")


@dataclass(frozen=True, slots=True)
class Cap:
    meter: str
    units: int | None
    """None: none any more."""
    effective_from: datetime
    set_by: str
    units_before: int | None


@sql
async def latest(connection: Connection, *, org: str) -> list[Cap]: ...


@sql
async def put(
    connection: Connection, *, org: str, meter: str, at: datetime, units: int | None, set_by: str
) -> None: ...


@dataclass(frozen=True, slots=True)
class OveragePrice:
    meter: str
    amount_minor: int
    units: int
    currency: str


@sql
async def prices(connection: Connection, *, org: str, at: datetime) -> list[OveragePrice]: ...

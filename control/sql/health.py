"""The types of `health.sql`."""

from dataclasses import dataclass
from decimal import Decimal

from control.sql.statements import Connection, Statements

sql = Statements("health")


@sql
async def ping(connection: Connection) -> int: ...


@sql
async def schema_version(connection: Connection) -> str | None: ...


@sql
async def time(connection: Connection) -> Decimal: ...


@sql
async def plan_anew(connection: Connection, *, most_ms: str) -> str: ...


@sql
async def follow_trace(connection: Connection, *, traceparent: str) -> None: ...


@sql
async def backend(connection: Connection) -> int: ...


@dataclass(frozen=True, slots=True)
class Place:
    system_identifier: int
    database: str
    in_recovery: bool

    def __str__(self) -> str:
        return f"{self.database} of {self.system_identifier}{' (a standby)' if self.in_recovery else ''}"


@sql
async def place(connection: Connection) -> Place: ...

"""The types of `replica.sql`."""

from dataclasses import dataclass

from control.sql.statements import Connection, Statements

sql = Statements("replica")


@dataclass(frozen=True, slots=True)
class Position:
    system_identifier: int
    position: int | None


@sql
async def primary(connection: Connection) -> Position: ...


@sql
async def standby(connection: Connection) -> Position: ...

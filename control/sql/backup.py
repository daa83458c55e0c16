"""The types of `backup.sql`."""

from dataclasses import dataclass
from datetime import date

from control.sql.statements import Connection, Statements

sql = Statements("backup")


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: list[str]
    rows_about: int


@sql
async def tables(connection: Connection) -> list[Table]: ...


@dataclass(frozen=True, slots=True)
class Reference:
    child: str
    parent: str


@sql
async def references_between(connection: Connection) -> list[Reference]: ...


@dataclass(frozen=True, slots=True)
class Partition:
    parent: str
    day: date


@sql
async def partitions(connection: Connection) -> list[Partition]: ...


@dataclass(frozen=True, slots=True)
class Sequence:
    name: str
    last_value: int | None


@sql
async def sequences(connection: Connection) -> list[Sequence]: ...


@sql
async def set_sequence(connection: Connection, *, name: str, last_value: int) -> int: ...


@sql
async def has_tables(connection: Connection) -> bool: ...

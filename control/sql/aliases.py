"""The types of `aliases.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass

from control.sql.statements import Connection, Statements

sql = Statements("aliases")


@dataclass(frozen=True, slots=True)
class Alias:
    alias: str
    value: str
    owner: str


@sql
async def of_values(connection: Connection, *, values: Sequence[str]) -> list[Alias]: ...


@sql
async def values_of(connection: Connection, *, aliases: Sequence[str]) -> list[Alias]: ...


@sql
async def add(connection: Connection, rows: Sequence[Alias]) -> None: ...


@sql
async def of_owners(connection: Connection, *, owners: Sequence[str]) -> list[Alias]: ...


@sql
async def forget(connection: Connection, *, owners: Sequence[str]) -> list[str]: ...

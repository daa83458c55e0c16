"""The types of `leases.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass

from control.sql.statements import Connection, Statements

sql = Statements("leases")


@sql
async def join(connection: Connection, *, region: int, idle: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Holder:
    shard: int | None
    pid: int
    own: bool


@sql
async def holders(connection: Connection, *, region: int) -> list[Holder]: ...


@sql
async def take(connection: Connection, *, shards: Sequence[int]) -> list[int]: ...


@sql
async def give(connection: Connection, *, shards: Sequence[int]) -> None: ...

"""The types of `regions.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass

from control.sql.statements import Connection, Statements

sql = Statements("regions")


@sql
async def lock_organizations(connection: Connection, *, orgs: Sequence[str]) -> list[str]: ...


@sql
async def now(connection: Connection) -> float: ...


@dataclass(frozen=True, slots=True)
class RegionLease:
    org: str
    region: str
    epoch: int
    returns: int
    number: int
    reserved: dict[str, int]
    drawn: dict[str, int]
    waits: dict[str, float]


@sql
async def leases(connection: Connection, *, orgs: Sequence[str]) -> list[RegionLease]: ...


@sql
async def keep_leases(
    connection: Connection,
    *,
    region: str,
    orgs: Sequence[str],
    epochs: Sequence[int],
    returns: Sequence[int],
    numbers: Sequence[int],
    reserved: Sequence[dict[str, int]],
    drawn: Sequence[dict[str, int]],
    waits: Sequence[dict[str, float]],
    waiting: Sequence[float],
    idle: Sequence[bool],
) -> None: ...


@sql
async def waited_for(connection: Connection, *, region: str, limit_rows: int) -> list[str]: ...


@sql
async def hear(connection: Connection, *, region: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Silent:
    region: str
    seconds: float


@sql
async def silent(connection: Connection, *, seconds: float) -> list[Silent]: ...

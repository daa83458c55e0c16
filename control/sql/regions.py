"""The types of `regions.sql`."""

from dataclasses import dataclass

from control.sql.statements import Connection, Statements

sql = Statements("regions")


@sql
async def lock_organization(connection: Connection, *, org: str) -> float | None: ...


@dataclass(frozen=True, slots=True)
class RegionLease:
    region: str
    epoch: int
    returns: int
    number: int
    reserved: dict[str, int]
    waits: dict[str, float]


@sql
async def leases(connection: Connection, *, org: str) -> list[RegionLease]: ...


@sql
async def keep_lease(
    connection: Connection,
    *,
    org: str,
    region: str,
    epoch: int,
    returns: int,
    number: int,
    reserved: dict[str, int],
    waits: dict[str, float],
) -> None: ...

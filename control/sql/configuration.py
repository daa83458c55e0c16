"""The types of `configuration.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from control.sql.keys import Key
from control.sql.statements import Connection, Statements

sql = Statements("configuration")


@sql
async def page(connection: Connection, *, after: str | None, limit_rows: int) -> list[str]: ...


@sql
async def count(connection: Connection) -> int: ...


@dataclass(frozen=True, slots=True)
class ConfiguredOrganization:
    id: str
    name: str
    created_at: datetime
    deleted_at: datetime | None
    mirrored: bool
    shadow: bool
    follows_payments: bool
    suspended: bool


@sql
async def organizations(
    connection: Connection, *, orgs: Sequence[str], at: datetime
) -> list[ConfiguredOrganization]: ...


@dataclass(frozen=True, slots=True)
class LiveGrant:
    org: str
    id: UUID
    meter: str
    units: int
    expires_at: datetime
    reason: str


@sql
async def grants(connection: Connection, *, orgs: Sequence[str], at: datetime) -> list[LiveGrant]: ...


@dataclass(frozen=True, slots=True)
class ChosenAlerts:
    org: str
    percents: Sequence[int]


@sql
async def alerts(connection: Connection, *, orgs: Sequence[str]) -> list[ChosenAlerts]: ...


@sql
async def keys(connection: Connection, *, orgs: Sequence[str], keys_max: int) -> list[Key]: ...

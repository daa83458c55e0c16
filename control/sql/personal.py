"""The types of `personal.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.journal import Entry
from control.sql.statements import Connection, Statements

sql = Statements("personal")


@sql
async def users_with_email(connection: Connection, *, email: str) -> list[str]: ...


@sql
async def of_sessions(connection: Connection, *, identities: Sequence[str]) -> list[str]: ...


@sql
async def of_sign_ins(connection: Connection, *, aliases: Sequence[str]) -> list[str]: ...


@sql
async def organizations(connection: Connection, *, users: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Stored:
    place: str
    content: dict[str, Any]


@sql
async def rows(
    connection: Connection, *, users: Sequence[str], identities: Sequence[str], emails: Sequence[str], limit_rows: int
) -> list[Stored]: ...


@dataclass(frozen=True, slots=True)
class Used:
    org: str
    meter: str
    units: int
    charges: int
    first_at: datetime
    last_at: datetime


@sql
async def usage(connection: Connection, *, orgs: Sequence[str], users: Sequence[str]) -> list[Used]: ...


@sql
async def journal(connection: Connection, *, words: Sequence[str], limit_rows: int) -> list[Entry]: ...


@sql
async def requests(connection: Connection, *, before: UUID | None, limit_rows: int) -> list[Entry]: ...


@sql
async def customers(connection: Connection, *, orgs: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Renamed:
    place: str
    changed: int


@sql
async def rename(
    connection: Connection, *, identities: Sequence[str], emails: Sequence[str], alias: str
) -> list[Renamed]: ...


@sql
async def forget_sessions(connection: Connection, *, identities: Sequence[str]) -> list[UUID]: ...


@sql
async def forget_links(connection: Connection, *, identities: Sequence[str]) -> list[datetime]: ...


@sql
async def forget_portal_sessions(
    connection: Connection, *, users: Sequence[str], identities: Sequence[str]
) -> list[UUID]: ...


@sql
async def forget_portal_links(
    connection: Connection, *, users: Sequence[str], identities: Sequence[str]
) -> list[datetime]: ...


@sql
async def forget_refusals(connection: Connection, *, users: Sequence[str]) -> list[datetime]: ...


@sql
async def forget_admin_roles(connection: Connection, *, identities: Sequence[str]) -> list[str]: ...

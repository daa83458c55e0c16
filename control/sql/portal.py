"""The types of `portal.sql`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("portal")


@dataclass(frozen=True, slots=True)
class Session:
    id: UUID
    org: str
    org_name: str
    user_id: str | None
    role: str
    """Of the user's membership, where one is known here."""
    opened_by: str
    maker: dict[str, Any] | None
    """Of the link that opened it."""
    return_url: str | None
    address: str
    browser: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime


@sql
async def insert(
    connection: Connection,
    *,
    id: UUID,
    digest: bytes,
    org: str,
    user_id: str | None,
    role: str,
    opened_by: str,
    maker: Mapping[str, Any] | None,
    return_url: str | None,
    address: str,
    browser: str,
    issued_at: datetime,
    at: datetime,
    expires_at: datetime,
) -> None: ...


@sql
async def find(connection: Connection, *, digest: bytes, now: datetime, idle_since: datetime) -> Session | None: ...


@sql
async def touch(connection: Connection, *, id: UUID, now: datetime) -> None: ...


@sql
async def live(
    connection: Connection, *, org: str, user_id: str | None, now: datetime, idle_since: datetime, limit_rows: int
) -> list[Session]: ...


@dataclass(frozen=True, slots=True)
class Ended:
    org: str
    user_id: str | None


@sql
async def end(connection: Connection, *, id: UUID, org: str | None, now: datetime) -> Ended | None: ...


@sql
async def end_by_digest(connection: Connection, *, digest: bytes, now: datetime) -> None: ...


@sql
async def forget(connection: Connection, *, before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class UsedLink:
    org: str
    user_id: str | None
    role: str
    return_url: str | None
    created_by: str
    maker: dict[str, Any] | None
    created_at: datetime


@sql
async def insert_link(
    connection: Connection,
    *,
    digest: bytes,
    org: str,
    user_id: str | None,
    role: str,
    return_url: str | None,
    created_by: str,
    maker: Mapping[str, Any] | None,
    at: datetime,
    expires_at: datetime,
) -> None: ...


@sql
async def use_link(connection: Connection, *, digest: bytes, now: datetime) -> UsedLink | None: ...


@sql
async def forget_links(connection: Connection, *, before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    role: str | None
    members_known: bool
    is_revoked: bool


@sql
async def standing(connection: Connection, *, org: str, user_id: str, issued_at: datetime) -> Standing | None: ...


@sql
async def existing(connection: Connection, *, orgs: Sequence[str]) -> list[str]: ...

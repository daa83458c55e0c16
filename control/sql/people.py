"""The types of `people.sql`."""

from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("people")


@dataclass(frozen=True, slots=True)
class User:
    id: str
    email: str | None
    name: str | None
    mirrored: bool
    created_at: datetime
    deleted_at: datetime | None


@sql
async def user(connection: Connection, *, id: str) -> User | None: ...


@sql
async def lock_user(connection: Connection, *, id: str) -> User | None: ...


@sql
async def insert_user(connection: Connection, *, id: str, mirrored: bool, at: datetime) -> str | None: ...


@sql
async def set_user(connection: Connection, *, id: str, email: str | None, name: str | None, mirrored: bool) -> None: ...


@sql
async def delete_user(connection: Connection, *, id: str, at: datetime) -> None: ...


@sql
async def users_page(connection: Connection, *, after: str | None, limit_rows: int) -> list[User]: ...


@sql
async def mirrored_users(connection: Connection, *, after: str, limit_rows: int) -> list[User]: ...


@dataclass(frozen=True, slots=True)
class Membership:
    org: str
    user_id: str
    role: str
    created_at: datetime
    email: str | None
    name: str | None


@sql
async def membership(connection: Connection, *, org: str, user_id: str) -> Membership | None: ...


@sql
async def role_of(connection: Connection, *, org: str, user_id: str) -> str | None: ...


@sql
async def members(connection: Connection, *, org: str, after: str | None, limit_rows: int) -> list[Membership]: ...


@sql
async def all_members(connection: Connection, *, org: str) -> list[Membership]: ...


@sql
async def memberships_of(connection: Connection, *, user_id: str) -> list[Membership]: ...


@sql
async def owners(connection: Connection, *, org: str) -> int: ...


@sql
async def set_member(connection: Connection, *, org: str, user_id: str, role: str, at: datetime) -> None: ...


@sql
async def remove_member(connection: Connection, *, org: str, user_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class AdminAssignment:
    kind: str
    subject: str
    role: str
    created_at: datetime
    created_by: str


@sql
async def admin_role(connection: Connection, *, kind: str, subject: str) -> AdminAssignment | None: ...


@sql
async def set_admin_role(
    connection: Connection, *, kind: str, subject: str, role: str, at: datetime, by: str
) -> None: ...


@sql
async def remove_admin_role(connection: Connection, *, kind: str, subject: str) -> None: ...


@sql
async def admin_roles(connection: Connection) -> list[AdminAssignment]: ...


@sql
async def organizations_of(connection: Connection, *, user_id: str) -> list[str]: ...

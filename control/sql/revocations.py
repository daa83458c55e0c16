"""The types of `revocations.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("revocations")


@sql
async def put(
    connection: Connection,
    *,
    org: str,
    kind: str,
    subject: str,
    issued_until: datetime | None,
    reason: str | None,
    at: datetime,
    expires_at: datetime | None,
    version: int,
) -> None: ...


@sql
async def lift(connection: Connection, *, org: str, kind: str, subject: str, at: datetime, version: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Revocation:
    org: str
    kind: str
    subject: str
    issued_until: datetime | None
    reason: str | None
    set_at: datetime
    expires_at: datetime | None


@sql
async def find(connection: Connection, *, org: str, kind: str, subject: str) -> Revocation | None: ...


@sql
async def in_force(
    connection: Connection, *, org: str, kinds: Sequence[str], subjects: Sequence[str]
) -> list[Revocation]: ...


@sql
async def page(
    connection: Connection,
    *,
    org: str,
    after_kind: str | None,
    after_subject: str | None,
    kind: str | None,
    limit_rows: int,
) -> list[Revocation]: ...


@sql
async def published_count(connection: Connection, *, org: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Published:
    kind: str
    subject: str
    issued_until: datetime | None
    is_lifted: bool


@sql
async def published(connection: Connection, *, org: str, since: int) -> list[Published]: ...


@sql
async def over(connection: Connection, *, before: datetime, limit_rows: int) -> list[str]: ...


@sql
async def lift_over(connection: Connection, *, org: str, before: datetime, at: datetime, version: int) -> None: ...


@sql
async def forget_lifted(connection: Connection, *, before: datetime) -> None: ...

"""The types of `signing_keys.sql`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control.sql.statements import Connection, Statements

sql = Statements("signing_keys")


@sql
async def lock(connection: Connection) -> None: ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    id: str
    algorithm: str
    public_jwk: dict[str, Any]
    sealed: bytes | None
    created_at: datetime
    signs_from: datetime
    token_seconds: int
    retired_at: datetime | None


@sql
async def all_keys(connection: Connection) -> list[SigningKey]: ...


@sql
async def insert(
    connection: Connection,
    *,
    id: str,
    algorithm: str,
    public_jwk: dict[str, Any],
    sealed: bytes,
    created_at: datetime,
    signs_from: datetime,
    token_seconds: int,
) -> None: ...


@sql
async def begin_signing(connection: Connection, *, id: str, at: datetime) -> None: ...


@sql
async def raise_token_seconds(connection: Connection, *, token_seconds: int) -> list[str]: ...


@sql
async def seal(connection: Connection, *, id: str, sealed: bytes) -> None: ...


@sql
async def retire(connection: Connection, *, id: str, at: datetime) -> str | None: ...

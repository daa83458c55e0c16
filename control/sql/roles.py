"""The types of `roles.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass

from control.sql.statements import Connection, Statements

sql = Statements("roles")


@sql
async def role_exists(connection: Connection, *, role: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Me:
    role: str
    makes_roles: bool
    owns: bool


@sql
async def me(connection: Connection) -> Me: ...


@sql
async def create_role(connection: Connection, *, role: str) -> str: ...


@sql
async def rights(
    connection: Connection, *, role: str, append_only: Sequence[str], read_only: Sequence[str]
) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    role: str
    superuser: bool
    may_change: Sequence[str]


@sql
async def standing(connection: Connection, *, protected: Sequence[str]) -> Standing: ...


@dataclass(frozen=True, slots=True)
class Hardening:
    makes_roles: bool
    makes_databases: bool
    replicates: bool
    bootstrap_tokens: int
    old_tokens: int
    ids_with_address: int
    signing_key_days: float | None
    """Since the newest signing key signs, below 0 until then; None: there is none."""


@sql
async def hardening(connection: Connection) -> Hardening: ...

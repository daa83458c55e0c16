"""The types of `audit.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from control.sql.statements import Connection, Statements

sql = Statements("audit")


@sql
async def seal(connection: Connection, *, entries_max: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Seal:
    seq: int
    hash: bytes


@sql
async def head(connection: Connection) -> Seal | None: ...


@dataclass(frozen=True, slots=True)
class Waiting:
    entries: int
    since: datetime | None


@sql
async def waiting(connection: Connection) -> Waiting: ...


@dataclass(frozen=True, slots=True)
class SealedEntry:
    seq: int
    id: str
    hash: bytes
    sealed_at: datetime
    in_journal: bool
    at: datetime | None
    actor: str | None
    action: str | None
    org: str | None
    before: str | None
    after: str | None
    correlation_id: str | None


@sql
async def seals(connection: Connection, *, after: int, up_to: int) -> list[SealedEntry]: ...


@sql
async def seal_at(connection: Connection, *, seq: int) -> Seal | None: ...


@dataclass(frozen=True, slots=True)
class SealBefore:
    hash: bytes
    latest: datetime | None


@sql
async def seal_before(connection: Connection, *, seq: int) -> SealBefore | None: ...


@dataclass(frozen=True, slots=True)
class Unsealed:
    id: str
    action: str
    waits: bool
    seconds: int


@sql
async def without_seal(connection: Connection, *, older_than_seconds: float) -> Unsealed | None: ...


@sql
async def lost_before_seal(connection: Connection) -> str | None: ...


@dataclass(frozen=True, slots=True)
class SealedAfter(SealedEntry):
    previous: bytes | None


@sql
async def seals_of(connection: Connection, *, ids: Sequence[UUID]) -> list[SealedAfter]: ...

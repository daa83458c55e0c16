"""The types of `check_times.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control.sql.statements import Connection, Statements

sql = Statements("check_times")


@dataclass(frozen=True, slots=True)
class Position:
    stream_ms: int
    stream_seq: int


@sql
async def lock_position(connection: Connection) -> Position: ...


@sql
async def move_position(connection: Connection, *, stream_ms: int, stream_seq: int) -> None: ...


@sql
async def lock_region_position(connection: Connection, *, region: int) -> Position: ...


@sql
async def move_region_position(connection: Connection, *, region: int, stream_ms: int, stream_seq: int) -> None: ...


@sql
async def add_checks(
    connection: Connection, *, minutes: Sequence[datetime], buckets: Sequence[int], checks: Sequence[int]
) -> None: ...


@sql
async def drop_checks(connection: Connection, *, before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class Checks:
    start: datetime
    bucket: int
    checks: int


@sql
async def checks(connection: Connection, *, bucket_size: str, since: datetime, until: datetime) -> list[Checks]: ...

"""The types of `tiles.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control.sql.statements import Connection, Statements

sql = Statements("tiles")


@dataclass(frozen=True, slots=True)
class Look:
    at: datetime
    snapshot: str
    watermarks: dict[str, Any]
    figures: dict[str, Any]


@sql
async def look(connection: Connection, *, kinds: Sequence[str], most: int) -> Look: ...

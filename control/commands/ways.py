"""Which way leads to PostgreSQL, for `quotagate doctor`."""

import asyncio
from dataclasses import dataclass
from typing import Final

from control import sql
from control.db import Database, StoreUnavailable
from control.replica import fault_of

ANSWER_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Way:
    pooled: bool
    """A pooler is in between."""
    without_sessions: str | None
    """Why there are no sessions, which leases need; None: there are."""


def ask(dsn: str, session_dsn: str | None) -> Way:
    """With an event loop of its own. Raises StoreUnavailable."""

    async def do() -> Way:
        async with Database.open(dsn, connections_max=1) as plain:
            pooled = plain.is_pooled
        async with Database.open(dsn, connections_max=1, session_dsn=session_dsn) as db:
            try:
                await db.check_session(ANSWER_SECONDS)
            except StoreUnavailable as e:
                return Way(pooled, str(e))
        return Way(pooled, None)

    return asyncio.run(do())


def fault_of_replica(dsn: str, replica_dsn: str) -> str | None:
    """Why the one at `replica_dsn` does not follow the one at `dsn`; None: it does. With an event loop of its own.
    Raises StoreUnavailable."""

    async def do() -> str | None:
        async with Database.open(replica_dsn, connections_max=1) as db, db.connection() as connection:
            standby = await sql.replica.standby(connection)
        async with Database.open(dsn, connections_max=1) as db, db.connection() as connection:
            primary = await sql.replica.primary(connection)
        return fault_of(primary, standby)

    return asyncio.run(do())

"""Which way leads to PostgreSQL, for `quotagate doctor`."""

import asyncio
from dataclasses import dataclass
from typing import Final

from control.db import Database, StoreUnavailable

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

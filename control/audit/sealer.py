"""Seals entries of the journal soon after their commit. Whoever writes an entry does not wait for that."""

import asyncio

import structlog

from common.clock import Clock, system_clock
from control import sql
from control.audit.verify import Head
from control.db import Database

log = structlog.get_logger()

PAUSE_SECONDS = 1.0
ENTRIES_MAX = 500  # of one transaction
LOG_HEAD_EVERY_SECONDS = 3600.0


class Sealer:
    """Several control planes may run one each: only one at a time seals."""

    name = "sealer"

    def __init__(self, db: Database, clock: Clock = system_clock) -> None:
        self._db = db
        self._clock = clock
        self._logged: tuple[int, float] = (0, 0.0)  # the head's seq, and when

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        while True:
            while await self.seal() == ENTRIES_MAX:
                pass
            await self._log_head()
            await asyncio.sleep(PAUSE_SECONDS)

    async def seal(self) -> int:
        """Seals entries in one transaction; returns how many."""
        async with self._db.connection() as connection:  # one statement, which is a transaction of its own
            sealed: int = await sql.audit.seal(connection, entries_max=ENTRIES_MAX)
        return sealed

    async def waiting(self) -> tuple[int, float]:
        """The number of unsealed entries, and for how many seconds the oldest has waited. Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            unsealed = await sql.audit.waiting(connection)
        since = unsealed.since
        return unsealed.entries, max(0.0, self._clock() - since.timestamp()) if since else 0.0

    async def head(self) -> Head | None:
        """The last seal. Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            seal = await sql.audit.head(connection)
        return Head(seal.seq, seal.hash) if seal else None

    async def _log_head(self) -> None:
        # Logs are usually stored elsewhere: `quotagate audit verify --expect` takes a head from them.
        if self._clock() < self._logged[1] + LOG_HEAD_EVERY_SECONDS:
            return
        head = await self.head()
        if head is not None and head.seq != self._logged[0]:
            log.info("head of the audit journal", head=str(head))
        self._logged = (head.seq if head else 0, self._clock())

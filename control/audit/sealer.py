"""Seals what was written into the journal, soon after its commit. Writers of the journal wait for nobody."""

import asyncio

import structlog

from common.clock import Clock, system_clock
from control import sql
from control.audit.verify import Head
from control.db import Database

log = structlog.get_logger()

PAUSE_SECONDS = 1.0
ENTRIES_MAX = 500  # of one transaction
TELL_SECONDS = 3600.0


class Sealer:
    """Several control planes may have one each: one at a time seals."""

    name = "sealer"

    def __init__(self, db: Database, clock: Clock = system_clock) -> None:
        self._db = db
        self._clock = clock
        self._told: tuple[int, float] = (0, 0.0)  # the head's seq, and when

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        while True:
            while await self.seal() == ENTRIES_MAX:
                pass
            await self._tell()
            await asyncio.sleep(PAUSE_SECONDS)

    async def seal(self) -> int:
        """One transaction of it; how many entries it sealed."""
        async with self._db.connection() as connection:  # one statement, which is a transaction of its own
            sealed: int = await sql.audit.seal(connection, entries_max=ENTRIES_MAX)
        return sealed

    async def waiting(self) -> tuple[int, float]:
        """Entries that are not sealed yet, and for how many seconds the oldest has waited. Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            found = await sql.audit.waiting(connection)
        since = found.since
        return found.entries, max(0.0, self._clock() - since.timestamp()) if since else 0.0

    async def head(self) -> Head | None:
        """The last seal. Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            found = await sql.audit.head(connection)
        return Head(found.seq, found.hash) if found else None

    async def _tell(self) -> None:
        # Logs are kept elsewhere, as a rule: a head in them is what `quotagate audit verify --expect` asks for.
        if self._clock() < self._told[1] + TELL_SECONDS:
            return
        head = await self.head()
        if head is not None and head.seq != self._told[0]:
            log.info("head of the audit journal", head=str(head))
        self._told = (head.seq if head else 0, self._clock())

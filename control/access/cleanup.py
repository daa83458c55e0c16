"""Keys that are long over, and marks for which nothing is left to refuse, are published no more.

A key that was revoked or has expired stays for a while, so that its refusal says why. Then it is unknown.
"""

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import Final, Protocol

import structlog

from common.clock import Clock, system_clock
from control import sql
from control.db import Database
from control.moments import moment
from quota.ledger import Ledger

log = structlog.get_logger()

ROUND_SECONDS: Final = 60.0
ROUND_ROWS: Final = 1_000
KEPT: Final = timedelta(days=30)
MARGIN: Final = timedelta(hours=1)  # a token's expiry is taken with leeway, and by the clock of another machine


class Publisher(Protocol):
    async def install(self, org: str) -> object:
        """Raises StoreUnavailable, LedgerUnavailable."""


class Cleanup:
    name = "access cleanup"

    def __init__(self, db: Database, ledger: Ledger, publisher: Publisher, clock: Clock = system_clock) -> None:
        self._db = db
        self._ledger = ledger
        self._publisher = publisher
        self._clock = clock

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        now = moment(self._clock())
        async with self._db.connection() as connection:
            over = await sql.keys.over(connection, before=now - KEPT, limit_rows=ROUND_ROWS)
            marked = await sql.revocations.over(connection, before=now - MARGIN, limit_rows=ROUND_ROWS)
            await sql.revocations.forget_lifted(connection, before=now - KEPT)
        by_org: defaultdict[str, list[str]] = defaultdict(list)
        for key in over:
            by_org[key.org].append(key.id)
        for org, ids in by_org.items():
            await self._drop_keys(org, ids)
        for org in marked:
            await self._lift_marks(org)

    async def _drop_keys(self, org: str, ids: list[str]) -> None:
        now = moment(self._clock())
        async with self._db.transaction() as connection:
            await sql.organizations.lock(connection, org=org)
            version = await sql.keys.draw_version(connection, org=org)
            digests = await sql.keys.drop(connection, org=org, ids=ids, before=now - KEPT, version=version, at=now)
        await self._publisher.install(org)
        # Last, since who finds an organization in the index and no key there is told the right thing, too.
        await self._ledger.unindex(digests)
        log.info("keys that are long over are published no more", org=org, keys=len(digests))

    async def _lift_marks(self, org: str) -> None:
        now = moment(self._clock())
        async with self._db.transaction() as connection:
            await sql.organizations.lock(connection, org=org)
            version = await sql.keys.draw_version(connection, org=org)
            await sql.revocations.lift_over(connection, org=org, before=now - MARGIN, at=now, version=version)
        await self._publisher.install(org)

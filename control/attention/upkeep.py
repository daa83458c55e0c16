"""Incidents whose cause is seen to be gone are closed, and what is over for long is forgotten: closed incidents with
their notes, and notifications that were delivered or given up. The journal keeps who did what about them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from common.clock import Clock
from control import sql
from control.db import Connection, Database
from control.moments import moment

log = structlog.get_logger()

ROUND_SECONDS: Final = 60.0
DROPPED_AT_ONCE: Final = 10_000
DAY_SECONDS: Final = 86_400

GIVEN_UP: Final = "webhook_given_up"
KEY_LEAKED: Final = "key_leaked"
DELETED_SUBSCRIBED: Final = "mirror_deleted_subscribed"


class Upkeep:
    name = "incidents"

    def __init__(self, db: Database, incidents_days: int | None, notifications_days: int, clock: Clock) -> None:
        """For how long what is over is kept; None: for ever."""
        self._db = db
        self._incidents_days = incidents_days
        self._notifications_days = notifications_days
        self._clock = clock

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        now = moment(self._clock())
        async with self._db.connection() as connection:
            closed = await sql.incidents.close_delivered(connection, kind=GIVEN_UP, at=now)
            closed += await sql.incidents.close_unusable_keys(connection, kind=KEY_LEAKED, at=now)
            closed += await sql.incidents.close_unsubscribed(connection, kind=DELETED_SUBSCRIBED, at=now)
        if closed:
            log.info("incidents are over", about=closed)
        if self._incidents_days is not None:
            await self._drop("incidents", self._incidents_days, self._drop_incidents)
        await self._drop("notifications", self._notifications_days, self._drop_notifications)

    async def _drop(self, what: str, days: int, drop: Callable[[Connection, float], Awaitable[int]]) -> None:
        """In steps: each is a short transaction."""
        before = self._clock() - days * DAY_SECONDS
        dropped = DROPPED_AT_ONCE
        while dropped == DROPPED_AT_ONCE:
            async with self._db.connection() as connection:
                dropped = await drop(connection, before)
            if dropped:
                log.info("what is over for long was dropped", what=what, rows=dropped)

    @staticmethod
    async def _drop_incidents(connection: Connection, before: float) -> int:
        return await sql.incidents.drop_closed(connection, before=moment(before), limit_rows=DROPPED_AT_ONCE)

    @staticmethod
    async def _drop_notifications(connection: Connection, before: float) -> int:
        return await sql.notifications.drop_ended(connection, before=moment(before), limit_rows=DROPPED_AT_ONCE)

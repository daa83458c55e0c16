"""Reads that may be a little old go to a replica of PostgreSQL, or to the primary while the replica is away or too far
behind (docs/decisions/0060). Nothing that decides, previews or acts reads here.

How far the replica is, is known without a clock on its side: this process remembers where the primary's WAL was when.
What the replica has replayed up to there is as old as that moment.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import asyncpg
import structlog

from common.clock import Clock
from control import sql
from control.db import Connection, Database, StoreUnavailable
from control.settings.control_plane import Replica
from control.sql.replica import Position

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = 1.0
REMEMBERED: Final = 8000  # positions of the primary: more than an hour of them, the longest lag that settings allow

NO_STANDBY: Final = "it is no standby, or no longer one"
_CONFLICTS: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""The primary has removed what a query on the standby still needed."""


class ReplicaFailed(StoreUnavailable):
    """The replica failed in the middle of a read. It is left until it answers again."""


@dataclass(slots=True)
class Read:
    """What one request has read."""

    as_of: float | None = None
    """Seconds since 1970; None: nothing of it is old."""
    primary_only: bool = False
    """The replica has failed this request."""


_read: ContextVar[Read | None] = ContextVar("read", default=None)


@contextmanager
def noticed() -> Iterator[Read]:
    """How old what is read within is."""
    read = Read()
    token = _read.set(read)
    try:
        yield read
    finally:
        _read.reset(token)


def read_as_of(now: float) -> float:
    """Of the request at hand: the moment of the oldest that it has read, at most `now`."""
    read = _read.get()
    return now if read is None or read.as_of is None else min(now, read.as_of)


def fault_of(primary: Position, standby: Position) -> str | None:
    """Why the one cannot follow the other; None: it may."""
    if standby.system_identifier != primary.system_identifier:
        return "it is a replica of another database"
    return NO_STANDBY if standby.position is None else None


class Positions:
    """Where the primary was when. Pure."""

    def __init__(self) -> None:
        self._known: deque[tuple[int, float, float]] = deque(maxlen=REMEMBERED)

    def add(self, position: int, monotonic: float, moment: float) -> None:
        """A moment at which the primary was at least at `position`."""
        self._known.append((position, monotonic, moment))

    def reached(self, position: int) -> tuple[float, float] | None:
        """The latest moment of which everything is before `position`: monotonic, and seconds since 1970."""
        known = next((each for each in reversed(self._known) if each[0] <= position), None)
        return known and known[1:]

    @property
    def newest(self) -> int:
        return self._known[-1][0] if self._known else 0


class Reading:
    name = "replica"

    def __init__(
        self,
        primary: Database,
        settings: Replica | None,
        timeout_seconds: float,
        clock: Clock,
        monotonic: Clock = time.monotonic,
    ) -> None:
        """`settings`: None where there is no replica. `timeout_seconds`: for a statement."""
        self._primary = primary
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._positions = Positions()
        self._replica: Database | None = None
        self._reached: tuple[float, float] | None = None
        self._left_because: str | None = ""
        self.reads: Counter[str] = Counter()
        """By store: replica, primary."""

    @property
    def exists(self) -> bool:
        """Whether there is a replica, by the settings."""
        return self._settings is not None

    @property
    def lag_seconds(self) -> float | None:
        """How old what the replica has is, at most; None: it is not known."""
        return None if self._reached is None else max(0.0, self._monotonic() - self._reached[0])

    @property
    def is_near(self) -> bool:
        """Whether the replica is read."""
        return self._chosen() is not None

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        return self._open(lambda db: db.connection())

    def snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """For several reads of one moment."""
        return self._open(lambda db: db.snapshot())

    def planned_anew(self) -> AbstractAsyncContextManager[Connection]:
        """As `Database.planned_anew`."""
        return self._open(lambda db: db.planned_anew())

    async def run(self) -> None:
        """Until it is cancelled."""
        settings = self._settings
        if settings is None:
            await asyncio.Event().wait()
            return
        dsn = settings.dsn.get_secret_value()
        while True:
            try:
                async with Database.open(dsn, settings.connections_max, self._timeout_seconds) as replica:
                    await self._follow(replica)
            except (StoreUnavailable, TimeoutError) as e:
                self._leave(f"it does not answer: {e or 'no answer in time'}")
            except _CONFLICTS as e:
                self._leave(str(e))
            finally:
                self._replica = None
            await asyncio.sleep(AGAIN_SECONDS)

    async def look(self, replica: Database) -> None:
        """Where both are. Raises StoreUnavailable, TimeoutError for the replica."""
        began, moment = self._monotonic(), self._clock()
        primary = await self._ask_primary()
        if primary is None:
            return  # what is known of the replica grows older, and others tell that the primary is away
        if primary.position is not None:
            self._positions.add(primary.position, began, moment)
        async with asyncio.timeout(ANSWER_SECONDS), replica.connection() as connection:
            standby = await sql.replica.standby(connection)
        reason = await self._unlike(primary, standby)
        if reason is not None or standby.position is None:
            self._leave(reason or NO_STANDBY)
            return
        self._replica, self._reached = replica, self._positions.reached(standby.position)
        if self._left_because is not None:
            log.info("the replica is read", lag_seconds=self.lag_seconds)
            self._left_because = None

    async def _unlike(self, primary: Position, standby: Position) -> str | None:
        """Why the one does not follow the other; None: it may."""
        fault = fault_of(primary, standby)
        if fault is None and await self._is_ahead(standby.position or 0):
            return "it is ahead of the primary: it follows another one"
        return fault

    async def _is_ahead(self, position: int) -> bool:
        if position <= self._positions.newest:
            return False
        now = await self._ask_primary()  # which may have gone on since
        return now is not None and now.position is not None and position > now.position

    async def _ask_primary(self) -> Position | None:
        """None where it does not answer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._primary.connection() as connection:
                return await sql.replica.primary(connection)
        except (StoreUnavailable, TimeoutError):
            return None

    async def _follow(self, replica: Database) -> None:
        while True:
            await self.look(replica)
            await asyncio.sleep(LOOK_SECONDS)

    def _leave(self, reason: str) -> None:
        self._replica = self._reached = None
        if reason != self._left_because:
            log.warning("the replica is left, and the primary is read", reason=reason)
        self._left_because = reason

    def _chosen(self) -> tuple[Database, float] | None:
        if self._settings is None or self._replica is None or self._reached is None:
            return None
        reached, moment = self._reached
        near = self._monotonic() - reached <= self._settings.lag_seconds_max
        return (self._replica, moment) if near else None

    @asynccontextmanager
    async def _open(
        self, opened: Callable[[Database], AbstractAsyncContextManager[Connection]]
    ) -> AsyncIterator[Connection]:
        read = _read.get()
        chosen = None if read is not None and read.primary_only else self._chosen()
        self.reads["primary" if chosen is None else "replica"] += 1
        if chosen is None:
            async with opened(self._primary) as connection:
                yield connection
            return
        replica, moment = chosen
        if read is not None:
            read.as_of = moment if read.as_of is None else min(moment, read.as_of)
        try:
            async with opened(replica) as connection:
                yield connection
        except (StoreUnavailable, *_CONFLICTS) as e:
            self._leave(f"a read failed: {e}")
            raise ReplicaFailed(str(e)) from e

"""Leases: the live writers of a region share its shards.

A lease is an advisory lock in the writer's own session with Postgres, so it ends with its process, its connection or
Postgres itself. It only prevents that two writers do the same work. That each event is written once depends on the rows
of the watermarks (docs/decisions/0013). Through a pooler that pools transactions the locks would belong to whoever gets
the connection next, so they go by `postgres.session_dsn` there (docs/decisions/0056).
"""

from collections.abc import Iterable, Mapping, Sequence

import structlog

from control import sql
from control.db import SESSION_NEEDED, Connection, Database, Session, StoreUnavailable

log = structlog.get_logger()

ANSWER_SECONDS = 5.0
IDLE_SECONDS = 10.0  # longer than a transaction of the writer takes, which looks at its leases in between


class Leases:
    def __init__(self, db: Database, shards: int, idle_seconds: float = IDLE_SECONDS) -> None:
        """`idle_seconds`: a writer that has not come around for so long loses its leases."""
        self._db = db
        self._region = db.region
        self._shards = shards
        self._idle = f"{round(idle_seconds * 1000)}ms"
        self._session: Session | None = None
        self.held: frozenset[int] = frozenset()
        """Shards, as of the last round."""
        self.writers = 0
        """That live, this one included, as of the last round."""

    @property
    def lost(self) -> bool:
        """The session has ended, and the leases with it."""
        return self._session is None or self._session.closed

    async def round(self) -> frozenset[int]:
        """Releases shards above a fair share, and takes free ones up to it; returns the shards that are held now.

        Raises StoreUnavailable; then no shard is held."""
        try:
            if self._session is None or self._session.closed:
                self._session = await self._joined()
            async with self._session.connection() as connection:
                held, self.writers = await self._share(connection)
        except BaseException:
            self.held, self.writers = frozenset(), 0
            raise
        if held != self.held:
            log.info("shards of this writer", shards=len(held), writers=self.writers)
        self.held = held
        return held

    async def release(self) -> None:
        """Releases all shards at once."""
        session, self._session = self._session, None
        self.held, self.writers = frozenset(), 0
        if session is not None:
            await session.close()

    async def _joined(self) -> Session:
        session = await self._db.session(ANSWER_SECONDS)
        try:
            async with session.connection() as connection:
                await sql.leases.join(connection, region=self._region.number, idle=self._idle)
        except BaseException:
            await session.close()
            raise
        return session

    async def _share(self, connection: Connection) -> tuple[frozenset[int], int]:
        rows = await sql.leases.holders(connection, region=self._region.number)
        writers = sorted(row.pid for row in rows if row.shard is None)
        me = next((row.pid for row in rows if row.own), None)
        if me is None:
            raise StoreUnavailable(f"Postgres: this writer's lock is another session's: {SESSION_NEEDED}")
        holders = {row.shard: row.pid for row in rows if row.shard is not None}
        held = {shard for shard, pid in holders.items() if pid == me}
        give, take = changes(self._shards, writers, me, holders)
        if give:
            await sql.leases.give(connection, shards=self._region.all_stored(give))
        taken = set(await sql.leases.take(connection, shards=self._region.all_stored(take))) if take else set()
        return frozenset(held - set(give) | taken), len(writers)


def changes(
    shards: int, writers: Sequence[int], me: int, holders: Mapping[int, int]
) -> tuple[Sequence[int], Sequence[int]]:
    """The shards to release and those to take. `writers` are sorted, `holders` by shard. Pure.

    The shares of all writers add up to all shards: a writer with too few waits only for the next rounds of the
    others."""
    place = writers.index(me)
    share = shards // len(writers) + (place < shards % len(writers))
    held = sorted(shard for shard, holder in holders.items() if holder == me)
    # Beginning at another shard each, so that two who look at once seldom try the same.
    free = rotated([shard for shard in range(shards) if shard not in holders], place, len(writers))
    return held[share:], free[: max(0, share - len(held))]


def rotated(free: Iterable[int], place: int, writers: int) -> list[int]:
    items = list(free)
    start = len(items) * place // writers
    return items[start:] + items[:start]

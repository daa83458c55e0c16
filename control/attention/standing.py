"""Incidents of one kind, each of which is open for as long as what it is about is so."""

from collections.abc import Collection, Mapping

import structlog

from common.clock import Clock
from control import incidents, sql
from control.db import Connection, Database

log = structlog.get_logger()


class Standing:
    def __init__(self, kind: str, db: Database, clock: Clock) -> None:
        self._kind = kind
        self._db = db
        self._clock = clock

    async def follow(self, wanted: Mapping[str, str], unknown: Collection[str] = ()) -> None:
        """Opens those that are so now, by their keys with the reason, and closes the others of this region; of those
        that are `unknown` each stays as it is. Raises StoreUnavailable."""
        region = self._db.region
        wanted = {region.incident_key(key): why for key, why in wanted.items()}
        unknown = set(map(region.incident_key, unknown))
        async with self._db.connection() as connection:
            shown = await self._shown(connection)
        if shown - unknown == wanted.keys() - unknown:
            return
        async with self._db.transaction() as connection:
            await sql.incidents.take_turns(connection, kind=self._kind)
            shown = await self._shown(connection)
            for key in sorted(wanted.keys() - shown):
                log.error("an incident begins", kind=self._kind, about=key, why=wanted[key])
                await incidents.open(connection, self._clock(), self._kind, key, None, {"why": wanted[key]})
            for key in sorted(shown - wanted.keys() - unknown):
                log.info("an incident is over", kind=self._kind, about=key)
                await incidents.close(connection, self._clock(), self._kind, key)

    async def _shown(self, connection: Connection) -> set[str]:
        prefix = self._db.region.incident_prefix
        rows = await sql.incidents.open_of_kinds(connection, kinds=[self._kind], prefix=prefix)
        return {row.key for row in rows}

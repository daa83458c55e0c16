"""Incidents of one kind, each of which is open for as long as what it is about is so."""

from collections.abc import Collection, Mapping

import structlog

from common.clock import Clock
from control import incidents, sql
from control.db import Connection, Database
from control.moments import moment

log = structlog.get_logger()


class Standing:
    def __init__(self, kind: str, db: Database, clock: Clock) -> None:
        self._kind = kind
        self._db = db
        self._clock = clock

    async def follow(self, wanted: Mapping[str, str], unknown: Collection[str] = ()) -> None:
        """Opens those that are so now, by their keys with the reason, renews the reasons of those that are open, and
        closes the others of this region; of those that are `unknown` each stays as it is. Raises StoreUnavailable."""
        region = self._db.region
        wanted = {region.incident_key(key): why for key, why in wanted.items()}
        unknown = set(map(region.incident_key, unknown))
        async with self._db.connection() as connection:
            shown = await self._shown(connection)
        if _is_told(shown, wanted, unknown):
            return
        async with self._db.transaction() as connection:
            await sql.incidents.take_turns(connection, kind=self._kind)
            shown = await self._shown(connection)
            for key in sorted(wanted.keys() - shown.keys()):
                log.error("an incident begins", kind=self._kind, about=key, why=wanted[key])
                await incidents.open(connection, self._clock(), self._kind, key, None, {"why": wanted[key]})
            for key in sorted(key for key in wanted.keys() & shown.keys() if wanted[key] != shown[key]):
                log.error("an incident has another reason", kind=self._kind, about=key, why=wanted[key])
                content, at = {"why": wanted[key]}, moment(self._clock())
                await sql.incidents.renew(connection, kind=self._kind, key=key, content=content, at=at)
            for key in sorted(shown.keys() - wanted.keys() - unknown):
                log.info("an incident is over", kind=self._kind, about=key)
                await incidents.close(connection, self._clock(), self._kind, key)

    async def _shown(self, connection: Connection) -> dict[str, str]:
        """The reasons of those that are open, by their keys."""
        prefix = self._db.region.incident_prefix
        rows = await sql.incidents.open_of_kinds(connection, kinds=[self._kind], prefix=prefix)
        return {row.key: str(row.content.get("why")) for row in rows}


def _is_told(shown: Mapping[str, str], wanted: Mapping[str, str], unknown: Collection[str]) -> bool:
    return wanted.items() <= shown.items() and shown.keys() - wanted.keys() <= set(unknown)

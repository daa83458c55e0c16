"""Incidents: what an admin must look at. One is open for each kind and key; what happens again counts it up.

Opened in the transaction of what it tells, so that neither is there without the other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from control import journal, sql
from control.cursors import CursorUnknown
from control.db import Connection, Database
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from control.sql.incidents import Incident


async def open(  # noqa: A001  # always said as `incidents.open`
    connection: Connection,
    now: float,
    kind: str,
    key: str,
    org: str | None,
    content: Mapping[str, Any],
    *,
    times: int = 1,
) -> UUID:
    """Opens an incident, or counts the open one of this kind and key up by `times` and renews its content; its id.

    `content` is what an admin is shown: JSON, and no secret in it."""
    found: UUID = await sql.incidents.open(
        connection, id=uuid7(), kind=kind, key=key, org=org, content=dict(content), times=times, at=moment(now)
    )
    return found


async def close(connection: Connection, now: float, kind: str, key: str) -> bool:
    """Closes the open incident of this kind and key, whose cause is gone; False where none is open."""
    return await sql.incidents.close(connection, kind=kind, key=key, at=moment(now)) is not None


async def resolve(db: Database, incident_id: UUID, now: float, author: Author) -> Incident | None:
    """Closes one incident for an admin, journaled; None where there is no such incident. Again is no change."""
    async with db.transaction() as connection:
        found = await sql.incidents.lock(connection, id=incident_id)
        if found is None:
            return None
        if found.closed_at is not None:
            return found
        await sql.incidents.close_one(connection, id=incident_id, at=moment(now))
        before = {"id": str(found.id), "kind": found.kind, "key": found.key, "count": found.count}
        change = Change("incident.resolved", found.org, before, None)
        await journal.record(connection, author, now, [change])
        return replace(found, closed_at=moment(now))


async def page(db: Database, is_open: bool | None, after: tuple[bool, UUID] | None, limit: int) -> list[Incident]:
    """Open incidents first, the newest first among them and among the others.

    `is_open`: only those, or only the others. `after`: whether the last of the previous page was open, and its id.
    Raises CursorUnknown."""
    after_open, after_id = after or (None, None)
    async with db.connection() as connection:
        if after_id is not None and not await sql.incidents.is_incident(connection, id=after_id):
            raise CursorUnknown("after")
        return await sql.incidents.page(
            connection, is_open=is_open, after_open=after_open, after_id=after_id, limit_rows=limit
        )

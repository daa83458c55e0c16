"""Incidents: what an admin must look at. At most one is open for each kind and key; if it happens again, it is counted
up.

An incident is opened in the transaction of what it reports, so that neither exists without the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from control import journal, sql
from control.cursors import Page, read_page
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
    """Opens an incident, or counts the open one of this kind and key up by `times` and renews its content; returns its
    id.

    `content` is shown to an admin: JSON, without secrets."""
    incident_id: UUID = await sql.incidents.open(
        connection, id=uuid7(), kind=kind, key=key, org=org, content=dict(content), times=times, at=moment(now)
    )
    return incident_id


async def close(connection: Connection, now: float, kind: str, key: str) -> bool:
    """Closes the open incident of this kind and key, whose cause is gone; False where none is open."""
    return await sql.incidents.close(connection, kind=kind, key=key, at=moment(now)) is not None


async def resolve(db: Database, incident_id: UUID, now: float, author: Author) -> Incident | None:
    """Closes one incident for an admin, and journals it; None where there is no such incident. A second time changes
    nothing."""
    async with db.transaction() as connection:
        incident = await sql.incidents.lock(connection, id=incident_id)
        if incident is None:
            return None
        if incident.closed_at is not None:
            return incident
        await sql.incidents.close_one(connection, id=incident_id, at=moment(now))
        before = {"id": str(incident.id), "kind": incident.kind, "key": incident.key, "count": incident.count}
        change = Change("incident.resolved", incident.org, before, None)
        await journal.record(connection, author, now, [change])
        return replace(incident, closed_at=moment(now))


@dataclass(frozen=True, slots=True)
class Position:
    """Where an incident was in the list of all."""

    was_open: bool
    """Part of it, since the incident may be closed before the next page is asked for."""
    id: UUID


async def page(db: Database, is_open: bool | None, after: Position | None, limit: int) -> Page[Incident, Position]:
    """Open incidents first, the newest first among them and among the others.

    `is_open`: only those, or only the others. Raises CursorUnknown."""
    async with db.connection() as connection:
        return await read_page(
            "after",
            after,
            limit,
            exists=lambda position: sql.incidents.is_incident(connection, id=position.id),
            read=lambda position, rows_max: sql.incidents.page(
                connection,
                is_open=is_open,
                after_open=None if position is None else position.was_open,
                after_id=None if position is None else position.id,
                limit_rows=rows_max,
            ),
            cursor_of=lambda incident: Position(incident.closed_at is None, incident.id),
        )

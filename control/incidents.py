"""Incidents: what an admin must look at. At most one is open for each kind and key; if it happens again, it is counted
up.

An incident is opened in the transaction of what it reports, so that neither exists without the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from control import journal, sql
from control.cursors import Page, read_page
from control.db import Connection, Database
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from control.sql.incidents import Incident, Note

NOTES_MAX = 200  # of one incident, that are shown


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
        if incident is None or incident.closed_at is not None:
            return incident
        await sql.incidents.close_one(connection, id=incident_id, at=moment(now))
        change = Change("incident.resolved", incident.org, _named(incident) | {"count": incident.count}, None)
        await journal.record(connection, author, now, [change])
        return replace(incident, closed_at=moment(now))


async def acknowledge(db: Database, incident_id: UUID, now: float, author: Author) -> Incident | None:
    """Says that the author sees to it, and journals that; None where there is no such incident. Who was first stays."""
    async with db.transaction() as connection:
        incident = await sql.incidents.lock(connection, id=incident_id)
        if incident is None or incident.acknowledged_at is not None:
            return incident
        await sql.incidents.acknowledge(connection, id=incident_id, at=moment(now), author=author.actor)
        after = _named(incident) | {"acknowledged_by": author.actor}
        await journal.record(connection, author, now, [Change("incident.acknowledged", incident.org, None, after)])
        return replace(incident, acknowledged_at=moment(now), acknowledged_by=author.actor)


async def withdraw_acknowledgement(db: Database, incident_id: UUID, now: float, author: Author) -> Incident | None:
    """Says that nobody sees to it; None where there is no such incident."""
    async with db.transaction() as connection:
        incident = await sql.incidents.lock(connection, id=incident_id)
        if incident is None or incident.acknowledged_at is None:
            return incident
        await sql.incidents.withdraw_acknowledgement(connection, id=incident_id)
        before = _named(incident) | {"acknowledged_by": incident.acknowledged_by}
        await journal.record(connection, author, now, [Change("incident.unacknowledged", incident.org, before, None)])
        return replace(incident, acknowledged_at=None, acknowledged_by=None)


async def add_note(db: Database, incident_id: UUID, text: str, now: float, author: Author) -> Note | None:
    """None where there is no such incident."""
    note = Note(uuid7(), moment(now), author.actor, text)
    async with db.transaction() as connection:
        incident = await sql.incidents.lock(connection, id=incident_id)
        if incident is None:
            return None
        await sql.incidents.add_note(
            connection, id=note.id, incident=incident_id, at=note.at, author=note.author, text=text
        )
        after = _named(incident) | {"note": text}
        await journal.record(connection, author, now, [Change("incident.noted", incident.org, None, after)])
    return note


async def find(db: Database, incident_id: UUID) -> tuple[Incident, list[Note]] | None:
    """An incident, and its notes, the newest first."""
    async with db.snapshot() as connection:
        incident = await sql.incidents.find(connection, id=incident_id)
        if incident is None:
            return None
        return incident, await sql.incidents.notes(connection, incident=incident_id, limit_rows=NOTES_MAX)


def _named(incident: Incident) -> dict[str, Any]:
    return {"id": str(incident.id), "kind": incident.kind, "key": incident.key}


@dataclass(frozen=True, slots=True)
class Position:
    """Where an incident was in the list of all."""

    was_open: bool
    """Part of it, since the incident may be closed before the next page is asked for."""
    id: UUID


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which incidents a list has; None: whichever."""

    is_open: bool | None = None
    kind: str | None = None
    org: str | None = None
    is_acknowledged: bool | None = None
    kinds: Sequence[str] | None = None
    """Any of them."""


async def page(db: Database, wanted: Wanted, after: Position | None, limit: int) -> Page[Incident, Position]:
    """Open incidents first, the newest first among them and among the others. Raises CursorUnknown."""
    async with db.planned_anew() as connection:
        return await read_page(
            "after",
            after,
            limit,
            exists=lambda position: sql.incidents.is_incident(connection, id=position.id),
            read=lambda position, rows_max: sql.incidents.page(
                connection,
                is_open=wanted.is_open,
                kind=wanted.kind,
                kinds=wanted.kinds,
                org=wanted.org,
                is_acknowledged=wanted.is_acknowledged,
                after_open=None if position is None else position.was_open,
                after_id=None if position is None else position.id,
                limit_rows=rows_max,
            ),
            cursor_of=lambda incident: Position(incident.closed_at is None, incident.id),
        )

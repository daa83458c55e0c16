"""What an organization's entitlement was, is and will be: one entry for each time at which it became another."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control import sql
from control.cursors import Page
from control.db import Connection
from control.entitlements.derive import Terms
from control.entitlements.stored_state import load_state


@dataclass(frozen=True, slots=True)
class Entry:
    at: datetime
    until: datetime | None
    """None: until further notice."""
    terms: Terms | None
    """None: nothing was in force."""


async def history(connection: Connection, org: str, before: datetime | None, limit: int) -> Page[Entry, datetime]:
    """The newest first, those that are scheduled before all others."""
    moments: Sequence[datetime] = await sql.directory.moments(connection, org=org, before=before, limit_rows=limit + 1)
    entries: list[Entry] = []
    until = before
    for at in moments[:limit]:
        state = await load_state(connection, org, at.timestamp())
        entries.append(Entry(at, until, state.terms if state else None))
        until = at
    return Page(entries, moments[limit - 1] if len(moments) > limit else None)

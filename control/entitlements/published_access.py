"""What is published of an organization's API keys and marks: rows of Postgres as Redis has them."""

from datetime import datetime
from typing import Final

from control import sql
from control.db import Database
from control.entitlements.rates import rate_of
from quota.access import AccessChanges, KeyRecord, KeyState, Mark, MarkKind, Quota

PAGE: Final = 5_000
_STATES: Final = {"active": KeyState.ACTIVE, "disabled": KeyState.DISABLED, "revoked": KeyState.REVOKED}


async def load(db: Database, org: str, since: int | None) -> AccessChanges:
    """What has changed since that version; None: all of it.

    It is read after the version that it is published with, so it is of that version or newer. What is newer comes once
    more with its own version, and harms nobody before: a gateway that reads it compares the version with the next take.
    """
    records: dict[bytes, KeyRecord] = {}
    dropped: dict[bytes, str] = {}
    after = 0
    async with db.snapshot() as connection:
        while True:
            rows = await sql.keys.published(connection, org=org, since=since or 0, after=after, limit_rows=PAGE)
            for row in rows:
                if row.is_dropped:
                    dropped[row.digest] = row.id
                else:
                    records[row.digest] = record_of_key(row)
            if len(rows) < PAGE:
                break
            after = rows[-1].number
        marks = await sql.revocations.published(connection, org=org, since=since or 0)
    return AccessChanges(
        since=since,
        records=records,
        marks={
            Mark(MarkKind(mark.kind), mark.subject): _seconds(mark.issued_until) for mark in marks if not mark.is_lifted
        },
        dropped=frozenset(dropped),
        lifted=frozenset(Mark(MarkKind(mark.kind), mark.subject) for mark in marks if mark.is_lifted),
        gone=frozenset(dropped.values()),
    )


def record_of_key(row: sql.keys.Published | sql.keys.Key) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        state=_STATES[row.state],
        expires_s=_seconds(row.expires_at),
        environment=row.environment,
        user=row.user_id,
        scopes=tuple(row.scopes),
        networks=tuple(row.networks),
        quotas=tuple(Quota(*quota) for quota in row.quotas),
        rate=rate_of(row.rate_requests, row.rate_seconds, row.rate_burst),
    )


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())

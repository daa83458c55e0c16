"""Grants in Postgres: extra units with an expiry. Each change is journaled, and the organization is published again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from control import journal, sql
from control.cursors import Page, read_page
from control.db import Connection, Transactions
from control.entitlements.stored_state import check_meters
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.grants import Grant, UsedGrant

LIVE_MAX = 50  # of one organization: each lengthens what its takes read, and Redis has a budget for a take


class IdempotencyConflict(Exception):
    """The key was used for another grant."""


class TooManyGrants(Exception):
    """The organization has as many grants as it can."""


@dataclass(frozen=True, slots=True)
class NewGrant:
    meter: str
    units: int
    expires_at: datetime
    reason: str


async def create(
    db: Transactions, org: str, new: NewGrant, idempotency_key: str | None, now: float, author: Author
) -> tuple[Grant, bool]:
    """Creates a grant; returns it, and whether it is new. A key that was used before returns the grant that it created.

    Raises OrganizationUnknown, IdempotencyConflict, TooManyGrants, MeterUnknown."""
    async with db.transaction() as connection:
        await _lock(connection, org)
        if idempotency_key is not None:
            earlier = await sql.grants.by_idempotency_key(connection, org=org, idempotency_key=idempotency_key)
            if earlier is not None:
                if NewGrant(earlier.meter, earlier.units, earlier.expires_at, earlier.reason) != new:
                    raise IdempotencyConflict(idempotency_key)
                return earlier, False
        await check_meters(connection, [new.meter])
        if await sql.grants.live(connection, org=org, at=moment(now)) >= LIVE_MAX:
            raise TooManyGrants(f"An organization has at most {LIVE_MAX} grants at a time.")
        created = await sql.grants.insert(
            connection,
            id=uuid7(),
            org=org,
            meter=new.meter,
            units=new.units,
            expires_at=new.expires_at,
            reason=new.reason,
            idempotency_key=idempotency_key,
            created_at=moment(now),
        )
        await sql.entitlements.bump_publication(connection, org=org)
        change = Change("grant.created", org, None, _content(created))
        await journal.record(connection, author, now, [change])
    return created, True


async def revoke(db: Transactions, org: str, grant_id: UUID, now: float, author: Author) -> bool:
    """Voids what is left of a grant; False where the organization has no such grant. A second time changes nothing.

    Raises OrganizationUnknown."""
    async with db.transaction() as connection:
        await _lock(connection, org)
        revoked = await sql.grants.revoke(connection, org=org, id=grant_id, at=moment(now))
        if revoked is None:
            return await sql.grants.find(connection, org=org, id=grant_id) is not None
        await sql.entitlements.bump_publication(connection, org=org)
        change = Change("grant.revoked", org, _content(revoked), None)
        await journal.record(connection, author, now, [change])
    return True


async def page(db: Transactions, org: str, before: UUID | None, limit: int) -> Page[UsedGrant, UUID]:
    """An organization's grants with what Postgres has counted of each, the newest first.

    Raises OrganizationUnknown, CursorUnknown."""
    async with db.connection() as connection:
        if await sql.organizations.find(connection, org=org) is None:
            raise OrganizationUnknown(org)
        return await read_page(
            "before",
            before,
            limit,
            exists=lambda grant: sql.grants.find(connection, org=org, id=grant),
            read=lambda grant, rows_max: sql.grants.of_organization(
                connection, org=org, before=grant, limit_rows=rows_max
            ),
            cursor_of=lambda grant: grant.id,
        )


async def _lock(connection: Connection, org: str) -> None:
    if await sql.organizations.lock(connection, org=org) is None:
        raise OrganizationUnknown(org)


def _content(grant: Grant) -> dict[str, Any]:
    return {
        "id": str(grant.id),
        "meter": grant.meter,
        "units": grant.units,
        "expires_at": grant.expires_at.isoformat(),
        "reason": grant.reason,
    }

"""Organizations in Postgres."""

from typing import Any

from control import journal
from control.cursors import CursorUnknown
from control.db import Database, statements
from control.journal import Author, Change
from control.moments import moment


class OrganizationUnknown(Exception):
    """No organization has this id."""


async def put(db: Database, org: str, name: str, now: float, author: Author) -> tuple[dict[str, Any], bool]:
    """Creates or renames the organization; what it is then, and whether it is new. The same name changes nothing."""
    sql = statements("organizations")
    async with db.transaction() as connection:
        created = await sql.insert(connection, id=org, name=name, created_at=moment(now)) is not None
        found = await sql.lock(connection, org=org)
        if created:
            await journal.record(connection, author, now, [Change("organization.created", org, None, {"name": name})])
        elif found["name"] != name:
            await sql.rename(connection, id=org, name=name)
            change = Change("organization.renamed", org, {"name": found["name"]}, {"name": name})
            await journal.record(connection, author, now, [change])
        return {**found, "name": name}, created


async def find(db: Database, org: str) -> dict[str, Any]:
    """Raises OrganizationUnknown."""
    async with db.connection() as connection:
        found = await statements("organizations").find(connection, org=org)
    if found is None:
        raise OrganizationUnknown(org)
    return dict(found)


async def page(db: Database, after: str | None, limit: int) -> list[dict[str, Any]]:
    """In the order of their ids, beginning after `after`. Raises CursorUnknown."""
    sql = statements("organizations")
    async with db.connection() as connection:
        if after is not None and await sql.find(connection, org=after) is None:
            raise CursorUnknown("after")
        rows = sql.page(connection, after=after, limit_rows=limit)
        return [dict(row) async for row in rows]

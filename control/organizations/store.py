"""Organizations in Postgres."""

from dataclasses import replace

from control import journal, sql
from control.cursors import CursorUnknown
from control.db import Database
from control.journal import Author, Change
from control.moments import moment
from control.sql.organizations import Organization


class OrganizationUnknown(Exception):
    """No organization has this id."""


async def put(db: Database, org: str, name: str, now: float, author: Author) -> tuple[Organization, bool]:
    """Creates or renames the organization; what it is then, and whether it is new. The same name changes nothing."""
    async with db.transaction() as connection:
        created = await sql.organizations.insert(connection, id=org, name=name, created_at=moment(now)) is not None
        found = await sql.organizations.lock(connection, org=org)
        if found is None:
            raise OrganizationUnknown(org)  # nothing deletes one
        if created:
            await journal.record(connection, author, now, [Change("organization.created", org, None, {"name": name})])
        elif found.name != name:
            await sql.organizations.rename(connection, id=org, name=name)
            change = Change("organization.renamed", org, {"name": found.name}, {"name": name})
            await journal.record(connection, author, now, [change])
        return replace(found, name=name), created


async def find(db: Database, org: str) -> Organization:
    """Raises OrganizationUnknown."""
    async with db.connection() as connection:
        found = await sql.organizations.find(connection, org=org)
    if found is None:
        raise OrganizationUnknown(org)
    return found


async def page(db: Database, after: str | None, limit: int) -> list[Organization]:
    """In the order of their ids, beginning after `after`. Raises CursorUnknown."""
    async with db.connection() as connection:
        if after is not None and await sql.organizations.find(connection, org=after) is None:
            raise CursorUnknown("after")
        return await sql.organizations.page(connection, after=after, limit_rows=limit)

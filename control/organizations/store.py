"""Organizations in Postgres."""

from dataclasses import replace

from control import journal, sql
from control.db import Database
from control.journal import Author, Change
from control.moments import moment
from control.sql.organizations import Organization


class OrganizationUnknown(Exception):
    """No organization has this id, or it was deleted."""


class OrganizationDeleted(Exception):
    """The organization was deleted: its id is taken, until it is restored."""


class OrganizationMirrored(Exception):
    """The organization follows the identity provider: there it can be changed."""


async def put(db: Database, org: str, name: str, now: float, author: Author) -> tuple[Organization, bool]:
    """Creates or renames the organization; what it is then, and whether it is new. The same name changes nothing.

    Raises OrganizationDeleted, OrganizationMirrored."""
    async with db.transaction() as connection:
        created = await sql.organizations.insert(connection, id=org, name=name, created_at=moment(now)) is not None
        organization = await sql.organizations.lock(connection, org=org)
        if organization is None:
            raise OrganizationDeleted(org)
        if created:
            await journal.record(connection, author, now, [Change("organization.created", org, None, {"name": name})])
        elif organization.name != name:
            if organization.mirrored:
                raise OrganizationMirrored(org)
            await sql.organizations.rename(connection, id=org, name=name)
            change = Change("organization.renamed", org, {"name": organization.name}, {"name": name})
            await journal.record(connection, author, now, [change])
        return replace(organization, name=name), created


async def find(db: Database, org: str) -> Organization:
    """Raises OrganizationUnknown."""
    async with db.connection() as connection:
        organization = await sql.organizations.find(connection, org=org)
    if organization is None:
        raise OrganizationUnknown(org)
    return organization


async def find_any(db: Database, org: str) -> Organization:
    """Also a deleted one. Raises OrganizationUnknown."""
    async with db.connection() as connection:
        organization = await sql.organizations.find_any(connection, org=org)
    if organization is None:
        raise OrganizationUnknown(org)
    return organization


async def refuse_deleted(db: Database, org: str) -> None:
    """An organization need not exist yet. Raises OrganizationDeleted."""
    async with db.connection() as connection:
        organization = await sql.organizations.find_any(connection, org=org)
    if organization is not None and organization.deleted_at is not None:
        raise OrganizationDeleted(org)

"""The end of an organization, and its return."""

from control import journal, sql
from control.access.people import access_ends
from control.db import Connection, Database
from control.entitlements import changes
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.organizations import Organization


async def delete(db: Database, org: str, now: float, author: Author) -> bool:
    """Ends the organization's entitlement, and has its tokens and keys refused once the caller has published it; False
    where it was deleted already. What it used and paid stays.

    Raises OrganizationUnknown, BilledBySubscription."""
    async with db.connection() as connection:
        known = await sql.organizations.find_any(connection, org=org)
    if known is None:
        raise OrganizationUnknown(org)
    if known.deleted_at is not None:
        return False
    await changes.end_entitlement(db, org, None, now, author)
    async with db.transaction() as connection:
        if await sql.organizations.lock(connection, org=org) is None:
            return False
        await mark_deleted(connection, org, now, author)
        await sql.organizations.set_mirrored(connection, id=org, mirrored=False)  # else the mirror would restore it
    return True


async def mark_deleted(connection: Connection, org: str, now: float, author: Author) -> None:
    """In a caller's transaction, which holds the organization."""
    await access_ends.of_organization(connection, org, now, author)  # first: a deleted one takes no mark
    await sql.organizations.set_deleted(connection, id=org, deleted_at=moment(now))
    await journal.record(connection, author, now, [Change("organization.deleted", org, None, None)])


async def restore(db: Database, org: str, now: float, author: Author) -> tuple[Organization, bool]:
    """The organization takes tokens and keys again; False where it was not deleted. It has no entitlement.

    Raises OrganizationUnknown."""
    async with db.transaction() as connection:
        locked = await sql.organizations.lock_any(connection, org=org)
        if locked is None:
            raise OrganizationUnknown(org)
        if locked.deleted_at is None:
            return locked, False
        await unmark_deleted(connection, org, now, author)
        found = await sql.organizations.find(connection, org=org)
        assert found is not None  # noqa: S101  it was written in this transaction
        return found, True


async def unmark_deleted(connection: Connection, org: str, now: float, author: Author) -> None:
    await sql.organizations.set_deleted(connection, id=org, deleted_at=None)
    await access_ends.lift_organization(connection, org, now, author)
    await journal.record(connection, author, now, [Change("organization.restored", org, None, None)])

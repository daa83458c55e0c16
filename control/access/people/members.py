"""Members: who belongs to an organization, and as what. An organization that has owners keeps one."""

from collections.abc import Sequence
from dataclasses import dataclass

from control import journal, sql
from control.access.people import access_ends
from control.access.permissions import OrganizationRole
from control.cursors import Page, read_page
from control.db import Connection, Database
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationMirrored, OrganizationUnknown
from control.sql.people import Membership

OWNER = OrganizationRole.OWNER


class MemberUnknown(Exception):
    """The organization has no such member."""


class LastOwner(Exception):
    """The organization would have no owner any more."""


class OwnersOnly(Exception):
    """Only who may change owners may do this."""


@dataclass(frozen=True, slots=True)
class RoleSet:
    member: Membership
    created: bool
    publish: bool
    """Whether the organization must be published: the person was refused before."""


async def set_role(
    db: Database, org: str, user: str, role: OrganizationRole, now: float, author: Author, *, may_own: bool
) -> RoleSet:
    """Makes a person a member, or gives a member another role. A person that nobody knows is created: whether other
    organizations know it is not told.

    `may_own`: whether the caller may make and unmake owners. Raises OrganizationUnknown, OrganizationMirrored,
    OwnersOnly, LastOwner."""
    async with db.transaction() as connection:
        await _lock(connection, org)
        before = await sql.people.role_of(connection, org=org, user_id=user)
        if OWNER.value in (before, role.value) and before != role.value:
            if not may_own:
                raise OwnersOnly
            if before == OWNER.value and await sql.people.owners(connection, org=org) == 1:
                raise LastOwner(org)
        lifted = await put(connection, org, user, role, before, now, author, mirrored=False)
        member = await sql.people.membership(connection, org=org, user_id=user)
        assert member is not None  # noqa: S101  it was written in this transaction
        return RoleSet(member, before is None, lifted)


async def put(
    connection: Connection,
    org: str,
    user: str,
    role: OrganizationRole,
    before: str | None,
    now: float,
    author: Author,
    *,
    mirrored: bool,
) -> bool:
    """In a caller's transaction, which holds the organization; whether the organization must be published."""
    if before == role.value:
        return False
    if await sql.people.insert_user(connection, id=user, mirrored=mirrored, at=moment(now)) is None:
        known = await sql.people.lock_user(connection, id=user)
        if known is not None and known.deleted_at is not None:  # who was deleted comes back as a stranger
            await sql.people.set_user(connection, id=user, email=None, name=None, mirrored=mirrored)
    await sql.people.set_member(connection, org=org, user_id=user, role=role.value, at=moment(now))
    content = {"user": user, "role": role.value}
    old = None if before is None else {"user": user, "role": before}
    await journal.record(
        connection, author, now, [Change("member.added" if before is None else "member.role", org, old, content)]
    )
    return before is None and await access_ends.lift_user(connection, org, user, now, author)


async def end_membership(db: Database, org: str, user: str, now: float, author: Author, *, may_own: bool) -> None:
    """The person's tokens and keys of this organization are refused, once the caller has published it.

    Raises OrganizationUnknown, OrganizationMirrored, MemberUnknown, OwnersOnly, LastOwner."""
    async with db.transaction() as connection:
        await _lock(connection, org)
        member = await sql.people.membership(connection, org=org, user_id=user)
        if member is None:
            raise MemberUnknown(user)
        if member.role == OWNER.value:
            if not may_own:
                raise OwnersOnly
            if await sql.people.owners(connection, org=org) == 1:
                raise LastOwner(org)
        await remove(connection, member, now, author)
        await access_ends.of_user(connection, org, user, now, author, for_good=True)


async def remove(connection: Connection, member: Membership, now: float, author: Author) -> None:
    """In a caller's transaction, which holds the organization, and ends the person's access."""
    await sql.people.remove_member(connection, org=member.org, user_id=member.user_id)
    before = {"user": member.user_id, "role": member.role}
    await journal.record(connection, author, now, [Change("member.removed", member.org, before, None)])


async def page(db: Database, org: str, after: str | None, limit: int) -> Page[Membership, str]:
    """In the order of the users' ids. Raises CursorUnknown."""
    async with db.connection() as connection:
        return await read_page(
            "after",
            after,
            limit,
            exists=lambda user: sql.people.role_of(connection, org=org, user_id=user),
            read=lambda user, rows_max: sql.people.members(connection, org=org, after=user, limit_rows=rows_max),
            cursor_of=lambda member: member.user_id,
        )


async def role_of(db: Database, org: str, user: str) -> OrganizationRole | None:
    async with db.connection() as connection:
        role = await sql.people.role_of(connection, org=org, user_id=user)
    return None if role is None else OrganizationRole(role)


def role_claimed(roles: Sequence[str] | frozenset[str]) -> OrganizationRole | None:
    """The highest of the roles that a token names, by the same words; Clerk writes `org:admin`."""
    named = {role.removeprefix("org:") for role in roles}
    return next((role for role in reversed(OrganizationRole) if role.value in named), None)


async def _lock(connection: Connection, org: str) -> None:
    locked = await sql.organizations.lock(connection, org=org)
    if locked is None:
        raise OrganizationUnknown(org)
    if locked.mirrored:
        raise OrganizationMirrored(org)

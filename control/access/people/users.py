"""Users: people that tokens name. The id is what the user claim of tokens says."""

from collections.abc import Sequence

from control import journal, sql
from control.access.people import access_ends
from control.access.people.members import LastOwner, remove
from control.cursors import Page, read_page
from control.db import Connection, Database, Transactions
from control.journal import Author, Change
from control.moments import moment
from control.sql.people import Membership, User


class UserUnknown(Exception):
    """There is no such user, or it was deleted."""


class UserMirrored(Exception):
    """The user follows the identity provider: there it can be changed."""


async def put(
    db: Database, id_: str, email: str | None, name: str | None, now: float, author: Author
) -> tuple[User, bool]:
    """Creates a user, or changes what is known of it; what it is then, and whether it is new. Raises UserMirrored."""
    async with db.transaction() as connection:
        inserted = await sql.people.insert_user(connection, id=id_, mirrored=False, at=moment(now)) is not None
        before = await locked(connection, id_)
        if before.mirrored and before.deleted_at is None:
            raise UserMirrored(id_)
        created = inserted or before.deleted_at is not None
        if created or (before.email, before.name) != (email, name):
            await sql.people.set_user(connection, id=id_, email=email, name=name, mirrored=False)
            change = Change("user.created" if created else "user.changed", None, None, {"user": id_})
            await journal.record(connection, author, now, [change])
        return await locked(connection, id_), created


async def locked(connection: Connection, id_: str) -> User:
    user = await sql.people.lock_user(connection, id=id_)
    if user is None:
        raise UserUnknown(id_)
    return user


async def find(db: Database, id_: str) -> tuple[User, Sequence[Membership]]:
    """With the organizations. Raises UserUnknown."""
    async with db.snapshot() as connection:
        user = await sql.people.user(connection, id=id_)
        if user is None or user.deleted_at is not None:
            raise UserUnknown(id_)
        return user, await sql.people.memberships_of(connection, user_id=id_)


async def page(db: Database, after: str | None, limit: int) -> Page[User, str]:
    """In the order of their ids. Raises CursorUnknown."""
    async with db.connection() as connection:
        return await read_page(
            "after",
            after,
            limit,
            exists=lambda id_: sql.people.user(connection, id=id_),
            read=lambda id_, rows_max: sql.people.users_page(connection, after=id_, limit_rows=rows_max),
            cursor_of=lambda user: user.id,
        )


async def delete(db: Transactions, id_: str, now: float, author: Author, *, mirrored: bool = False) -> Sequence[str]:
    """Deletes a user, whose tokens and keys are refused from then on; returns the organizations to be published.

    `mirrored`: the identity provider says so, which gives out no more tokens, and is not asked about last owners.
    Raises UserUnknown, UserMirrored, LastOwner."""
    while True:
        async with db.connection() as connection:
            orgs = await _organizations(connection, id_)
        async with db.transaction() as connection:
            for org in orgs:  # always in this order, so that two do not wait for each other
                await sql.organizations.lock_any(connection, org=org)
            user = await locked(connection, id_)
            if user.deleted_at is not None:
                raise UserUnknown(id_)
            if user.mirrored and not mirrored:
                raise UserMirrored(id_)
            if await _organizations(connection, id_) != orgs:
                continue  # it became a member of another one meanwhile
            for member in await sql.people.memberships_of(connection, user_id=id_):
                if not mirrored and await is_last_owner(connection, member):
                    raise LastOwner(member.org)
                await remove(connection, member, now, author)
            for org in orgs:
                await access_ends.of_user(connection, org, id_, now, author, for_good=not mirrored)
            await sql.people.delete_user(connection, id=id_, at=moment(now))
            await journal.record(connection, author, now, [Change("user.deleted", None, {"user": id_}, None)])
            return orgs


async def is_last_owner(connection: Connection, member: Membership) -> bool:
    return member.role == "owner" and await sql.people.owners(connection, org=member.org) == 1


async def _organizations(connection: Connection, user: str) -> Sequence[str]:
    """Those that know the user: as a member, or by a key."""
    return await sql.people.organizations_of(connection, user_id=user)

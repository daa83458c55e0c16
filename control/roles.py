"""The application role: what the control plane may do in its database, and above all what it may not.

`quotagate migrate`, as the owner of the tables, gives the role its rights again each time. A new table is writable for
the role unless it is named here.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from control import sql
from control.db import Connection, Database, RightsMissing
from control.sql.roles import Hardening

APPLICATION_ROLE: Final = "quotagate_app"

APPEND_ONLY: Final = ("audit_journal", "ledger_epoch", "plan_meter", "plan_price", "usage_event")
"""Rows are added, and never changed or deleted."""
READ_ONLY: Final = ("alembic_version", "audit_seal", "audit_unsealed", "usage_archive", "usage_archived_sum")
"""Written by the owner, and by functions that act with the owner's rights."""


@dataclass(frozen=True, slots=True)
class RoleRights:
    """What a role could do to what must stay."""

    role: str
    superuser: bool
    may_change: tuple[str, ...]
    """The protected tables that it could change or empty."""

    def __str__(self) -> str:
        if not self.may_change:
            return f"{self.role} can change neither journal nor events"
        what = "is a superuser" if self.superuser else "can change " + ", ".join(self.may_change)
        return f"{self.role} {what}; let the control plane log in as a member of {APPLICATION_ROLE}"


async def grant(connection: Connection, role: str) -> None:
    """Makes the role where it is missing, and gives it its rights. Raises RightsMissing."""
    me = await sql.roles.me(connection)
    if me.role == role or not me.owns:
        raise RightsMissing(f"{me.role} is not the owner of the tables, or is the application's role itself")
    if not await sql.roles.role_exists(connection, role=role):
        create = await sql.roles.create_role(connection, role=role)
        if not me.makes_roles:
            raise RightsMissing(f"{me.role} may not make the role that is needed; let an administrator run: {create};")
        await connection.execute(create)
    rights = await sql.roles.rights(connection, role=role, append_only=list(APPEND_ONLY), read_only=list(READ_ONLY))
    for statement in list(rights):
        await connection.execute(statement)


async def rights_of(db: Database) -> RoleRights:
    """Of the role that `db` is connected as. Raises StoreUnavailable."""
    async with db.connection() as connection:
        row = await sql.roles.standing(connection, protected=[*APPEND_ONLY, *READ_ONLY])
    return RoleRights(row.role, row.superuser, tuple(row.may_change))


def ask(dsn: str) -> tuple[RoleRights, Hardening]:
    """`rights_of`, and what else an attacker would look for, for the command line, with an event loop of its own.
    Raises StoreUnavailable, RightsMissing."""

    async def do() -> tuple[RoleRights, Hardening]:
        async with Database.open(dsn, connections_max=1) as db:
            await db.check_schema()
            async with db.connection() as connection:
                hardening = await sql.roles.hardening(connection)
            return await rights_of(db), hardening

    return asyncio.run(do())

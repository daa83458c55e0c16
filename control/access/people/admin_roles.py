"""Who of the vendor has which admin role: by the identity provider's subject, or by an e-mail address.

An address counts only where the provider says that it has verified it: whoever signs in decides what he claims to be
called.
"""

from collections.abc import Sequence
from enum import Enum

from control import journal, sql
from control.access.permissions import AdminRole
from control.db import Connection, Database
from control.journal import Author, Change
from control.moments import moment
from control.sql.people import AdminAssignment


class SubjectKind(Enum):
    SUBJECT = "subject"
    EMAIL = "email"


def normalized(kind: SubjectKind, subject: str) -> str:
    return subject.lower() if kind is SubjectKind.EMAIL else subject


async def assign(
    db: Database, kind: SubjectKind, subject: str, role: AdminRole, now: float, author: Author
) -> tuple[AdminAssignment, bool]:
    """The assignment, and whether it is new."""
    subject = normalized(kind, subject)
    async with db.transaction() as connection:
        before = await sql.people.admin_role(connection, kind=kind.value, subject=subject)
        if before is not None and before.role == role.value:
            return before, False
        await sql.people.set_admin_role(
            connection, kind=kind.value, subject=subject, role=role.value, at=moment(now), by=author.actor
        )
        stored = await sql.people.admin_role(connection, kind=kind.value, subject=subject)
        assert stored is not None  # noqa: S101  it was written in this transaction
        change = Change("admin_role.set", None, _content(before), _content(stored))
        await journal.record(connection, author, now, [change])
        return stored, before is None


async def withdraw(db: Database, kind: SubjectKind, subject: str, now: float, author: Author) -> bool:
    """False where there is none."""
    subject = normalized(kind, subject)
    async with db.transaction() as connection:
        before = await sql.people.admin_role(connection, kind=kind.value, subject=subject)
        if before is None:
            return False
        await sql.people.remove_admin_role(connection, kind=kind.value, subject=subject)
        await journal.record(connection, author, now, [Change("admin_role.withdrawn", None, _content(before), None)])
        return True


async def all_of(db: Database) -> Sequence[AdminAssignment]:
    async with db.connection() as connection:
        return await sql.people.admin_roles(connection)


async def role_of(connection: Connection, subject: str, verified_email: str | None) -> AdminRole | None:
    """Who signed in as `subject`. One that is assigned by subject is that one, whatever the address says."""
    found = await sql.people.admin_role(connection, kind=SubjectKind.SUBJECT.value, subject=subject)
    if found is None and verified_email is not None:
        email = normalized(SubjectKind.EMAIL, verified_email)
        found = await sql.people.admin_role(connection, kind=SubjectKind.EMAIL.value, subject=email)
    return None if found is None else AdminRole(found.role)


def _content(row: AdminAssignment | None) -> dict[str, str] | None:
    return None if row is None else {"kind": row.kind, "subject": row.subject, "role": row.role}

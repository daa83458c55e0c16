"""Whether somebody whom the vendor's identity provider names comes into an organization's portal, and as what."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

from control import sql
from control.access.permissions import OrganizationRole
from control.access.portal.identified import Identified
from control.access.portal.sessions import PROVIDER, Customer
from control.db import Database


class Reason(Enum):
    """Why somebody is not admitted."""

    NO_ORGANIZATION = "no_organization"
    """The claim names none, or none that there is."""
    NO_USER = "no_user"
    NO_MEMBER = "no_member"
    """The organization's members are known here, and this is none."""
    NO_ROLE = "no_role"
    REVOKED = "revoked"


class NotAdmitted(Exception):
    """The message is for the log."""

    def __init__(self, reason: Reason, person: Identified) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.person = person


async def organizations_of(db: Database, person: Identified) -> Sequence[str]:
    """Those that the provider names and that there are. Raises NotAdmitted where there is none."""
    async with db.connection() as connection:
        found = await sql.portal.existing(connection, orgs=person.organizations) if person.organizations else []
    if not found:
        raise NotAdmitted(Reason.NO_ORGANIZATION, person)
    return found


async def admit(db: Database, person: Identified, org: str, at: datetime) -> Customer:
    """`at`: when the provider identified the person. Raises NotAdmitted."""
    if person.user is None:
        raise NotAdmitted(Reason.NO_USER, person)
    async with db.connection() as connection:
        standing = await sql.portal.standing(connection, org=org, user_id=person.user, issued_at=at)
    if standing is None:
        raise NotAdmitted(Reason.NO_ORGANIZATION, person)
    if standing.is_revoked:
        raise NotAdmitted(Reason.REVOKED, person)
    if standing.members_known and standing.role is None:
        raise NotAdmitted(Reason.NO_MEMBER, person)
    role = person.role if standing.role is None else OrganizationRole(standing.role)
    if role is None:
        raise NotAdmitted(Reason.NO_ROLE, person)
    return Customer(org, person.user, role, f"{PROVIDER}{person.subject}", at)

"""Shadow mode of an organization: what would be refused is decided and recorded, and the request goes on uncharged."""

from control import journal, sql
from control.db import Transactions
from control.journal import Action, Author, Change
from control.organizations.store import OrganizationUnknown


async def set_shadow(db: Transactions, org: str, shadow: bool, reason: str, now: float, author: Author) -> bool:
    """Begins shadow mode, or ends it; False where it is so already. It is part of what is published, so it is in force
    with the version that is drawn here. Raises OrganizationUnknown."""
    async with db.transaction() as connection:
        locked = await sql.organizations.lock(connection, org=org)
        if locked is None:
            raise OrganizationUnknown(org)
        if locked.shadow == shadow:
            return False
        await sql.organizations.set_shadow(connection, id=org, shadow=shadow)
        await sql.keys.draw_version(connection, org=org)
        action: Action = "organization.shadow_begun" if shadow else "organization.shadow_ended"
        change = Change(action, org, {"shadow": not shadow}, {"shadow": shadow, "reason": reason})
        await journal.record(connection, author, now, [change])
    return True

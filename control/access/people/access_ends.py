"""What refuses the tokens and keys of a person or an organization whose access ends, and what lets them in again.

Each is part of a caller's transaction; the caller publishes the organization after its commit.
"""

from typing import Final

from control.access import revocations
from control.db import Connection
from control.journal import Author
from control.moments import moment
from quota.access import MarkKind

SKEW_SECONDS: Final = 10.0  # by which an issuer's clock may be ahead; who comes back has the mark lifted


async def of_user(connection: Connection, org: str, user: str, now: float, author: Author, *, for_good: bool) -> None:
    """The user's keys in this organization are revoked, and tokens refused: those that were issued until now; with
    `for_good`, whoever issues them, until `lift_user`."""
    until = moment(now + SKEW_SECONDS)
    await revocations.set_mark(connection, org, MarkKind.USER, user, now, author, issued_until=until)
    if for_good:
        await revocations.set_mark(connection, org, MarkKind.USER, user, now, author)


async def lift_user(connection: Connection, org: str, user: str, now: float, author: Author) -> bool:
    """Whether there was anything to lift."""
    return await revocations.lift_mark(connection, org, MarkKind.USER, user, now, author)


async def of_organization(connection: Connection, org: str, now: float, author: Author) -> None:
    """All tokens and keys of the organization are refused, until `lift_organization`."""
    await revocations.set_mark(connection, org, MarkKind.ORGANIZATION, "", now, author)


async def lift_organization(connection: Connection, org: str, now: float, author: Author) -> bool:
    return await revocations.lift_mark(connection, org, MarkKind.ORGANIZATION, "", now, author)

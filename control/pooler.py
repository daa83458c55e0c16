"""A pooler between us and PostgreSQL, such as PgBouncer: whether there is one, and whether it keeps sessions.

One that pools transactions gives each transaction a server connection of its own: what belongs to a session, such as a
lock or a prepared statement, is then somebody else's (docs/decisions/0056).
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from control import sql

LOOKS: Final = 3  # another client may have taken the server connection meanwhile

Open = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens another connection to the same address."""


async def is_between(connection: Any) -> bool:
    """Whether the connection ends at a pooler: who answered it is not the server process that works for it."""
    return bool(connection.get_server_pid() != await sql.health.backend(connection))


async def keeps_sessions(connection: Any, another: Open) -> bool:
    """Whether the connection, which is in no transaction, has a server process that nobody else is given."""
    mine = await sql.health.backend(connection)
    if mine == connection.get_server_pid():
        return True
    for _ in range(LOOKS):
        # In a transaction, which no pooler lets others into.
        async with another() as other, other.transaction():
            if await sql.health.backend(other) == mine:
                return False
        if await sql.health.backend(connection) != mine:
            return False
    return True

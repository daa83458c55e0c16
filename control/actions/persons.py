"""Who is behind the name of an actor: a second person must be another one."""

from typing import Final

from control import sql
from control.db import Connection

LINK: Final = "person:link:"
SERVICE: Final = "service:"
STEPS_MAX: Final = 20


async def person_behind(connection: Connection, actor: str) -> str:
    """Whoever signed in by a one-time link counts as who made the link, and a service token as who made that: a person
    who could make one could approve their own requests by it."""
    for _ in range(STEPS_MAX):
        if actor.startswith(LINK):
            actor = actor.removeprefix(LINK)
        elif actor.startswith(SERVICE):
            maker = await sql.actions.maker_of_token(connection, name=actor.removeprefix(SERVICE))
            if maker is None:
                return actor
            actor = maker
        else:
            return actor
    return actor

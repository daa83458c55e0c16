"""The journal as a test writes, changes and verifies it."""

from typing import Any

from control import journal
from control.audit.chain import ChainBroken
from control.audit.verify import ChainVerdict, Head, verify
from control.http.context import Context
from control.journal import Author, Change
from devstack import postgres

AUTHOR = Author("tests", "tests")
PATIENT = {"unsealed_seconds": 3600.0}


def change(action: Any, org: str | None, before: Any, after: Any) -> Change:
    """Of an action that only tests know."""
    return Change(action, org, before, after)


async def written(context: Context, count: int, action: str = "tests.done") -> None:
    for n in range(count):
        async with context.db.transaction() as connection:
            before = None if n % 2 else {"ü": [1.50, None, "\U0001f600"], "a": 10**20}
            await journal.record(
                connection, AUTHOR, context.clock(), [change(action, f"org{n}" if n % 3 else None, before, {"n": n})]
            )


async def fetched(context: Context, sql: str) -> Any:
    async with context.db.connection() as connection:
        return await connection.fetch(sql)


def superuser(dsn: str, sql: str) -> str:
    """With every trigger off: what only somebody who owns the database can do."""
    return postgres.execute(dsn, f"SET session_replication_role = replica; {sql}")


async def verified(context: Context, start: int = 1, expected: tuple[Head, ...] = (), **seconds: float) -> ChainVerdict:
    async with context.db.snapshot() as connection:
        return await verify(connection, start, expected, **(PATIENT | seconds))


async def broken(context: Context, start: int = 1, *expected: Head, **seconds: float) -> ChainBroken:
    first = (await verified(context, start, expected, **seconds)).broken
    assert first is not None
    return first

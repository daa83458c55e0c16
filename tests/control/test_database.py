"""What the control plane keeps of its connections to PostgreSQL."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest

from control import db
from control.db import Database, StoreUnavailable

AT_ONCE = 5
DEADLINE_SECONDS = 60.0
OWN = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'quotagate'"


async def test_connections_that_nobody_uses_after_a_rush_are_closed_but_one(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "UNUSED_SECONDS", 0.2)
    watch = await asyncpg.connect(postgres_dsn)
    try:
        async with Database.open(postgres_dsn) as database:
            async with AsyncExitStack() as rush:
                for _ in range(AT_ONCE):
                    await rush.enter_async_context(database.connection())
                assert await watch.fetchval(OWN) == AT_ONCE
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await watch.fetchval(OWN) > 1:  # noqa: ASYNC110 - a server rings no bell
                    await asyncio.sleep(0.02)
            await database.ping()
    finally:
        await watch.close()


async def test_who_loses_in_a_deadlock_is_told_to_ask_again(postgres_dsn: str) -> None:
    both_hold = asyncio.Barrier(2)

    async def change(first: int, second: int) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", first)
            await both_hold.wait()
            await connection.execute("SELECT pg_advisory_xact_lock($1)", second)

    async with Database.open(postgres_dsn) as database:
        outcomes = await asyncio.gather(change(1, 2), change(2, 1), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), StoreUnavailable}


async def test_whoever_gives_up_at_any_moment_leaves_a_connection_on_which_the_next_one_begins_anew(
    postgres_dsn: str,
) -> None:
    async def read(number: int) -> None:
        async with database.connection() as connection:
            await connection.fetchval(f"SELECT {number} FROM plan LIMIT 1")  # another one each time: it is prepared

    async with Database.open(postgres_dsn, connections_max=1) as database:
        for number in range(600):
            reading = asyncio.create_task(read(number))
            for _ in range(number % 30):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            async with database.snapshot() as connection:
                assert await connection.fetchval("SELECT 1") == 1


async def test_a_value_that_cannot_be_sent_leaves_a_connection_on_which_the_next_one_begins_anew(
    postgres_dsn: str,
) -> None:
    async with Database.open(postgres_dsn, connections_max=1) as database:
        with pytest.raises(asyncpg.DataError):
            async with database.connection() as connection:
                await connection.fetchval("SELECT version FROM plan WHERE version = $1", "no number")
        async with database.snapshot() as connection:
            assert await connection.fetchval("SELECT 1") == 1

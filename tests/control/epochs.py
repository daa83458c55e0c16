"""What Redis holds of an epoch, and what Postgres vouches for."""

import pytest
from redis.asyncio import Redis

from control.http.context import Context
from quota import keys
from tests.replies import as_text

SHARDS = range(32)


async def server(redis: Redis) -> str:
    return str((await redis.info("server"))["run_id"])


async def held(redis: Redis) -> set[str]:
    values = await redis.mget([keys.generation_key(shard) for shard in SHARDS])
    return {as_text(each) for each in values if each is not None}


async def hold(redis: Redis, text: str) -> None:
    await redis.mset({keys.generation_key(shard): text for shard in SHARDS})


async def epochs(context: Context) -> list[tuple[int, str]]:
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT epoch, server FROM ledger_epoch ORDER BY epoch")
    return [(row["epoch"], row["server"]) for row in rows]


@pytest.fixture
async def vouched_streams(context: Context) -> None:
    """The server is vouched for, and its streams are read from their beginning."""
    async with context.db.connection() as connection:
        await connection.execute("UPDATE usage_watermark SET stream_ms = 0, stream_seq = 0")
    await context.recovery.round()

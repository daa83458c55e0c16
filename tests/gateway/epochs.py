"""Who is vouched for, as Postgres would say."""

from redis.asyncio import Redis

from quota import keys
from quota.keys import SHARDS_DEFAULT


async def vouch(redis: Redis, epoch: int | None, server: str | None = None) -> None:
    """None: as control planes did before there were epochs."""
    server = server or (await redis.info("server"))["run_id"]
    words = [server, "0123"] if epoch is None else [server, str(epoch), "0123"]
    await redis.mset({keys.generation_key(shard): ":".join(words) for shard in range(SHARDS_DEFAULT)})

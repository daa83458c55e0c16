"""A Redis whose settings come to lose what is charged is an incident until they do not."""

from redis.asyncio import Redis

from common.redis_keeping import Persistence
from control.attention.keeping import LOSES, KeepingWatch
from control.http.context import Context
from tests.control.plane import MovedClock


async def opened(context: Context) -> dict[str, int]:
    """How often each was told."""
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT key, count FROM incident WHERE kind = $1 AND closed_at IS NULL", LOSES)
    return {row["key"]: row["count"] for row in rows}


async def test_a_redis_that_comes_to_lose_what_is_charged_is_one_incident_until_it_does_not(
    context: Context, redis: Redis, clock: MovedClock
) -> None:
    def watch(persistence: Persistence = "required") -> KeepingWatch:
        return KeepingWatch(context.db, redis, "redis://of-the-test", persistence, clock)

    one, other = watch(), watch()
    await one.look()
    assert await opened(context) == {}
    before = str((await redis.config_get("save"))["save"])
    await redis.config_set("maxmemory", 1 << 40)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    await redis.config_set("save", "")
    try:
        await watch("none").look()
        assert await opened(context) == {"eviction": 1}
        for each in (one, other, one):
            await each.look()
        assert await opened(context) == {"eviction": 1, "persistence": 1}
        await redis.config_set("maxmemory-policy", "noeviction")
        await other.look()
        assert await opened(context) == {"persistence": 1}
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", 0)
        await redis.config_set("save", before)
    await one.look()
    assert await opened(context) == {}

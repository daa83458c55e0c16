"""How long takes took goes to Redis, for the analytics."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from quota import keys
from quota.check_times import FIELD, decode
from tests.gateway.rig import PATIENCE_SECONDS, MakeOrganization, StartGateway
from tests.replies import as_entries


@pytest.fixture(autouse=True)
def quick(intervals: dict[str, Any]) -> None:
    intervals["check_times_seconds"] = 0.05


async def test_every_take_of_a_gateway_is_told_once(
    start: StartGateway, organization: MakeOrganization, redis_url: str
) -> None:
    acme = await organization("acme", 100)
    gateway = await start()
    async with Redis.from_url(redis_url) as redis:
        for count in (3, 5):
            for _ in range(count):
                assert (await gateway.get("/v1/x", acme)).status == 200
            await told(redis, count if count == 3 else 8)


async def told(redis: Redis, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            entries = as_entries(await redis.xrange(keys.CHECK_TIMES))
            found = sum(sum(decode(fields[FIELD].decode()).counts.values()) for _, fields in entries)
            assert found <= count
            if found == count:
                return
            await asyncio.sleep(0.02)

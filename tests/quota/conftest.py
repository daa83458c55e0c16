"""What the tests of the ledger share."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.quota.books import Books


@pytest.fixture
async def books(redis_url: str) -> AsyncIterator[Books]:
    async with Redis.from_url(redis_url) as redis:
        seconds, _ = await redis.time()
        yield Books(redis, seconds)

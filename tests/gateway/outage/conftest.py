"""Gateways before a Valkey of the test's own, which it ends, stops and restarts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from common.backoff import Backoff
from tests.gateway.outage.degraded import ROUTES, StartDegraded
from tests.gateway.rig import (
    Gateway,
    Organization,
    StartGateway,
)
from tests.gateway.store import Store

AT_ONCE = Backoff(first_seconds=0.02, max_seconds=0.02)


@pytest.fixture
def valkey_settings() -> dict[str, str]:
    """By the names of valkey.conf. What these tests count must outlive a SIGKILL: each write is on the disk at once."""
    return {"appendfsync": "always"}


@pytest.fixture
async def running(store: Store, valkey_settings: dict[str, str], intervals: dict[str, Any]) -> AsyncIterator[Redis]:
    intervals |= {"journal_look_seconds": 0.02, "journal_again": AT_ONCE}
    store.start(valkey_settings)
    async with Redis.from_url(store.url) as redis:
        yield redis


@pytest.fixture
def acme(running: Redis, acme: Organization) -> Organization:
    """acme in this test's own store."""
    acme._redis = acme.ledger.redis = running
    return acme


@pytest.fixture
def start(running: Redis, start: StartGateway) -> StartGateway:
    """Gateways end before the store does."""
    return start


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def allow(store: Store, start: StartGateway, directory: Path) -> StartDegraded:
    """Starts a gateway whose / is forwarded in an outage, and whose /strict is not."""

    async def go(**terms: Any) -> Gateway:
        return await start(redis={"url": store.url}, routes=ROUTES, degraded={"journal": directory} | terms)

    return go

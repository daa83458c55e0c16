import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from httpx import AsyncClient

from control.background import Background
from control.db import StoreUnavailable
from control.http.context import Context
from quota import keys
from quota.ledger import LedgerUnavailable


@pytest.fixture
async def services(context: Context) -> Sequence[str]:
    for state in context.background.states.values():
        state.alive = True
    return sorted(context.background.states)


async def test_it_is_ready_when_stores_answer_and_services_run(nobody: AsyncClient, services: Sequence[str]) -> None:
    response = await nobody.get("/-/ready")
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["faults"]) == ("ready", [])
    assert sorted(response.json()["services"]) == services
    expected = [
        "access cleanup",
        "bulk actions",
        "check times",
        "clocks",
        "directory",
        "garbage",
        "hydrator",
        "incidents",
        "key index",
        "limits",
        "partitions",
        "publisher",
        "reconciler",
        "recovery",
        "redis_keeping",
        "redis_layout",
        "redis_primaries",
        "refusals",
        "replica",
        "sealer",
        "thresholds",
        "upstreams",
        "writer",
    ]
    assert services == expected


async def test_the_lag_is_told_in_seconds(nobody: AsyncClient, context: Context, services: Sequence[str]) -> None:
    await context.writer.resume()
    seconds, _ = await context.ledger.redis.time()
    key = keys.events_key(0)
    await context.ledger.redis.xadd(key, {"e": "t r acme 0 api_calls:1"}, id=f"{(seconds - 20) * 1000}-0")
    await context.ledger.redis.xadd(key, {"e": "t r acme 0 api_calls:1"})
    readiness = (await nobody.get("/-/ready")).json()
    assert 20 <= readiness["lag_seconds"] < 80
    assert readiness["events_in_redis"] == 2


async def test_a_service_that_is_down_or_a_store_that_is_away_is_named_without_a_reason(
    nobody: AsyncClient, context: Context, services: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context.background.states["hydrator"].alive = False
    await context.ledger.redis.set(keys.LAYOUT, 64)

    def away(*_: object) -> None:
        raise StoreUnavailable("Postgres: 10.0.0.1 refused")

    monkeypatch.setattr("control.db.Database.connection", away)
    response = await nobody.get("/-/ready")
    assert response.status_code == 503
    assert response.json()["faults"] == ["hydrator", "postgres", "redis"]
    assert "10.0.0.1" not in response.text
    assert (await nobody.get("/-/health")).status_code == 200, "the process itself runs"


class Failing:
    name = "failing"

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.works = asyncio.Event()

    async def run(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.works.set()
        await asyncio.Event().wait()


async def test_a_service_that_fails_is_started_again_and_others_go_on() -> None:
    failing = Failing(LedgerUnavailable("away"), StoreUnavailable("away"), RuntimeError("a fault of ours"))
    background = Background([failing])
    async with background.running():
        async with asyncio.timeout(60):
            await failing.works.wait()
        assert background.summary() == {"failing": {"alive": True, "restarts": 3}}
    assert background.summary() == {"failing": {"alive": False, "restarts": 3}}


async def test_why_a_service_failed_is_told_to_nobody_who_reaches_the_port() -> None:
    failing = Failing(StoreUnavailable("password=hunter2"), RuntimeError("password=hunter2"))
    background = Background([failing])
    async with background.running():
        async with asyncio.timeout(60):
            await failing.works.wait()
        assert "hunter2" not in str(background.summary())


class Stubborn:
    name = "stubborn"

    async def run(self) -> None:
        with suppress(asyncio.CancelledError):  # as redis-py does while it connects
            await asyncio.Event().wait()
        await asyncio.Event().wait()


async def test_a_service_that_swallows_a_cancellation_is_stopped_nevertheless() -> None:
    background = Background([Stubborn()])
    async with asyncio.timeout(60), background.running():
        await asyncio.sleep(0)

"""The promise: periods are Redis', whatever the clock of the machine that the control plane runs on says."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient

from control.app import build, opened
from control.entitlements import catalogue
from control.http.context import Context
from control.journal import Author
from control.ledger.clocks import Clocks, LedgerClock, clocks_off, skews_of
from control.settings.control_plane import Settings
from devstack import demo
from quota.model import Admitted, Grant
from tests import charging
from tests.control.plane import ADMIN_TOKEN

AHEAD_SECONDS = 30


@pytest.fixture(params=[AHEAD_SECONDS, -AHEAD_SECONDS], ids=["ahead", "behind"])
async def wrong(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[Context]:
    """A control plane on a machine whose clock is off."""
    async with opened(settings, host_clock=lambda: time.time() + request.param) as context:
        plans = catalogue.read(None, demo.PLANS)
        await catalogue.apply_plans(context.db, plans, context.clock(), Author("tests", "tests"))
        yield context


@pytest.fixture
async def admin(wrong: Context) -> AsyncIterator[AsyncClient]:
    transport, headers = ASGITransport(build(wrong)), {"authorization": f"Bearer {ADMIN_TOKEN}"}
    async with AsyncClient(transport=transport, base_url="http://control", headers=headers) as client:
        yield client


async def redis_seconds(context: Context) -> int:
    seconds, _ = await context.ledger.redis.time()
    return int(seconds)


async def test_a_control_plane_whose_clock_is_off_publishes_each_period_until_redis_says_that_it_is_over(
    wrong: Context, admin: AsyncClient
) -> None:
    periods: list[int] = []
    for lead_seconds in (3, 10, 30):  # before the period ends, the organization is made: a slow machine takes its time
        org, now = f"org-{uuid4().hex[:12]}", await redis_seconds(wrong)
        bounds = [now - 1000, now + lead_seconds, now + 1000, now + 2000]
        assert (await admin.put(f"/v1/organizations/{org}", json={"name": org})).status_code == 201
        period = {"bounds": [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in bounds]}
        answer = await admin.put(f"/v1/entitlements/{org}", json={"plan": "bulk", "period": period})
        assert answer.status_code == 200, answer.text
        if await redis_seconds(wrong) < bounds[1] - 1:
            break

    while len(set(periods)) < 2:
        await wrong.recovery.round()
        await wrong.publisher.round()
        decision = await charging.take(wrong.ledger, org, uuid4().hex, {"api_calls": 1})
        assert isinstance(decision, Admitted), (decision, await wrong.ledger.peek(org))
        periods.append(decision.period.start)
        assert len(periods) < 100_000
    assert sorted(set(periods)) == bounds[:2]
    async with asyncio.timeout(30):
        while True:
            await wrong.publisher.round()
            standing = await wrong.ledger.peek(org)
            assert standing is not None
            if [each.start for each in standing.periods] == bounds[1:3]:
                break
    shown = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert shown["period"]["start"] == period["bounds"][1]


async def test_a_grant_is_there_for_as_long_as_redis_has_it(wrong: Context, admin: AsyncClient) -> None:
    org, now = f"org-{uuid4().hex[:12]}", await redis_seconds(wrong)
    assert (await admin.put(f"/v1/organizations/{org}", json={"name": org})).status_code == 201
    assert (await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny"})).status_code == 200
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 20))
    body = {"meter": "api_calls", "units": 5, "expires_at": expires, "reason": "sorry"}
    assert (await admin.post(f"/v1/organizations/{org}/grants", json=body)).status_code == 201
    standing = await wrong.ledger.peek(org)
    assert standing is not None
    assert [(grant.units, grant.expires_at) for grant in standing.grants] == [(5, now + 20)]
    assert isinstance(standing.grants[0], Grant)


async def test_a_clock_that_is_off_is_an_incident_until_it_is_right_again(settings: Settings, context: Context) -> None:
    off = 0.0
    clocks = Clocks(context.db, context.ledger, AHEAD_SECONDS / 2, lambda: time.time() + off)

    async def incidents() -> list[dict[str, Any]]:
        async with context.db.connection() as connection:
            rows = await connection.fetch("SELECT * FROM incident WHERE kind = 'clock_skew' AND closed_at IS NULL")
        return [dict(row) for row in rows]

    await clocks.look()
    assert await incidents() == []
    for off in (AHEAD_SECONDS, -AHEAD_SECONDS):
        for _ in range(3):
            await clocks.look()
        [incident] = await incidents()
        assert incident["count"] == 1, "it is one incident for as long as it lasts"
        assert abs(incident["content"]["seconds_ahead_of_redis"] - off) < AHEAD_SECONDS / 2
        assert incident["key"].startswith("control plane on ")
        off = 0.0
        await clocks.look()
        assert await incidents() == []
    # One that another process has left open is closed by the next that finds the clock right.
    off = AHEAD_SECONDS
    await clocks.look()
    assert len(await incidents()) == 1
    await Clocks(context.db, context.ledger, 2).look()
    assert await incidents() == []


@pytest.mark.parametrize("off", [3600, -3600])
def test_the_clock_that_is_wrong_by_an_hour_is_the_one_that_is_named(off: int) -> None:
    right = {"control plane on a": 0.0, "postgres": 0.0}
    assert clocks_off(right, {"redis": -0.1}, 2) == {}
    assert clocks_off(right, {"redis": off}, 2) == {"redis": {"clock": "redis", "seconds_ahead_of_the_others": off}}, (
        "a region's Redis"
    )
    assert clocks_off(right | {"postgres": off}, {"redis": 0.0}, 2) == {
        "postgres": {"clock": "postgres", "seconds_ahead_of_redis": off}
    }
    host = {"control plane on a": 0.0, "postgres": -off}
    assert clocks_off(host, {"redis": -off}, 2).keys() == {"control plane on a"}
    cluster = {"redis a:1": 0.0, "redis b:1": off, "redis c:1": 0.0}
    assert clocks_off(right, cluster, 2).keys() == {"redis b:1"}
    assert skews_of(right, cluster) == {**right, **cluster}


def test_a_clock_that_is_as_far_from_redis_as_is_not_allowed_is_off_though_others_are_between() -> None:
    assert clocks_off({"control plane on a": 0.0, "postgres": 1.5}, {"redis": -1.5}, 2).keys() == {"postgres"}


async def test_the_incident_of_a_host_that_is_gone_ends_and_that_of_one_that_is_there_goes_on(
    context: Context,
) -> None:
    clocks = Clocks(context.db, context.ledger, 2, lambda: time.time() + AHEAD_SECONDS)
    await clocks.look()

    async def keys() -> list[str]:
        async with context.db.connection() as connection:
            rows = await connection.fetch("SELECT key FROM incident WHERE kind = 'clock_skew' AND closed_at IS NULL")
        return sorted(row["key"] for row in rows)

    [own] = await keys()
    async with context.db.connection() as connection:
        await connection.execute(
            "INSERT INTO incident (id, kind, key, content, count, opened_at, last_seen_at) VALUES (gen_random_uuid(),"
            " 'clock_skew', 'control plane on gone', '{}', 1, now(), now())"
        )
    await clocks.look()
    assert await keys() == sorted([own, "control plane on gone"]), "it may come back yet"
    async with context.db.connection() as connection:
        await connection.execute(
            "UPDATE incident SET last_seen_at = now() - interval '9 minutes' WHERE kind = 'clock_skew'"
        )
    await clocks.look()
    async with context.db.connection() as connection:
        await connection.execute(
            "UPDATE incident SET last_seen_at = last_seen_at - interval '2 minutes' WHERE kind = 'clock_skew'"
        )
    await clocks.look()
    assert await keys() == [own], "renewed by each look"
    await Clocks(context.db, context.ledger, 2).look()


async def test_the_ledgers_clock_is_never_ahead_of_redis(context: Context) -> None:
    clock = LedgerClock()
    for _ in range(50):
        clock.update(await context.ledger.redis.time())
        reading = clock()
        seconds, microseconds = await context.ledger.redis.time()
        assert reading <= seconds + microseconds / 1e6 + 1e-6

"""An organization that Redis lost comes back with exactly what it had left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from control.entitlements import restore
from control.entitlements.hydrate import Hydrator
from control.entitlements.publish import Publisher
from control.http.context import Context
from control.ledger.streams import Streams
from quota import keys
from quota.ledger import LedgerUnavailable
from quota.model import Entitlement, MeterUsage, Status
from tests.control.plane import Entitled
from tests.control.usage import spend, write_all

pytestmark = pytest.mark.usefixtures("new_streams")


async def balances(context: Context, org: str) -> list[tuple[str, int, int]]:
    standing = await context.ledger.peek(org)
    assert standing is not None
    return [(b.meter, b.remaining, b.overage) for b in standing.balances()]


@pytest.mark.parametrize("writer", ["wrote nothing", "wrote a part", "wrote all"])
async def test_a_lost_organization_has_the_same_left_however_far_the_writer_was(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis, writer: str
) -> None:
    org = await entitled("growth", meters={"api_calls": 10})
    grant = {"meter": "api_calls", "units": 4, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    await spend(context, org, 6, units=2)
    if writer == "wrote a part":
        await write_all(context)
    await spend(context, org, 2, units=2)
    if writer == "wrote all":
        await write_all(context)
    before = await context.ledger.peek(org)
    assert before is not None
    assert [(b.meter, b.remaining, b.overage) for b in before.balances()] == [("api_calls", 0, 2)]
    await redis.delete(keys.org_key(org, 32))
    await context.publisher.install(org)
    after = await context.ledger.peek(org)
    assert after is not None
    assert (after.usage, after.grants, after.grant_used) == (before.usage, before.grants, before.grant_used)
    assert list(after.balances()) == list(before.balances())


async def test_a_change_published_to_a_redis_that_lost_the_organization_gives_nothing_away(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("tiny")
    await spend(context, org, 9)
    await redis.delete(keys.org_key(org, 32))
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "starter"})
    assert await balances(context, org) == [("api_calls", 9_991, 0)]


async def test_an_organization_that_was_forgotten_as_unknown_keeps_what_it_used(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("tiny")
    await spend(context, org, 9)
    await redis.delete(keys.org_key(org, 32))
    await context.ledger.publish(Entitlement(org, 0, Status.NONE), ttl_seconds=60)
    await context.publisher.install(org)
    assert await balances(context, org) == [("api_calls", 91, 0)]
    assert await redis.ttl(keys.org_key(org, 32)) == -1


async def test_an_ended_organization_that_comes_back_in_the_period_finds_what_it_used(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("tiny")
    await spend(context, org, 9)
    await admin.delete(f"/v1/entitlements/{org}")
    await redis.delete(keys.org_key(org, 32))
    assert (await context.publisher.install(org)).status is Status.ENDED
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny"})
    assert await balances(context, org) == [("api_calls", 91, 0)]


async def test_events_that_were_written_and_trimmed_while_they_were_counted_are_counted_once(
    context: Context, entitled: Entitled, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    shard = keys.shard_of(org, 32)
    seconds, _ = await redis.time()
    period = (await context.publisher.install(org)).periods[0]
    for n in range(5):  # of a writer that was away for two minutes
        event: dict[Any, Any] = {"e": f"t r{n} {org} {period.start} api_calls:1"}
        await redis.xadd(keys.events_key(shard), event, id=f"{(seconds - 120) * 1000 + n}-0")
    tail = Streams.tail

    async def overtaken(self: Streams, *args: Any) -> AsyncIterator[Any]:
        monkeypatch.setattr(Streams, "tail", tail)
        await write_all(context)
        await context.writer.trim()
        async for page in tail(self, *args):
            yield page

    monkeypatch.setattr(Streams, "tail", overtaken)
    counters = await restore.exact_counters(context.db, context.streams, org, 60, context.clock())
    assert await redis.xlen(keys.events_key(shard)) == 1, "all but the watermark's own are gone"
    assert counters.usage == (MeterUsage(period.start, "api_calls", 5),)


@pytest.fixture
async def hydrator(context: Context, redis: Redis) -> Hydrator:
    return Hydrator(redis, context.publisher, context.recovery)


async def running(hydrator: Hydrator, until: Callable[[], Awaitable[bool]]) -> None:
    task = asyncio.create_task(hydrator.run())
    try:
        async with asyncio.timeout(60):
            while not await until():
                pass
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_who_waits_hears_of_it_and_a_thousand_questions_are_one_hydration(
    context: Context, entitled: Entitled, redis: Redis, hydrator: Hydrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    org, unknown = await entitled("tiny"), f"nobody-{uuid4().hex[:8]}"
    await redis.delete(keys.org_key(org, 32))
    installed: list[str] = []
    install = Publisher.install

    async def counted(self: Publisher, asked: str) -> Entitlement:
        installed.append(asked)
        return await install(self, asked)

    monkeypatch.setattr(Publisher, "install", counted)
    async with redis.pubsub(ignore_subscribe_messages=True) as waiting:
        await waiting.subscribe(keys.CHANGED)
        await redis.rpush(keys.HYDRATE, *[org] * 1000, unknown, b"\xff not an organization")
        announced: set[bytes] = set()

        async def both_told() -> bool:
            message = await waiting.get_message(timeout=0.1)
            if message:
                announced.add(message["data"])
            return announced == {org.encode(), unknown.encode()}

        await running(hydrator, both_told)
    assert installed.count(unknown) == 1
    assert installed.count(org) <= 2  # popped in two batches at most
    assert await balances(context, org) == [("api_calls", 100, 0)]


async def test_a_redis_that_is_away_is_told_as_such_to_whoever_starts_it_again(context: Context) -> None:
    async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        with pytest.raises(LedgerUnavailable):
            await Hydrator(nowhere, context.publisher, context.recovery).run()

"""Two regions of a test: a Valkey and a control plane for each, on one PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.app import opened
from control.entitlements.catalogue import apply_plans
from control.http.context import Context
from control.journal import Author
from control.settings.control_plane import Settings
from devstack import valkey as valkey_wheel
from quota import keys
from quota.ledger import LedgerUnavailable
from quota.model import Admitted, Decision, Exhausted, OrganizationSnapshot, Unknown
from tests import charging
from tests.control.plane import MovedClock, admin_of, packaged_plans
from tests.control.writers import until

REGIONS = {"us": {"number": 0, "part": 0.6}, "eu": {"number": 1, "part": 0.4}}
SHARDS = 32
CALLS = "api_calls"


@dataclass
class Plane:
    """The control plane of one region."""

    settings: Settings
    context: Context
    redis: Redis
    clock: MovedClock
    admin: AsyncClient

    async def take(self, org: str, units: int = 1, path: str | None = None, version: str = "") -> Decision:
        """As a gateway does: where the region has no lease, or too little, its home is asked once."""
        for _ in range(2):
            decision = await self._take(org, units, path, version)
            lacks = isinstance(decision, Unknown) and decision.lapsed
            if not lacks and not (isinstance(decision, Exhausted) and decision.more_elsewhere):
                return decision
            assert self.context.regional is not None
            with suppress(LedgerUnavailable):
                await self.context.regional.ask(org, {CALLS: units})
        return await self._take(org, units, path, version)

    async def _take(self, org: str, units: int, path: str | None, version: str) -> Decision:
        return await charging.take(self.context.ledger, org, uuid4().hex, {CALLS: units}, path=path, version=version)

    async def charge(self, org: str, units: int) -> bytes:
        decision = await self.take(org, units)
        assert isinstance(decision, Admitted), decision
        return decision.receipt

    async def held(self, org: str) -> OrganizationSnapshot | None:
        return await self.context.ledger.peek(org)

    async def used(self, org: str) -> int:
        """As its Redis counts it; -1 where it does not know the organization."""
        snapshot = await self.held(org)
        return -1 if snapshot is None else sum(usage.used for usage in snapshot.usage)

    async def add(self, org: str, times: int, start: int, ms: int | None = None) -> None:
        """Events as `take` adds them, of that millisecond where one is given."""
        stream = keys.events_key(keys.shard_of(org, SHARDS))
        async with self.redis.pipeline(transaction=False) as pipeline:
            for n in range(times):
                event: dict[Any, Any] = {"e": f"t {uuid4()} {org} {start} {CALLS}:1"}
                pipeline.xadd(stream, event, id="*" if ms is None else f"{ms}-{n}")
            await pipeline.execute()

    async def add_each(self, orgs: Sequence[str], start: int) -> None:
        """An event of each of these, in this order."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for org in orgs:
                event: dict[Any, Any] = {"e": f"t {uuid4()} {org} {start} {CALLS}:1"}
                pipeline.xadd(keys.events_key(keys.shard_of(org, SHARDS)), event)
            await pipeline.execute()


@dataclass
class Planes:
    us: Plane
    eu: Plane
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def value(self, query: str, *args: object) -> Any:
        async with self.us.context.db.connection() as connection:
            return await connection.fetchval(query, *args)

    async def entitled(self, plan: str = "starter", **content: object) -> str:
        """An organization that was made in the one region, and is loaded in the other."""
        org = f"org-{uuid4().hex[:12]}"
        assert (await self.us.admin.put(f"/v1/organizations/{org}", json={"name": org})).status_code == 201
        answer = await self.us.admin.put(f"/v1/entitlements/{org}", json={"plan": plan, **content})
        assert answer.status_code == 200, answer.text
        await self.eu.context.publisher.install(org)
        return org

    async def written(self, org: str, events: int) -> None:
        """So many of its events are in the database, whichever region they are of."""

        async def all_rows() -> bool:
            return bool(await self.value("SELECT count(*) FROM usage_event WHERE org = $1", org) >= events)

        await until(all_rows)


@pytest.fixture(scope="session")
def second_valkey(stack_directory: Path) -> Iterator[str]:
    with valkey_wheel.running(stack_directory / "valkey-eu") as url:
        yield url


@pytest.fixture
async def planes(settings: Settings, second_valkey: str) -> AsyncIterator[Planes]:
    """Without background services."""
    async with AsyncExitStack() as stack:
        opened_planes = []
        for region, url in (("us", settings.redis.url.get_secret_value()), ("eu", second_valkey)):
            redis = await stack.enter_async_context(Redis.from_url(url))
            await redis.flushall()
            of_region = Settings.model_validate(
                settings.model_dump()
                | {"region": region, "regions": REGIONS, "redis": {"url": url, "timeout_seconds": 60}}
            )
            clock = MovedClock()
            context = await stack.enter_async_context(opened(of_region, clock))
            async with context.db.connection() as connection:
                await connection.execute("DELETE FROM usage_watermark")  # the streams are new
            admin = await stack.enter_async_context(admin_of(context))
            opened_planes.append(Plane(of_region, context, redis, clock, admin))
        us, eu = opened_planes
        await apply_plans(us.context.db, packaged_plans(), us.clock(), Author("tests", "tests"))
        yield Planes(us, eu, stack)


@pytest.fixture
async def running(planes: Planes) -> AsyncIterator[Planes]:
    """With all background services."""
    async with AsyncExitStack() as stack:
        for plane in (planes.us, planes.eu):
            await plane.context.recovery.round()
            await stack.enter_async_context(plane.context.background.running())
        yield planes


async def soon(true: Callable[[], Awaitable[bool]], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await until(true)

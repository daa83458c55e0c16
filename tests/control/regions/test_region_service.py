"""The control plane of one of several regions, on a real Valkey and PostgreSQL; another region is its neighbour."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.app import opened
from control.http.context import Context
from control.regions.agent import Agent
from control.regions.home import Home
from control.regions.service import IDLE_LOOKS, LEASE_SECONDS, RENEW_SECONDS, RegionService
from control.settings.control_plane import Settings
from control.settings.regions import RegionSettings
from control.usage.records import UsageRecord
from devstack import valkey as valkey_wheel
from quota import keys
from quota.ledger import Ledger
from quota.model import Admitted, Decision, Exhausted, Unknown
from quota.wire import HEAD, LEASE
from tests import charging
from tests.control.plane import Entitled, MovedClock
from tests.control.regions.region import CALLS, Region

pytestmark = pytest.mark.usefixtures("new_streams")

PATIENCE_SECONDS = 60
REGIONS = {"eu": RegionSettings(number=0, part=0.5), "us": RegionSettings(number=1, part=0.5)}


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def context(settings: Settings, clock: MovedClock) -> AsyncIterator[Context]:
    async with opened(settings.model_copy(update={"region": "eu", "regions": REGIONS}), clock) as opened_context:
        yield opened_context


@pytest.fixture
def regional(context: Context) -> RegionService:
    assert context.regional is not None
    return context.regional


@pytest.fixture
def moment() -> Time:
    return Time()


@pytest.fixture
def service(context: Context, moment: Time) -> RegionService:
    """The same, whose time the test moves."""
    home = Home(context.db, LEASE_SECONDS)
    return RegionService(context.db, home, Agent("eu", home, context.ledger, context.publisher), moment)


@pytest.fixture
async def org(entitled: Entitled) -> str:
    return await entitled(meters={CALLS: 1000})


@pytest.fixture(scope="module")
def neighbour_url(stack_directory: Path) -> Iterator[str]:
    with valkey_wheel.running(stack_directory / "neighbour") as url:
        yield url


@pytest.fixture
async def us(neighbour_url: str, context: Context) -> AsyncIterator[Region]:
    async with Redis.from_url(neighbour_url) as redis:
        await redis.flushdb()
        region = Region("us", Ledger(redis), Home(context.db, LEASE_SECONDS), context.db)
        await region.vouch(1)
        yield region


class Gateway:
    """Takes as a gateway does: it asks the control plane, and waits for an announcement."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.asked = 0
        self.taken = 0

    async def take(self, org: str, units: int = 1) -> Decision:
        self.taken += 1
        for _ in range(2):
            decision = await self._take(org, units)
            if not self._asks(decision):
                return decision
            await self._ask(org, units, decision)
        return await self._take(org, units)

    async def _ask(self, org: str, units: int, decision: Decision) -> None:
        self.asked += 1
        question = keys.Asked(org, CALLS, units) if isinstance(decision, Exhausted) else keys.Asked(org)
        async with self._ledger.redis.pubsub() as pubsub:
            await pubsub.subscribe(keys.CHANGED)
            await pubsub.get_message(timeout=PATIENCE_SECONDS)
            await cast("Any", self._ledger.redis.rpush(keys.HYDRATE, str(question)))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await pubsub.get_message(timeout=PATIENCE_SECONDS) or {}).get("data") != org.encode():
                    pass

    async def _take(self, org: str, units: int) -> Decision:
        return await charging.take(self._ledger, org, f"r{self.taken}", {CALLS: units})

    @staticmethod
    def _asks(decision: Decision) -> bool:
        return isinstance(decision, Unknown) or (isinstance(decision, Exhausted) and decision.more_elsewhere)


async def take(context: Context, org: str, request_id: str, units: int = 1) -> Decision:
    return await charging.take(context.ledger, org, request_id, {CALLS: units})


async def number_of(context: Context, org: str) -> int:
    holding = await context.ledger.holding(org)
    assert holding is not None
    return holding.number


async def incidents(context: Context, kind: str) -> list[str]:
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT key FROM incident WHERE kind = $1 AND closed_at IS NULL", kind)
    return [row["key"] for row in rows]


async def test_a_published_organization_is_admitted_once_the_region_has_a_lease(
    context: Context, regional: RegionService, org: str
) -> None:
    assert await take(context, org, "a") == Unknown(lapsed=True)
    await regional.ask(org, {})
    admitted = await take(context, org, "b", 10)
    assert isinstance(admitted, Admitted)
    [balance] = admitted.balances
    assert (balance.limit, balance.remaining) == (1000, 990)


async def test_a_region_alone_sells_everything_and_refuses_nothing_before(context: Context, org: str) -> None:
    gateway, admitted = Gateway(context.ledger), 0
    async with context.background.running():
        while isinstance(await gateway.take(org, 42), Admitted):
            admitted += 42
    assert admitted == 966
    assert gateway.asked < gateway.taken / 2


async def test_a_lease_is_renewed_while_the_organization_is_used_and_ends_after_that(
    context: Context, service: RegionService, moment: Time, org: str
) -> None:
    await context.publisher.install(org)
    service.moved({(org, 0, CALLS): (1, 0, 0)})
    await service.turn()
    first = await number_of(context, org)
    for _ in range(3):
        moment.now += RENEW_SECONDS
        service.moved({(org, 0, CALLS): (1, 0, 0)})
        await service.turn()
    assert await number_of(context, org) == first + 3
    for _ in range(IDLE_LOOKS + 1):
        moment.now += 40
        await service.turn()
    assert len(service) == 0
    renewed = await number_of(context, org)
    moment.now += 40
    await service.turn()
    assert await number_of(context, org) == renewed


async def sold_by(other: Region, org: str, service: RegionService, moment: Time) -> int:
    """Units that another region sells, while both look each second."""
    sold = 0
    for _ in range(40):
        while isinstance(await other.take(org, 10), Admitted):
            sold += 10
        moment.now += 1
        await service.turn()
        await other.look(org)
    return sold


async def test_what_a_region_holds_and_does_not_use_is_sold_by_another_that_is_short(
    context: Context, service: RegionService, moment: Time, us: Region, org: str
) -> None:
    await service.ask(org, {CALLS: 300})
    await us.look(org)
    assert await sold_by(us, org, service, moment) == 1000
    assert isinstance(await take(context, org, "a"), Exhausted)


async def test_units_of_a_region_that_nobody_uses_any_more_come_back_when_another_waits(
    context: Context, service: RegionService, moment: Time, us: Region, org: str
) -> None:
    await service.ask(org, {CALLS: 300})
    while len(service):
        moment.now += 40
        await service.turn()
    holding = await context.ledger.holding(org)
    assert holding is not None
    assert holding.snapshot.meters[0].allowance > 0
    assert await sold_by(us, org, service, moment) == 1000


async def test_a_redis_that_lost_its_memory_has_no_lease_until_the_home_gives_one_of_the_new_epoch(
    context: Context, regional: RegionService, redis: Redis, org: str
) -> None:
    await regional.ask(org, {})
    assert isinstance(await take(context, org, "a"), Admitted)
    async with context.db.connection() as connection:
        before = await connection.fetchval("SELECT epoch FROM region_lease WHERE org = $1", org)
    await redis.delete(*map(keys.generation_key, range(context.ledger.shards)))
    await context.recovery.round()
    assert await take(context, org, "b") == Unknown(lapsed=True)
    await regional.ask(org, {})
    assert isinstance(await take(context, org, "c"), Admitted)
    async with context.db.connection() as connection:
        assert await connection.fetchval("SELECT epoch FROM region_lease WHERE org = $1", org) > before


async def test_an_organization_that_redis_forgot_alone_gets_a_lease_again_and_nothing_twice(
    context: Context, regional: RegionService, redis: Redis, org: str
) -> None:
    await regional.ask(org, {})
    assert isinstance(await take(context, org, "a", 50), Admitted)
    held = await context.ledger.generation(keys.shard_of(org, context.ledger.shards))
    assert held is not None
    for _ in range(3):
        await context.ledger.lower(org, {f"m:{CALLS}": 60}, held)
    await regional.ask(org, {})
    await redis.delete(keys.org_key(org, context.ledger.shards))
    await regional.ask(org, {CALLS: 950})
    assert regional.agent.totals.forgotten == 1
    assert isinstance(await take(context, org, "b", 951), Exhausted)
    assert isinstance(await take(context, org, "c", 950), Admitted)


async def test_reported_usage_asks_the_home_as_requests_do(context: Context, regional: RegionService, org: str) -> None:
    records = [UsageRecord(meter=CALLS, units=400, idempotency_key=f"record-{n}") for n in range(3)]
    outcomes = await context.reporter.report(org, records)
    assert [type(outcome).__name__ for outcome in outcomes[:2]] == ["Charged", "Charged"]
    assert type(outcomes[2]).__name__ != "Charged"
    assert regional.agent.totals.leased


async def test_a_region_that_is_not_heard_for_a_minute_is_an_incident_until_it_is_heard(
    context: Context, service: RegionService, moment: Time
) -> None:
    async with context.db.connection() as connection:
        await connection.execute(
            "INSERT INTO region_heard VALUES ('ap', now() - interval '2 minutes') "
            "ON CONFLICT (region) DO UPDATE SET heard_at = excluded.heard_at"
        )
    await service.turn()
    assert await incidents(context, "region_away") == ["ap"]
    async with context.db.connection() as connection:
        await connection.execute("UPDATE region_heard SET heard_at = now()")
    moment.now += 10
    await service.turn()
    assert await incidents(context, "region_away") == []


async def test_a_clock_that_was_set_back_is_an_incident_and_its_lease_is_replaced(
    context: Context, service: RegionService, moment: Time, redis: Redis, org: str
) -> None:
    await service.ask(org, {})
    holding = await context.ledger.holding(org)
    assert holding is not None
    name = keys.org_key(org, context.ledger.shards)
    head = await cast("Awaitable[bytes]", redis.hget(name, "e"))
    rest = head[HEAD.size + LEASE.size :]
    later = head[: HEAD.size] + LEASE.pack(holding.asked_s + 3600, holding.lasts_s) + rest
    await cast("Any", redis).hset(name, "e", later)
    assert await take(context, org, "a") == Unknown(lapsed=True)
    await service.ask(org, {})
    assert isinstance(await take(context, org, "b"), Admitted)
    moment.now += 10
    await service.turn()
    assert await incidents(context, "region_clock_set_back") == ["eu/redis"]


async def test_what_a_region_does_is_measured(nobody: AsyncClient, regional: RegionService, org: str) -> None:
    await regional.ask(org, {})
    text = (await nobody.get("/-/metrics")).text
    assert "quotagate_control_region_leases_total 1.0" in text
    assert 'quotagate_control_region_asked_seconds_bucket{le="+Inf"} 1' in text


async def test_a_home_that_is_away_leaves_nobody_waiting_for_an_announcement(
    context: Context, regional: RegionService, redis: Redis, org: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(keys.CHANGED)
        await pubsub.get_message(timeout=PATIENCE_SECONDS)

        async def away(*_: object) -> None:
            raise ConnectionError("the home is away")

        monkeypatch.setattr(Home, "answer", away)
        with suppress(ConnectionError):
            await regional.ask(org, {})
        message = await pubsub.get_message(timeout=PATIENCE_SECONDS)
    assert message is not None
    assert message["data"] == org.encode()


async def test_no_overage_is_sold_in_a_region_while_its_home_has_allowance(
    context: Context, regional: RegionService, entitled: Entitled
) -> None:
    org, gateway = await entitled("growth", meters={CALLS: 1000}), Gateway(context.ledger)
    async with context.background.running():
        sold = [await gateway.take(org, 300) for _ in range(4)]
    assert regional.agent.totals.leased
    admitted = [decision for decision in sold if isinstance(decision, Admitted)]
    assert [decision.balances[0].overage for decision in admitted] == [0, 0, 0, 200]

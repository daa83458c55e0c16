"""Three regions under load, each with a Valkey of its own, and one home in PostgreSQL, while one of them is struck."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.http.context import Context
from control.regions.home import Home
from devstack import valkey as valkey_wheel
from quota import keys
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import Admitted
from quota.wire import HEAD, LEASE
from tests.control.plane import Entitled
from tests.control.regions.region import CALLS, Region
from tests.control.writers import until

NAMES = ("eu", "us", "asia")
LEASE_SECONDS = 30
ALLOWANCE = 6000
HOUR = 3600


@pytest.fixture(scope="module")
def urls(stack_directory: Path) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(valkey_wheel.running(stack_directory / f"struck-{name}")) for name in NAMES]


@pytest.fixture
async def regions(urls: list[str], context: Context) -> AsyncIterator[list[Region]]:
    made, clients = [], [Redis.from_url(url) for url in urls]
    for name, redis in zip(NAMES, clients, strict=True):
        await redis.flushdb()
        region = Region(name, Ledger(redis), Home(context.db, LEASE_SECONDS), context.db)
        await region.vouch(1)
        made.append(region)
    yield made
    for redis in clients:
        await redis.aclose()


GO_BACK = """
local drawn = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.match(all[i], '^used:') then drawn[#drawn + 1], drawn[#drawn + 2] = all[i], all[i + 1] end
end
redis.call('RESTORE', KEYS[1], 0, ARGV[1], 'REPLACE')
local head = redis.call('HGET', KEYS[1], 'e')
local lapsed = string.sub(head, 1, ARGV[2]) .. string.rep('\\0', ARGV[3]) .. string.sub(head, ARGV[2] + ARGV[3] + 1)
redis.call('HSET', KEYS[1], 'e', lapsed, unpack(drawn))
"""
"""In one step, since gateways are fenced meanwhile."""


class Struck:
    """One region, and what may happen to it."""

    def __init__(self, region: Region, org: str) -> None:
        self.region = region
        self.name = keys.org_key(org, region.ledger.shards)
        self.org = org
        self.epoch = 1
        self._copy: bytes | None = None

    async def cut_off(self) -> None:
        self.region.way.cut = True

    async def connected(self) -> None:
        self.region.way.cut = False

    async def clock_moved(self, seconds: int) -> None:
        """Its lease begins later or ended before, as by a clock that is set back or forth."""
        redis = cast("Any", self.region.ledger.redis)
        head = await redis.hget(self.name, "e")
        asked_s, lasts_s = LEASE.unpack_from(head, HEAD.size)
        if asked_s:
            moved = LEASE.pack(max(0, asked_s - seconds), lasts_s)
            await redis.hset(self.name, "e", head[: HEAD.size] + moved + head[HEAD.size + LEASE.size :])

    async def clock_set_back(self) -> None:
        await self.clock_moved(-HOUR)

    async def clock_set_forth(self) -> None:
        await self.clock_moved(HOUR)

    async def remembered(self) -> None:
        self._copy = await self.region.ledger.redis.dump(self.name)

    async def forgetting(self) -> None:
        """It restarts with what it was, and is vouched for as control/reconcile/recovery.py does it: its counters are
        put back, its leases are ended, and it has another epoch."""
        if self._copy is None:
            return
        await cast("Any", self.region.ledger.redis).eval(GO_BACK, 1, self.name, self._copy, HEAD.size, LEASE.size)
        self.epoch += 1
        await self.region.vouch(self.epoch)


async def load(region: Region, org: str, random: Random, over: asyncio.Event) -> int:
    sold = 0
    while not over.is_set():
        units = random.randint(1, 5)
        with suppress(LedgerUnavailable):
            if isinstance(await region.take(org, units), Admitted):
                sold += units
        await asyncio.sleep(0)
    return sold


async def looking(region: Region, org: str, over: asyncio.Event) -> None:
    while not over.is_set():
        with suppress(StoreUnavailable, LedgerUnavailable):
            await region.look(org)
        await asyncio.sleep(0.02)


async def used(regions: list[Region], org: str) -> int:
    return sum([await region.used(org) for region in regions])


async def until_sold(regions: list[Region], org: str, units: float) -> None:
    """Waits until so many units are sold, and for a second in which clients ask for more."""

    async def sold() -> bool:
        return await used(regions, org) >= units

    await until(sold)
    await asyncio.sleep(1)


@pytest.mark.parametrize("seed", range(3))
async def test_no_unit_is_sold_twice_and_all_are_sold_whatever_strikes_a_region(
    regions: list[Region], entitled: Entitled, seed: int
) -> None:
    random, org = Random(seed), await entitled("many", meters={CALLS: ALLOWANCE})
    for region in regions:
        await region.look(org)
    struck, over = Struck(regions[0], org), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        loads = [tasks.create_task(load(region, org, random, over)) for region in regions]
        for region in regions:
            tasks.create_task(looking(region, org, over))
        faults = [
            struck.cut_off,
            struck.connected,
            struck.clock_set_back,
            struck.clock_set_forth,
            struck.remembered,
            struck.forgetting,
        ]
        for _ in range(20):
            await random.choice(faults)()
            await asyncio.sleep(random.uniform(0.02, 0.15))
            assert await used(regions, org) <= ALLOWANCE
        await struck.connected()
        await until_sold(regions, org, ALLOWANCE * 0.995)
        over.set()
    assert sum(task.result() for task in loads) == await used(regions, org) <= ALLOWANCE


async def test_a_region_that_is_gone_with_its_clients_costs_what_it_held_and_nothing_is_sold_twice(
    regions: list[Region], entitled: Entitled
) -> None:
    org, random = await entitled("many", meters={CALLS: ALLOWANCE}), Random(9)
    for region in regions:
        await region.look(org)
    gone, *others = regions
    gone.way.cut = True
    holding = await gone.ledger.holding(org)
    assert holding is not None
    [limit] = (m.allowance for m in holding.snapshot.meters if m.meter == CALLS)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for region in others:
            tasks.create_task(load(region, org, random, over))
            tasks.create_task(looking(region, org, over))
        await until_sold(others, org, ALLOWANCE - limit)
        over.set()
    assert await used(others, org) == ALLOWANCE - limit

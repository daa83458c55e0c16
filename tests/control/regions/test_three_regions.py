"""Three regions, each with a Valkey of its own, and one home: takes of all of them at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random
from typing import cast

import pytest
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.http.context import Context
from control.regions.home import Home
from control.regions.terms import Account, Source
from devstack import valkey as valkey_wheel
from quota import generation, keys
from quota.events import parse
from quota.ledger import Ledger
from quota.model import Admitted, Exhausted, Unknown
from quota.wire import HEAD, LEASE
from tests.control.plane import Entitled
from tests.control.regions.region import CALLS, Region

NAMES = ("eu", "us", "asia")
LEASE_SECONDS = 60
ALLOWANCE = 3000


@pytest.fixture(scope="module")
def valkeys(stack_directory: Path) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(valkey_wheel.running(stack_directory / f"region-{name}")) for name in NAMES]


@pytest.fixture
async def regions(valkeys: list[str], context: Context) -> AsyncIterator[list[Region]]:
    async with AsyncExitStack() as stack:
        made = []
        for name, url in zip(NAMES, valkeys, strict=True):
            ledger = Ledger(await stack.enter_async_context(Redis.from_url(url)))
            region = Region(name, ledger, Home(context.db, LEASE_SECONDS), context.db)
            await region.vouch(1)
            made.append(region)
        yield made


@pytest.fixture
async def org(entitled: Entitled) -> str:
    return await entitled(meters={CALLS: ALLOWANCE})


async def used(regions: list[Region], org: str) -> int:
    return sum([await region.used(org) for region in regions])


async def until_exhausted(regions: list[Region], org: str, random: Random, demand: Callable[[], int]) -> Counter[type]:
    """Clients of all regions ask, and agents look, until nothing is admitted any more."""
    decisions: Counter[type] = Counter()
    silent = 0
    while silent < 6:
        before = decisions[Admitted]

        async def ask(region: Region) -> None:
            for _ in range(demand()):
                decisions[type(await region.take(org, random.randint(1, 3)))] += 1

        await asyncio.gather(*(ask(region) for region in regions))
        await asyncio.gather(*(region.look(org) for region in regions if not region.way.cut))
        silent = silent + 1 if decisions[Admitted] == before else 0
    return decisions


async def test_three_regions_sell_a_quota_to_its_end_and_not_a_unit_more(regions: list[Region], org: str) -> None:
    random = Random(1)
    await asyncio.gather(*(region.look(org) for region in regions))
    decisions = await until_exhausted(regions, org, random, lambda: random.choice([0, 5, 60]))
    assert ALLOWANCE * 0.995 <= await used(regions, org) <= ALLOWANCE
    assert decisions[Exhausted]
    assert not decisions[Unknown]


async def test_regions_sell_all_that_is_included_before_overage(regions: list[Region], entitled: Entitled) -> None:
    org, random = await entitled("growth", meters={CALLS: ALLOWANCE}), Random(5)
    await asyncio.gather(*(region.look(org) for region in regions))
    allowance = Account(Source.ALLOWANCE, CALLS)
    while await used(regions, org) < ALLOWANCE:
        for region in regions:
            await region.look(org)
            for _ in range(random.choice([0, 5, 200])):
                decision = await region.take(org, random.randint(1, 3))
                if isinstance(decision, Exhausted):
                    await region.look(org)
                elif isinstance(decision, Admitted) and parse(decision.receipt.decode()).charges[0].overage:
                    known = region.agent.known(org)
                    assert known is not None
                    assert known.lease is not None
                    assert known.lease.free[allowance] == 0, "the home has some to give, which comes first"
    # What one region holds is not sold where another has come to the end; it is when it is given back.
    for _ in range(100):
        await regions[0].take(org, 10)
        for region in regions:
            await region.look(org)
    standing = [await region.ledger.peek(org) for region in regions]
    usage = [u for snapshot in standing if snapshot is not None for u in snapshot.usage]
    assert sum(u.used - u.overage for u in usage) == ALLOWANCE
    assert sum(u.overage for u in usage) > 0


async def test_a_region_that_is_cut_off_spends_what_it_holds_and_no_more(regions: list[Region], org: str) -> None:
    random = Random(2)
    await asyncio.gather(*(region.look(org) for region in regions))
    eu, *others = regions
    eu.way.cut = True
    held = await eu.ledger.holding(org)
    assert held is not None
    [limit] = (m.allowance for m in held.snapshot.meters if m.meter == CALLS)
    assert 0 < limit < ALLOWANCE / 3
    while not isinstance(await eu.take(org), Exhausted):
        pass
    await until_exhausted(others, org, random, lambda: 30)
    assert await eu.used(org) == limit
    assert await used(others, org) == ALLOWANCE - limit


async def test_what_a_region_left_is_sold_by_the_others_once_it_is_heard_again(regions: list[Region], org: str) -> None:
    random = Random(3)
    await asyncio.gather(*(region.look(org) for region in regions))
    eu, *others = regions
    eu.way.cut = True
    await until_exhausted(others, org, random, lambda: 30)
    left = ALLOWANCE - await used(regions, org)
    assert left > 0
    eu.way.cut = False
    for _ in range(3):
        await eu.look(org)
    await until_exhausted(others, org, random, lambda: 30)
    assert await used(regions, org) == ALLOWANCE


async def test_a_region_that_has_lost_its_memory_gets_no_unit_that_it_has_given_back(
    regions: list[Region], org: str
) -> None:
    random = Random(4)
    await asyncio.gather(*(region.look(org) for region in regions))
    eu, *others = regions
    name = keys.org_key(org, eu.ledger.shards)
    before = await eu.ledger.redis.dump(name)
    assert before is not None
    await eu.look(org)
    await eu.ledger.lower(org, {f"m:{CALLS}": 10}, generation.made("server", 1, "nonce"))
    await eu.look(org)
    await until_exhausted(others, org, random, lambda: 30)
    await eu.ledger.redis.restore(name, 0, before, replace=True)
    await eu.ledger.lapse([org])
    await eu.vouch(2)
    assert isinstance(await eu.take(org), Unknown)
    await eu.look(org)
    while not isinstance(await eu.take(org), Exhausted):
        pass
    assert await used(regions, org) <= ALLOWANCE


async def test_a_lease_of_a_clock_that_was_set_back_is_ended_also_without_the_home(
    regions: list[Region], org: str
) -> None:
    eu, *_ = regions
    await eu.look(org)
    holding = await eu.ledger.holding(org)
    assert holding is not None
    name = keys.org_key(org, eu.ledger.shards)
    head = await cast("Awaitable[bytes]", eu.ledger.redis.hget(name, "e"))
    later = LEASE.pack(holding.asked_s + 3600, holding.lasts_s)
    await eu.ledger.redis.execute_command("HSET", name, "e", head[: HEAD.size] + later)
    eu.way.cut = True
    with pytest.raises(StoreUnavailable):
        await eu.look(org)
    ended = await eu.ledger.holding(org)
    assert ended is not None
    assert (ended.asked_s, ended.lasts_s) == (0, 0)

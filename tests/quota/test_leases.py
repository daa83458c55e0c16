"""What a region enforces: its lease, what it holds, and what it has lowered. On a real Valkey."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from quota import keys
from quota.calls.leases import LeaseTerms
from quota.ledger import Ledger, MemoryLost
from quota.model import (
    Admitted,
    ConcurrencyLimited,
    Decision,
    Elsewhere,
    Entitlement,
    Exhausted,
    Grant,
    MeterBalance,
    MeterLimit,
    OveragePolicy,
    Status,
    Unknown,
)
from quota.periods import Period
from quota.wire import ANSWER_SECONDS, OVERAGE_ASKS_SECONDS
from tests import charging

CALLS = "api_calls"
GENERATION = "generation"


class RegionBooks:
    """The organization `acme` in one region: 100 of its 1,000 api_calls are held there."""

    def __init__(self, ledger: Ledger, now: int) -> None:
        self.ledger, self.now = ledger, now
        self.org = f"acme-{uuid4().hex[:8]}"
        self.periods = (Period(now - 1000, now + 100_000), Period(now + 100_000, now + 200_000))
        self.entitlement = Entitlement(
            self.org, 1, Status.ACTIVE, meters=(MeterLimit(CALLS, 1000),), periods=self.periods
        )
        self.terms = LeaseTerms(1, 0, 1, now - 5, 60, self.periods, (MeterLimit(CALLS, 100, 0),))
        self._names = count()

    async def begin(self) -> None:
        await self.ledger.redis.set(keys.generation_key(keys.shard_of(self.org, self.ledger.shards)), GENERATION)
        await self.publish()

    async def publish(self, **changes: Any) -> None:
        self.entitlement = replace(self.entitlement, version=self.entitlement.version + 1, **changes)
        assert await self.ledger.publish(self.entitlement, leased=True)

    async def lease(self, **changes: Any) -> bool:
        changed: dict[str, Any] = {"number": self.terms.number + 1, "version": self.entitlement.version, **changes}
        self.terms = replace(self.terms, **changed)
        return await self.ledger.lease(self.org, self.terms, GENERATION)

    async def lower(self, most: Mapping[str, int]) -> int:
        return await self.ledger.lower(self.org, most, GENERATION)

    async def take(self, units: int) -> Decision:
        return await charging.take(self.ledger, self.org, f"r{next(self._names)}", {CALLS: units})

    async def take_with_more(self, units: int) -> Decision:
        """By the general way."""
        return await charging.take(self.ledger, self.org, f"r{next(self._names)}", {CALLS: units, "tokens": 0})


@pytest.fixture
async def region(redis_url: str) -> AsyncIterator[RegionBooks]:
    async with Redis.from_url(redis_url) as redis:
        seconds, _ = await redis.time()
        books = RegionBooks(Ledger(redis), seconds)
        await books.begin()
        yield books


async def test_a_region_admits_nothing_before_its_first_lease(region: RegionBooks) -> None:
    assert await region.take(1) == Unknown(lapsed=True)
    assert await region.take(0) == Unknown(lapsed=True)


async def test_a_region_spends_what_it_holds_and_no_more(region: RegionBooks) -> None:
    assert await region.lease()
    assert isinstance(await region.take(60), Admitted)
    assert isinstance(await region.take(41), Exhausted)
    assert isinstance(await region.take(40), Admitted)
    assert isinstance(await region.take(1), Exhausted)


@pytest.mark.parametrize("asked_ago", [61, -10], ids=["it is over", "it begins later: the clock was set back"])
async def test_a_region_refuses_outside_of_its_lease_by_its_own_clock(region: RegionBooks, asked_ago: int) -> None:
    tokens = MeterLimit("tokens", 10, 0)
    await region.publish(meters=(*region.entitlement.meters, tokens))
    assert await region.lease(meters=(*region.terms.meters, tokens))
    assert isinstance(await region.take(1), Admitted)
    assert isinstance(await region.take_with_more(1), Admitted)
    assert await region.lease(asked_s=region.now - asked_ago)
    assert await region.take(1) == Unknown(lapsed=True)
    assert await region.take_with_more(1) == Unknown(lapsed=True)


async def test_an_older_lease_is_not_installed(region: RegionBooks) -> None:
    assert await region.lease(number=7)
    assert not await region.lease(number=7)
    assert not await region.lease(number=6)


async def test_a_lease_from_before_a_return_is_void(region: RegionBooks) -> None:
    assert await region.lease()
    assert await region.lower({f"m:{CALLS}": 30}) == 1
    assert not await region.lease()
    assert isinstance(await region.take(31), Exhausted)
    assert await region.lease(returns=1)
    assert isinstance(await region.take(31), Admitted)


async def test_a_return_gives_up_no_more_than_is_held(region: RegionBooks) -> None:
    assert await region.lease()
    await region.lower({f"m:{CALLS}": 5000, "m:nothing": 1, "g:nothing": 1})
    assert isinstance(await region.take(101), Exhausted)
    assert isinstance(await region.take(100), Admitted)


async def test_a_lease_of_another_version_is_not_installed(region: RegionBooks) -> None:
    assert not await region.lease(version=region.entitlement.version - 1)


async def test_a_lease_for_a_memory_that_is_lost_changes_nothing(region: RegionBooks) -> None:
    await region.ledger.redis.set(keys.generation_key(keys.shard_of(region.org, region.ledger.shards)), "another")
    with pytest.raises(MemoryLost):
        await region.lease()
    with pytest.raises(MemoryLost):
        await region.lower({f"m:{CALLS}": 0})
    assert await region.take(1) == Unknown(lapsed=True)


async def test_a_change_of_terms_in_a_region_gives_it_nothing_more(region: RegionBooks) -> None:
    assert await region.lease()
    await region.publish(meters=(MeterLimit(CALLS, 5000), MeterLimit("tokens", 10)))
    assert isinstance(await region.take(101), Exhausted)
    assert isinstance(await region.take_with_more(100), Admitted)
    tokens = await charging.take(region.ledger, region.org, "t", {"tokens": 1})
    assert isinstance(tokens, Exhausted)


async def test_a_lower_limit_is_in_force_in_a_region_when_it_is_published(region: RegionBooks) -> None:
    assert await region.lease()
    await region.publish(meters=(MeterLimit(CALLS, 20),))
    assert isinstance(await region.take(21), Exhausted)
    assert isinstance(await region.take(20), Admitted)


async def test_overage_and_grants_are_held_likewise(region: RegionBooks) -> None:
    grant = Grant("bonus", CALLS, 500, region.now + 1000)
    await region.publish(policy=OveragePolicy.METERED, meters=(MeterLimit(CALLS, 1000, 300),), grants=(grant,))
    assert isinstance(await region.take(1), Unknown)
    assert await region.lease(meters=(MeterLimit(CALLS, 100, 30),), grants=(replace(grant, units=50),))
    assert isinstance(await region.take(181), Exhausted)
    await region.lower({f"o:{CALLS}": 20, "g:bonus": 25})
    assert isinstance(await region.take(146), Exhausted)
    assert isinstance(await region.take(145), Admitted)
    holding = await region.ledger.holding(region.org)
    assert holding is not None
    [usage] = holding.snapshot.usage
    assert (usage.used, usage.burnt, usage.overage) == (145, 25, 20)


@pytest.mark.parametrize("cap", [None, 300])
async def test_no_overage_is_sold_while_the_home_has_included_units_unless_it_has_not_answered_for_long(
    region: RegionBooks, cap: int | None
) -> None:
    await region.publish(policy=OveragePolicy.METERED, meters=(MeterLimit(CALLS, 1000, cap),))
    held = (MeterLimit(CALLS, 100, cap),)
    free = {CALLS: Elsewhere(900, 900, 0, free=20, unsold=20)}
    assert await region.lease(meters=held, elsewhere=free, asked_s=region.now)
    for take in (region.take, region.take_with_more):
        refused = await take(101)
        assert isinstance(refused, Exhausted)
        assert (refused.more_elsewhere, refused.over_limit) == (True, False)
    admitted = await region.take(100)
    assert isinstance(admitted, Admitted)
    settlement = await charging.settle(region.ledger, region.org, admitted.receipt, {CALLS: 110})
    assert settlement.shortfall == {}, "what was used is paid"
    assert await region.lease(meters=held, elsewhere={CALLS: Elsewhere(900, 0)})
    sold = await region.take(1)
    assert isinstance(sold, Admitted)
    assert sold.balances[0].overage == 11
    assert await region.lease(meters=held, elsewhere=free, asked_s=region.now - OVERAGE_ASKS_SECONDS)
    assert isinstance(await region.take(1), Admitted)


async def test_a_leased_organization_may_have_so_many_requests_under_way(region: RegionBooks) -> None:
    await region.publish(concurrent_max=1)
    assert await region.lease()
    admitted = await region.take(1)
    assert isinstance(admitted, Admitted)
    assert admitted.permit
    assert isinstance(await region.take(1), ConcurrencyLimited)
    holding = await region.ledger.holding(region.org)
    assert holding is not None
    assert holding.snapshot.concurrent_max == 1
    assert (holding.number, holding.returns, holding.lasts_s) == (2, 0, 60)


async def test_a_correction_is_not_paid_from_what_is_held_in_a_later_period(region: RegionBooks) -> None:
    assert await region.lease()
    first = await region.take(60)
    assert isinstance(first, Admitted)
    before = Period(region.now - 2000, region.now - 1000)
    later = first.receipt.replace(str(region.periods[0].start).encode(), str(before.start).encode())
    settlement = await charging.settle(region.ledger, region.org, later, {CALLS: 70})
    assert (settlement.units, settlement.shortfall) == ({CALLS: 0}, {CALLS: 10})
    second = await region.take(10)
    assert isinstance(second, Admitted)
    settlement = await charging.settle(region.ledger, region.org, second.receipt, {CALLS: 70})
    assert (settlement.units, settlement.shortfall) == ({CALLS: 30}, {CALLS: 30})


async def test_a_ledger_that_has_lost_its_memory_admits_nothing_until_it_has_a_lease_again(region: RegionBooks) -> None:
    assert await region.lease()
    assert await region.ledger.lapse([region.org]) == 1
    assert await region.take(1) == Unknown(lapsed=True)
    assert await region.lease()
    assert isinstance(await region.take(100), Admitted)


async def test_a_client_reads_the_limit_of_the_organization_and_what_no_region_has_charged(
    region: RegionBooks,
) -> None:
    elsewhere = {CALLS: Elsewhere(limit=900, remaining=650, free=300)}
    assert await region.lease(elsewhere=elsewhere)
    for take in (region.take, region.take_with_more):
        await region.publish(meters=(*region.entitlement.meters[:1], MeterLimit("tokens", 10)))
        assert await region.lease(meters=(MeterLimit(CALLS, 100, 0), MeterLimit("tokens", 5, 0)))
        decision = await take(10)
        assert isinstance(decision, Admitted)
        used = 10 if take == region.take else 20
        assert decision.balances[0] == MeterBalance(CALLS, 1000, 100 - used + 650, 0)
    snapshot = await region.ledger.peek(region.org)
    assert snapshot is not None
    assert next(iter(snapshot.balances())) == MeterBalance(CALLS, 1000, 730, 0)
    refused = await region.take(81)
    assert isinstance(refused, Exhausted)
    assert refused.balance == MeterBalance(CALLS, 1000, 730, 0)
    assert not refused.over_limit
    never = await region.take(1001)
    assert isinstance(never, Exhausted)
    assert never.over_limit


async def test_a_refusal_says_that_the_home_may_have_the_units(region: RegionBooks) -> None:
    elsewhere = {CALLS: Elsewhere(900, 900, 0, free=20)}
    assert await region.lease(asked_s=region.now, elsewhere=elsewhere)
    refused = [await region.take(units) for units in (120, 121)]
    assert [r.more_elsewhere for r in refused if isinstance(r, Exhausted)] == [True, False]
    assert await region.lease(asked_s=region.now - ANSWER_SECONDS)
    old = await region.take(121)
    assert isinstance(old, Exhausted)
    assert old.more_elsewhere


async def test_a_correction_above_the_charge_is_not_paid_once_the_lease_is_over(region: RegionBooks) -> None:
    assert await region.lease()
    taken = await region.take(10)
    assert isinstance(taken, Admitted)
    await region.ledger.lapse([region.org])
    settlement = await charging.settle(region.ledger, region.org, taken.receipt, {CALLS: 20})
    assert (settlement.units, settlement.shortfall) == ({CALLS: 0}, {CALLS: 10})


async def test_a_return_is_counted_above_what_the_home_has_heard(region: RegionBooks) -> None:
    assert await region.lease()
    assert await region.ledger.lower(region.org, {}, GENERATION, above=7) == 8
    assert await region.lower({}) == 9

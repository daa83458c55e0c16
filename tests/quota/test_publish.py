"""publish: only a newer version is installed, what was used stays used, and whoever waits is told."""

import asyncio

import pytest

from quota import keys
from quota.model import (
    Admitted,
    Entitlement,
    Exhausted,
    Grant,
    MeterBalance,
    MeterLimit,
    MeterUsage,
    NotEntitled,
    NotInPlan,
    OveragePolicy,
    Status,
    Unknown,
)
from quota.periods import Period
from tests.quota.books import Books

DAY = 86_400


async def test_a_newer_version_is_installed_and_an_older_or_equal_one_is_not(books: Books) -> None:
    assert await books.publish(version=5)
    for version in (5, 4, 0):
        before = await books.redis.dump(books.hash)
        assert not await books.publish(version=version, meters=(MeterLimit("api_calls", 99),))
        assert await books.redis.dump(books.hash) == before
    assert await books.publish(version=6, meters=(MeterLimit("api_calls", 99),))
    assert (await books.balance()).limit == 99


async def test_of_versions_published_at_once_the_newest_stays_in_any_order(books: Books) -> None:
    versions = [7, 3, 9, 1, 8, 2, 6, 4, 5]
    await asyncio.gather(*[books.publish(version=v, meters=(MeterLimit("api_calls", v),)) for v in versions])
    snapshot = await books.snapshot()
    assert (snapshot.version, snapshot.meters) == (9, (MeterLimit("api_calls", 9),))


async def test_the_first_version_may_be_zero(books: Books) -> None:
    assert await books.publish(version=0, status=Status.NONE, periods=())
    assert not await books.publish(version=0)
    assert await books.publish(version=1)


async def test_versions_up_to_2_to_the_53_are_told_apart(books: Books) -> None:
    assert await books.publish(version=2**53 - 2)
    assert await books.publish(version=2**53 - 1)
    assert not await books.publish(version=2**53 - 2)


@pytest.mark.parametrize("allowance", [0, 5, 8, 10, 1000])
async def test_a_plan_change_never_touches_what_was_used(books: Books, allowance: int) -> None:
    grant = Grant("bonus", "api_calls", 5, books.now + 600)
    await books.publish(policy=OveragePolicy.METERED, grants=(grant,))
    await books.admitted(17)
    before = await books.counters()
    for policy in OveragePolicy:
        await books.publish(meters=(MeterLimit("api_calls", allowance),), policy=policy, grants=(grant,))
        assert await books.counters() == before
    await books.publish(status=Status.SUSPENDED, grants=(grant,))
    assert await books.counters() == before


async def test_an_upgrade_adds_what_the_new_allowance_has_more(books: Books) -> None:
    await books.publish()
    await books.admitted(10)
    await books.publish(meters=(MeterLimit("api_calls", 12),))
    assert (await books.admitted(2)).balances == [MeterBalance("api_calls", 12, 0, 0)]
    assert isinstance(await books.take(1), Exhausted)


async def test_after_a_downgrade_nothing_is_left_and_nothing_is_owed(books: Books) -> None:
    await books.publish()
    await books.admitted(8)
    await books.publish(meters=(MeterLimit("api_calls", 5),))
    decision = await books.take(1)
    assert isinstance(decision, Exhausted)
    assert decision.balance == MeterBalance("api_calls", 5, 0, 0)
    await books.publish()
    assert (await books.admitted(2)).balances == [MeterBalance("api_calls", 10, 0, 0)]


async def test_metered_to_hard_stop_and_back_keeps_what_was_sold(books: Books) -> None:
    await books.publish(policy=OveragePolicy.METERED)
    await books.admitted(12)
    await books.publish()
    assert isinstance(await books.take(1), Exhausted)
    await books.publish(policy=OveragePolicy.METERED)
    assert (await books.admitted(1)).balances == [MeterBalance("api_calls", 10, 0, 3)]


async def test_a_meter_that_is_no_longer_listed_is_gone_and_its_count_is_kept(books: Books) -> None:
    await books.publish(meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    await books.admitted(api_calls=1, tokens=60)
    await books.publish()
    assert await books.take(tokens=1) == NotInPlan("tokens")
    await books.publish(meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    assert (await books.admitted(tokens=40)).balances == [MeterBalance("tokens", 100, 0, 0)]


async def test_a_grant_that_is_no_longer_listed_is_gone_with_its_counter(books: Books) -> None:
    grant = Grant("bonus", "api_calls", 5, books.now + 600)
    await books.publish(grants=(grant,))
    await books.admitted(13)
    await books.publish()
    assert await books.counters() == {"used:api_calls": 13, "burnt:api_calls": 3}
    assert not await books.redis.hexists(books.hash, "g:api_calls")
    assert isinstance(await books.take(1), Exhausted)


async def test_counters_of_periods_long_over_are_dropped_and_those_of_the_period_before_are_kept(books: Books) -> None:
    old = [
        MeterUsage(books.start - 40 * DAY - 1, "api_calls", 9, 2, 1),
        MeterUsage(books.start - 40 * DAY, "tokens", 7),
    ]
    await books.ledger.seed(books.org, old, {})
    await books.publish()
    assert await books.counters() == {f"used:{books.start - 40 * DAY}:tokens": 7}


async def test_counts_of_refunds_are_dropped_with_their_period(books: Books) -> None:
    old, kept = books.start - 40 * DAY - 1, books.start - 40 * DAY
    await books.redis.hset(books.hash, mapping={f"refunds:{old}": 3, f"refunds:{kept}": 4})
    await books.publish()
    assert (await books.snapshot()).refunds == {kept: 4}


async def test_an_entitlement_without_periods_drops_no_counter(books: Books) -> None:
    await books.ledger.seed(books.org, [MeterUsage(1, "api_calls", 9)], {})
    await books.publish(status=Status.ENDED, periods=())
    assert await books.counters() == {"used:1:api_calls": 9}


async def test_the_current_and_the_next_period_are_published_ahead(books: Books) -> None:
    await books.publish(periods=(Period(books.now - 200, books.now), Period(books.now, books.now + 1000)))
    decision = await books.take()
    assert isinstance(decision, Admitted)
    assert decision.period == Period(books.now, books.now + 1000)


async def test_every_publication_is_announced_whether_it_was_installed_or_not(books: Books) -> None:
    async with books.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.CHANGED)
        assert await books.publish(version=5)
        assert not await books.publish(version=4)
        heard: list[bytes] = []
        async with asyncio.timeout(60):
            while len(heard) < 2:
                if message := await pubsub.get_message(timeout=1):
                    heard.append(message["data"])
    assert heard == [b"acme", b"acme"]


async def test_an_entitlement_with_a_time_to_live_is_forgotten_and_one_without_stays(books: Books) -> None:
    nobody = Entitlement(books.org, 0, Status.NONE)
    assert await books.ledger.publish(nobody, ttl_seconds=60)
    assert 0 < await books.redis.ttl(books.hash) <= 60
    assert await books.take() == NotEntitled(Status.NONE)
    assert await books.publish(version=1)
    assert await books.redis.ttl(books.hash) == -1
    await books.admitted()


async def test_once_it_is_forgotten_the_organization_is_unknown_again(books: Books) -> None:
    await books.ledger.publish(Entitlement(books.org, 0, Status.NONE), ttl_seconds=60)
    await books.redis.pexpireat(books.hash, 1)
    assert await books.take() == Unknown(lapsed=False)
    assert await books.ledger.publish(Entitlement(books.org, 0, Status.NONE), ttl_seconds=60)


async def test_hundreds_of_meters_are_published_whole(books: Books) -> None:
    meters = tuple(MeterLimit(f"meter_{i:03d}", i) for i in range(500))
    await books.publish(meters=meters)
    assert [(m.meter, m.allowance) for m in (await books.snapshot()).meters] == [(m.meter, m.allowance) for m in meters]
    await books.publish()
    assert len((await books.snapshot()).meters) == 1


async def test_more_meters_than_one_publication_can_hold_leave_the_old_one_in_place(books: Books) -> None:
    await books.publish()
    before = await books.redis.dump(books.hash)
    with pytest.raises(Exception, match="publish"):
        await books.publish(meters=tuple(MeterLimit(f"meter_{i}", i) for i in range(10_000)))
    assert await books.redis.dump(books.hash) == before

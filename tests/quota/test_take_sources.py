"""Where a charge comes from: the allowance, then grants by earliest expiry, then overage where the policy sells it."""

import pytest

from quota.events import Charge
from quota.model import UNITS_MAX, Exhausted, Grant, MeterBalance, MeterLimit, MeterUsage, OveragePolicy
from quota.periods import Period
from tests.quota.books import Books

METERED = OveragePolicy.METERED
CALLS = "api_calls"


def grant(name: str, units: int, expires_at: int) -> Grant:
    return Grant(name, CALLS, units, expires_at)


async def test_the_allowance_goes_first_then_the_grant_that_expires_first(books: Books) -> None:
    await books.publish(grants=(grant("late", 5, books.now + 900), grant("soon", 3, books.now + 600)))
    decision = await books.admitted(12)
    assert decision.balances == [MeterBalance(CALLS, 18, 6, 0)]
    assert (await books.events())[0].charges == (Charge(CALLS, 12, 0, (("soon", 2),)),)
    await books.admitted(4)
    assert (await books.events())[1].charges == (Charge(CALLS, 4, 0, (("soon", 1), ("late", 3))),)
    assert await books.counters() == {"used:api_calls": 16, "burnt:api_calls": 6, "grant:soon": 3, "grant:late": 3}


async def test_grants_of_one_expiry_are_burnt_in_the_order_of_their_ids(books: Books) -> None:
    await books.publish(grants=(grant("b", 3, books.now + 600), grant("a", 3, books.now + 600)))
    await books.admitted(14)
    assert (await books.events())[0].charges[0].burnt == (("a", 3), ("b", 1))


async def test_a_grant_is_untouched_while_the_allowance_lasts(books: Books) -> None:
    await books.publish(grants=(grant("bonus", 5, books.now + 600),))
    assert (await books.admitted(10)).balances == [MeterBalance(CALLS, 15, 5, 0)]
    assert await books.counters() == {"used:api_calls": 10}


async def test_an_expired_grant_is_not_burnt_and_not_counted(books: Books) -> None:
    await books.publish(grants=(grant("gone", 5, books.now), grant("live", 2, books.now + 600)))
    assert (await books.admitted(11)).balances == [MeterBalance(CALLS, 12, 1, 0)]
    assert (await books.events())[0].charges[0].burnt == (("live", 1),)
    async with books.unchanged():
        assert isinstance(await books.take(2), Exhausted)


async def test_what_a_grant_gave_stays_given_when_it_expires(books: Books) -> None:
    await books.publish(grants=(grant("bonus", 5, books.now + 600),))
    await books.admitted(13)
    await books.publish(grants=(grant("bonus", 5, books.now),))
    # 13 used, 3 of them paid by the grant: the allowance of 10 is used up, and what the grant had left is void.
    assert await books.balance() == MeterBalance(CALLS, 13, 0, 0)
    assert isinstance(await books.take(1), Exhausted)


async def test_a_grant_reaches_into_the_next_period_with_what_is_left_of_it(books: Books) -> None:
    await books.publish(grants=(grant("bonus", 5, books.now + 600),))
    await books.admitted(13)
    rolled = (Period(books.start + 1, books.periods[0].end), books.periods[1])
    await books.publish(grants=(grant("bonus", 5, books.now + 600),), periods=rolled)
    assert (await books.admitted(12)).balances == [MeterBalance(CALLS, 12, 0, 0)]
    assert (await books.counters())["grant:bonus"] == 5
    assert isinstance(await books.take(1), Exhausted)


async def test_a_grant_pays_for_its_own_meter_only(books: Books) -> None:
    meters = (MeterLimit(CALLS, 1), MeterLimit("tokens", 1))
    await books.publish(meters=meters, grants=(grant("bonus", 5, books.now + 600),))
    async with books.unchanged():
        decision = await books.take(api_calls=2, tokens=2)
    assert isinstance(decision, Exhausted)
    assert decision.balance.meter == "tokens"


async def test_a_refused_charge_burns_no_grant(books: Books) -> None:
    await books.publish(grants=(grant("bonus", 5, books.now + 600),))
    await books.admitted(12)
    async with books.unchanged():
        decision = await books.take(4)
    assert isinstance(decision, Exhausted)
    assert decision.balance == MeterBalance(CALLS, 15, 3, 0)
    assert not decision.over_limit


async def test_metered_without_a_cap_sells_whatever_is_asked_beyond_the_allowance(books: Books) -> None:
    await books.publish(policy=METERED)
    decision = await books.admitted(1_000_000)
    assert decision.balances == [MeterBalance(CALLS, 10, 0, 999_990)]
    assert (await books.events())[0].charges == (Charge(CALLS, 1_000_000, 999_990),)


async def test_metered_with_a_cap_sells_exactly_up_to_it(books: Books) -> None:
    await books.publish(policy=METERED, meters=(MeterLimit(CALLS, 10, overage_max=5),))
    await books.admitted(14)
    async with books.unchanged():
        decision = await books.take(2)
        assert isinstance(decision, Exhausted)
        assert decision.balance == MeterBalance(CALLS, 10, 0, 4)
        assert not decision.over_limit
    assert (await books.admitted(1)).balances == [MeterBalance(CALLS, 10, 0, 5)]
    assert isinstance(await books.take(1), Exhausted)


@pytest.mark.parametrize(("cost", "over_limit"), [(15, False), (16, True)])
async def test_only_a_cost_above_allowance_and_cap_together_can_never_pass(
    books: Books, cost: int, over_limit: bool
) -> None:
    await books.publish(policy=METERED, meters=(MeterLimit(CALLS, 10, overage_max=5),))
    await books.admitted(1)
    decision = await books.take(cost)
    assert isinstance(decision, Exhausted)
    assert decision.over_limit is over_limit


async def test_a_cap_of_zero_sells_nothing(books: Books) -> None:
    await books.publish(policy=METERED, meters=(MeterLimit(CALLS, 10, overage_max=0),))
    await books.admitted(10)
    assert isinstance(await books.take(1), Exhausted)


async def test_a_hard_stop_sells_no_overage_even_where_a_cap_is_written(books: Books) -> None:
    await books.publish(meters=(MeterLimit(CALLS, 10, overage_max=5),))
    await books.admitted(10)
    assert isinstance(await books.take(1), Exhausted)


async def test_one_charge_may_come_from_all_three_sources(books: Books) -> None:
    await books.publish(policy=METERED, grants=(grant("bonus", 5, books.now + 600),))
    decision = await books.admitted(18)
    assert decision.balances == [MeterBalance(CALLS, 15, 0, 3)]
    assert decision.receipt.decode() == f"t 1 acme {books.start} api_calls:18:3:bonus=5"
    assert await books.counters() == {
        "used:api_calls": 18,
        "burnt:api_calls": 5,
        "over:api_calls": 3,
        "grant:bonus": 5,
    }


async def test_a_larger_allowance_is_usable_though_overage_was_sold(books: Books) -> None:
    await books.publish(policy=METERED)
    await books.admitted(15)
    await books.publish(meters=(MeterLimit(CALLS, 20),))
    # 10 came from the allowance and 5 were sold: sold is sold, and 10 of the 20 are left.
    assert (await books.admitted(10)).balances == [MeterBalance(CALLS, 20, 0, 5)]
    assert isinstance(await books.take(1), Exhausted)


async def test_a_grant_given_after_overage_was_sold_pays_for_what_comes_next(books: Books) -> None:
    await books.publish(policy=METERED)
    await books.admitted(12)
    await books.publish(policy=METERED, grants=(grant("late", 5, books.now + 600),))
    assert (await books.admitted(6)).balances == [MeterBalance(CALLS, 15, 0, 3)]
    assert await books.counters() == await books.event_sums()


async def test_overage_is_counted_exactly_at_the_largest_numbers(books: Books) -> None:
    await books.publish(policy=METERED, meters=(MeterLimit(CALLS, UNITS_MAX),))
    await books.ledger.seed(books.org, [MeterUsage(books.start, CALLS, UNITS_MAX, 0, 0)], {})
    assert (await books.admitted(999_999_999_999)).balances == [MeterBalance(CALLS, UNITS_MAX, 0, 999_999_999_999)]
    assert await books.counters() == {
        "used:api_calls": UNITS_MAX + 999_999_999_999,
        "over:api_calls": 999_999_999_999,
    }


async def test_many_grants_of_long_ids_are_burnt_in_order(books: Books) -> None:
    grants = tuple(grant(f"{'g' * 60}{i:02d}", 1, books.now + 600 + i) for i in range(40))
    await books.publish(grants=grants)
    await books.admitted(10 + 25)
    assert [name for name, _ in (await books.events())[0].charges[0].burnt] == [g.id for g in grants[:25]]
    assert (await books.admitted(15)).balances == [MeterBalance(CALLS, 50, 0, 0)]

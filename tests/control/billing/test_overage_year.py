"""A year of an organization that pays for overage. Stripe's clock is ours; it begins a year ago."""

import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from common.clock import Clock
from devstack.stripe.account import Account
from devstack.stripe.account import Clock as StripeClock
from tests.control.billing.shop import DAY, Double, Shop, opened_double

ALLOWANCE = 100_000
HOUR = 3600


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with opened_double(Account(StripeClock(offset_seconds=-400 * DAY))) as opened:
        opened.deliveries.signing_clock = opened.account.clock.now
        yield opened


@pytest.fixture
def shop_clock(double: Double) -> Clock:
    return double.account.clock.now


class Customer:
    """Uses its plan, a part at a time; what is beyond the allowance is counted as take and settle count it."""

    def __init__(self, shop: Shop, org: str) -> None:
        self._shop = shop
        self._org = org
        self.used: Counter[int] = Counter()

    async def uses(self, period_start: int, units: int) -> None:
        before = max(0, self.used[period_start] - ALLOWANCE)
        self.used[period_start] += units
        after = max(0, self.used[period_start] - ALLOWANCE)
        await self._shop.usage(self._org, period_start, units, after - before)

    def beyond(self, period_start: int) -> int:
        return max(0, self.used[period_start] - ALLOWANCE)


async def test_in_a_year_the_units_that_are_invoiced_are_those_of_the_events_beyond_the_allowance(shop: Shop) -> None:
    account, chance = shop.double.account, random.Random(7)
    org = await shop.signed_up("growth")
    customer, starts = Customer(shop, org), []
    late = 0
    for month in range(12):
        item = (await shop.subscription(org))["items"]["data"][0]
        start, end = item["current_period_start"], item["current_period_end"]
        starts.append(start)
        # One month stays below the allowance, and one gives back so much that what Stripe was told was too much.
        for _ in range(3):
            await shop.later(days=chance.uniform(4, 8))
            await customer.uses(start, 10_000 if month == 3 else chance.randint(30_000, 80_000))
            await report(shop)
        if month == 6:
            await customer.uses(start, -15_000)
        account.advance_to(end)
        await customer.uses(start, chance.randint(1, 999))  # a request that was under way
        await shop.settled()
        account.advance_to(end + HOUR // 2)
        await customer.uses(start, 7)
        await report(shop)
        account.advance_to(end + HOUR + 60)
        await shop.settled()
        if month == 8:
            await customer.uses(start, 11)  # too late for its invoice: the next has it
            await report(shop)
            late = 11
    lines = [
        (line["period"]["start"], line["quantity"])
        for invoice in account.find("invoice", billing_reason="subscription_cycle")
        for line in invoice["lines"]["data"]
        if line["description"] == "Usage"
    ]
    invoiced = dict(lines)
    assert len(lines) == len(invoiced) == 12
    assert sum(invoiced.values()) == sum(map(customer.beyond, starts)) > 500_000
    assert invoiced[starts[3]] == 0
    carried = {starts[8]: -late, starts[9]: late}
    assert invoiced == {start: customer.beyond(start) + carried.get(start, 0) for start in starts}
    async with shop.context.db.connection() as connection:
        query = "SELECT sum(overage) FROM usage_event WHERE org = $1"
        assert await connection.fetchval(query, org) == sum(invoiced.values())
    incidents = await shop.incidents()
    assert [kind for kind in incidents if kind != "clock_skew"] == [
        "overage_late"
    ]  # Stripe's calendar is the clock here


async def report(shop: Shop) -> None:
    """What happens once an hour."""
    assert shop.context.billing is not None
    while await shop.context.writer.lag_seconds():
        await shop.settled()
    await shop.context.billing.overage.freeze()
    assert await shop.context.billing.overage.send()

"""Two whole control planes, each with a Redis of its own, sell one quota."""

import asyncio

from quota import keys
from quota.model import Admitted
from tests.control.regions.planes import CALLS, SHARDS, Plane, Planes, planes, running, second_valkey

__all__ = ["planes", "running", "second_valkey"]

ALLOWANCE = 2000
UNITS = 7
REFUSALS = 15  # one after the other, in three seconds


async def sell(plane: Plane, org: str) -> int:
    """Until nothing is left for it."""
    sold = refused = 0
    while refused < REFUSALS:
        if isinstance(await plane.take(org, UNITS), Admitted):
            sold, refused = sold + UNITS, 0
        else:
            refused += 1
            await asyncio.sleep(0.2)
    return sold


async def test_two_regions_sell_a_quota_to_its_end_and_not_a_unit_more(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: ALLOWANCE})
    sold = sum(await asyncio.gather(sell(running.us, org), sell(running.eu, org)))
    assert ALLOWANCE * 0.995 <= sold <= ALLOWANCE
    await running.written(org, sold // UNITS)
    assert await running.value("SELECT sum(used) FROM usage_counter WHERE org = $1", org) == sold
    for plane in (running.us, running.eu):
        assert await plane.context.scan.check([org]) == []


async def test_what_one_region_did_not_use_is_sold_by_the_other_to_the_last_unit(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: ALLOWANCE})
    assert isinstance(await running.eu.take(org, UNITS), Admitted)
    sold = UNITS + await sell(running.us, org)
    assert ALLOWANCE * 0.995 <= sold <= ALLOWANCE


async def test_a_region_whose_redis_forgets_while_both_sell_gives_nothing_twice(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: ALLOWANCE})
    selling = [asyncio.create_task(sell(plane, org)) for plane in (running.us, running.eu)]
    await asyncio.sleep(0.3)
    # As a restart without what was written last: the recovery puts counters back from rows and streams.
    await running.eu.redis.delete(*map(keys.generation_key, range(SHARDS)))
    sold = sum(await asyncio.gather(*selling))
    assert ALLOWANCE * 0.995 <= sold <= ALLOWANCE


async def test_a_higher_limit_is_for_sale_in_both_regions_and_a_lower_one_in_none(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: 70})
    sold = sum(await asyncio.gather(sell(running.us, org), sell(running.eu, org)))
    assert sold == 70
    for limit in (140, 100):
        answer = await running.us.admin.put(f"/v1/entitlements/{org}", json={"plan": "many", "meters": {CALLS: limit}})
        assert answer.status_code == 200
        sold += sum(await asyncio.gather(sell(running.us, org), sell(running.eu, org)))
        assert sold == 140

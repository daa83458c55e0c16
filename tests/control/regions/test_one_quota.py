"""Two whole control planes, each with a Redis of its own, sell one quota."""

import asyncio
import time
from collections.abc import Sequence

from quota import keys
from quota.model import Admitted
from tests.control.regions.planes import CALLS, SHARDS, Plane, Planes, planes, running, second_valkey

__all__ = ["planes", "running", "second_valkey"]

ALLOWANCE = 2000
ENOUGH = ALLOWANCE * 0.995
UNITS = 7
REFUSED_SECONDS = 3.0
PATIENCE_SECONDS = 60.0


async def sell(planes: Sequence[Plane], org: str, enough: float) -> int:
    """Clients of all ask until so many units are sold and nobody has got any for a while; how many are sold then."""
    sold, deadline, last = 0, time.monotonic() + PATIENCE_SECONDS, time.monotonic()

    async def ask(plane: Plane) -> None:
        nonlocal sold, last
        while time.monotonic() < (last + REFUSED_SECONDS if sold >= enough else deadline):
            if isinstance(await plane.take(org, UNITS), Admitted):
                sold, last = sold + UNITS, time.monotonic()
            else:
                await asyncio.sleep(0.2)

    await asyncio.gather(*map(ask, planes))
    return sold


async def test_two_regions_sell_a_quota_to_its_end_and_not_a_unit_more(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: ALLOWANCE})
    sold = await sell([running.us, running.eu], org, ENOUGH)
    assert ENOUGH <= sold <= ALLOWANCE
    await running.written(org, sold // UNITS)
    assert await running.value("SELECT sum(used) FROM usage_counter WHERE org = $1", org) == sold
    for plane in (running.us, running.eu):
        assert await plane.context.scan.check([org]) == []


async def test_what_one_region_did_not_use_is_sold_by_the_other_to_the_last_unit(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: ALLOWANCE})
    assert isinstance(await running.eu.take(org, UNITS), Admitted)
    sold = UNITS + await sell([running.us], org, ENOUGH - UNITS)
    assert ENOUGH <= sold <= ALLOWANCE


async def test_a_region_whose_redis_forgets_while_both_sell_gives_nothing_twice(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: ALLOWANCE})
    selling = asyncio.create_task(sell([running.us, running.eu], org, ENOUGH))
    await asyncio.sleep(0.3)
    # As a restart without what was written last: the recovery puts counters back from rows and streams.
    await running.eu.redis.delete(*map(keys.generation_key, range(SHARDS)))
    sold = await selling
    assert ENOUGH <= sold <= ALLOWANCE


async def test_a_higher_limit_is_for_sale_in_both_regions_and_a_lower_one_in_none(running: Planes) -> None:
    org = await running.entitled("many", meters={CALLS: 70})
    sold = await sell([running.us, running.eu], org, 70)
    assert sold == 70
    for limit in (140, 100):
        answer = await running.us.admin.put(f"/v1/entitlements/{org}", json={"plan": "many", "meters": {CALLS: limit}})
        assert answer.status_code == 200
        sold += await sell([running.us, running.eu], org, 140 - sold)
        assert sold == 140

"""Control publishes, the ledger enforces, the writer writes: the two planes agree to the unit."""

import asyncio
import random
from collections import Counter
from uuid import uuid4

from httpx import AsyncClient

from control.http.context import Context
from quota import keys
from quota.model import Admitted, ConcurrencyLimited, Exhausted, NotEntitled, NotInPlan, RateLimited, Status, Unknown
from tests import charging
from tests.control.plane import Entitled

GRANT = {"meter": "api_calls", "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}


async def write_all(context: Context) -> None:
    await context.writer.resume()
    while not await context.writer.write():
        pass


async def rows(context: Context, org: str) -> list[tuple[str, str, int, int]]:
    async with context.db.connection() as connection:
        records = await connection.fetch("SELECT kind, request_id, units, overage FROM usage_event WHERE org = $1", org)
    return [tuple(row) for row in records]


async def test_of_three_times_the_limit_exactly_the_limit_is_admitted_and_written(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    decisions = await asyncio.gather(
        *(charging.take(context.ledger, org, f"r{n}", {"api_calls": 1}) for n in range(300))
    )
    assert Counter(type(d) for d in decisions) == {Admitted: 100, Exhausted: 200}
    await write_all(context)
    written = await rows(context, org)
    assert len(written) == len({request_id for _, request_id, _, _ in written}) == 100
    meter = (await admin.get(f"/v1/entitlements/{org}")).json()["meters"][0]
    assert (meter["used"], meter["remaining"]) == (100, 0)


async def test_a_metered_plan_sells_up_to_its_cap_and_the_rows_say_what_was_overage(
    context: Context, entitled: Entitled
) -> None:
    org = await entitled("growth", meters={"api_calls": 3}, overage_max={"api_calls": 2})
    decisions = [await charging.take(context.ledger, org, f"r{n}", {"api_calls": 1}) for n in range(8)]
    assert [type(d) for d in decisions] == [Admitted] * 5 + [Exhausted] * 3
    await write_all(context)
    assert sum(overage for *_, overage in await rows(context, org)) == 2


async def test_the_rate_limit_of_the_plan_is_enforced(context: Context, entitled: Entitled) -> None:
    org = await entitled("tiny", rate={"requests": 1, "seconds": 3600, "burst": 2})
    decisions = [await charging.take(context.ledger, org, f"r{n}", {"api_calls": 1}) for n in range(3)]
    assert [type(d) for d in decisions] == [Admitted, Admitted, RateLimited]


async def test_the_number_of_requests_under_way_is_the_plans_or_the_organizations_own(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny", concurrent_max=2)
    decisions = [await charging.take(context.ledger, org, f"r{n}", {"api_calls": 1}) for n in range(3)]
    assert [type(d) for d in decisions] == [Admitted, Admitted, ConcurrencyLimited]
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["concurrent_max"] == 2
    assert (await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny"})).json()["concurrent_max"] is None
    assert isinstance(await charging.take(context.ledger, org, "r4", {"api_calls": 1}), Admitted)


async def test_a_meter_is_open_while_the_plan_or_a_grant_has_it(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    assert isinstance(await charging.take(context.ledger, org, "r1", {"images": 1}), NotInPlan)
    grant = {**GRANT, "meter": "images", "units": 1}
    assert (await admin.post(f"/v1/organizations/{org}/grants", json=grant)).status_code == 201
    assert isinstance(await charging.take(context.ledger, org, "r2", {"images": 1}), Admitted)
    assert isinstance(await charging.take(context.ledger, org, "r3", {"images": 1}), Exhausted)


async def test_a_charge_that_was_settled_is_written_as_it_was_corrected(context: Context, entitled: Entitled) -> None:
    org = await entitled("tiny")
    decision = await charging.take(context.ledger, org, "r1", {"api_calls": 10})
    assert isinstance(decision, Admitted)
    await charging.settle(context.ledger, org, decision.receipt, {"api_calls": 4})
    await write_all(context)
    assert sorted(await rows(context, org)) == [("settle", "r1", -6, 0), ("take", "r1", 10, 0)]


async def test_each_status_is_served_or_refused_by_name(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    for status in ("trialing", "grace", "active"):
        await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "status": status})
        assert isinstance(await charging.take(context.ledger, org, uuid4().hex, {"api_calls": 1}), Admitted)
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "status": "suspended"})
    assert await charging.take(context.ledger, org, "r", {"api_calls": 1}) == NotEntitled(Status.SUSPENDED)
    await admin.delete(f"/v1/entitlements/{org}")
    assert await charging.take(context.ledger, org, "r", {"api_calls": 1}) == NotEntitled(Status.ENDED)


async def test_after_any_story_counters_rows_and_redis_agree_to_the_unit(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    rng = random.Random(20261122)
    org = await entitled("growth", meters={"api_calls": 40, "tokens": 300}, overage_max={"tokens": 50})
    receipts: list[tuple[bytes, dict[str, int]]] = []
    for n in range(250):
        what = rng.random()
        if what < 0.03:
            await admin.post(f"/v1/organizations/{org}/grants", json={**GRANT, "units": rng.randint(1, 9)})
        elif what < 0.06:
            own = {"api_calls": rng.randint(0, 90), "tokens": rng.randint(0, 500)}
            policy = rng.choice(["HARD_STOP", "METERED"])
            await admin.put(f"/v1/entitlements/{org}", json={"plan": "growth", "policy": policy, "meters": own})
        elif what < 0.09:
            await context.ledger.redis.delete(keys.org_key(org, 32))
            assert isinstance(await charging.take(context.ledger, org, "lost", {"api_calls": 1}), Unknown)
            await context.publisher.install(org)
        elif what < 0.15:
            await write_all(context)
        elif what < 0.35 and receipts:
            receipt, charged = receipts.pop(rng.randrange(len(receipts)))
            await charging.settle(
                context.ledger, org, receipt, {meter: rng.randint(0, 2 * c) for meter, c in charged.items()}
            )
        else:
            charges = {"api_calls": rng.randint(0, 3)} | ({"tokens": rng.randint(0, 9)} if rng.random() < 0.5 else {})
            decision = await charging.take(context.ledger, org, f"r{n}", charges)
            if isinstance(decision, Admitted):
                receipts.append((decision.receipt, charges))
    await write_all(context)

    standing = await context.ledger.peek(org)
    assert standing is not None
    in_redis = {(u.meter, u.used, u.burnt, u.overage) for u in standing.usage if u.used or u.burnt or u.overage}
    async with context.db.connection() as connection:
        counters = await connection.fetch("SELECT meter, used, burnt, overage FROM usage_counter WHERE org = $1", org)
        summed = await connection.fetch(
            """
            SELECT meter, sum(units)::bigint, sum(overage)::bigint FROM usage_event
            WHERE org = $1 GROUP BY meter
            """,
            org,
        )
        grants = await connection.fetch("SELECT grant_id, used FROM grant_counter WHERE org = $1", org)
    assert {tuple(c) for c in counters} == in_redis
    assert {tuple(s) for s in summed} == {(meter, used, overage) for meter, used, _, overage in in_redis}
    assert {g: n for g, n in grants if n} == {g: n for g, n in standing.grant_used.items() if n}


async def test_shards_and_organizations_of_both_planes_are_the_same(context: Context, entitled: Entitled) -> None:
    orgs = [await entitled("tiny") for _ in range(12)]
    for org in orgs:
        await charging.take(context.ledger, org, f"r-{org}", {"api_calls": 1})
    await write_all(context)
    async with context.db.connection() as connection:
        records = await connection.fetch("SELECT org, shard FROM usage_event WHERE org = ANY($1)", orgs)
    assert {tuple(row) for row in records} == {(org, keys.shard_of(org, 32)) for org in orgs}

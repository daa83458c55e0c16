"""Periods of an entitlement: as the API sets them, as gateways count in them, and over their boundaries."""

import asyncio
import math
from typing import Any

import pytest
from httpx import AsyncClient

from control.http.context import Context
from control.moments import rfc3339
from quota import keys
from quota.events import parse
from quota.model import Admitted, Exhausted, NotEntitled
from tests import charging
from tests.control.plane import Entitled
from tests.expected import monthly_period
from tests.replies import as_entries

DAY = 86_400


async def now_of(context: Context) -> float:
    """Redis TIME, by which periods are chosen."""
    seconds, microseconds = await context.ledger.redis.time()
    return float(seconds) + float(microseconds) / 1e6


async def put(admin: AsyncClient, org: str, **content: Any) -> dict[str, Any]:
    response = await admin.put(f"/v1/entitlements/{org}", json=content)
    assert response.status_code == 200, response.text
    entitlement: dict[str, Any] = response.json()
    return entitlement


@pytest.mark.parametrize(
    ("period", "days"), [({"unit": "week"}, 7), ({"every": 2, "unit": "week"}, 14), ({"every": 30, "unit": "day"}, 30)]
)
async def test_a_period_may_be_so_many_days_or_weeks(
    admin: AsyncClient, entitled: Entitled, context: Context, period: dict[str, Any], days: int
) -> None:
    anchor = int(await now_of(context)) - 3 * DAY
    org = await entitled("tiny", period=period, period_anchor=rfc3339(anchor))
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert entitlement["period"] == {"start": rfc3339(anchor), "end": rfc3339(anchor + days * DAY)}
    assert entitlement["period_rule"]["unit"] == period["unit"]
    decision = await charging.take(context.ledger, org, "r1", {"api_calls": 1})
    assert isinstance(decision, Admitted)
    assert decision.period.start == anchor
    again = await put(admin, org, plan="tiny")
    assert again["period"] == entitlement["period"], "what is left out stays as it was"


async def test_bounds_that_were_agreed_are_the_periods_and_after_the_last_nothing_is_admitted(
    admin: AsyncClient, entitled: Entitled, context: Context
) -> None:
    now = int(await now_of(context))
    bounds = [now - 10 * DAY, now + 20 * DAY, now + 110 * DAY]
    org = await entitled("tiny", period={"bounds": [rfc3339(bound) for bound in bounds]})
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert entitlement["period"] == {"start": rfc3339(bounds[0]), "end": rfc3339(bounds[1])}
    assert entitlement["period_rule"]["bounds"] == [rfc3339(bound) for bound in bounds]
    over = [rfc3339(now - 10 * DAY), rfc3339(now - DAY)]
    ended = await put(admin, org, plan="tiny", period={"bounds": over})
    assert ended["period"] is None
    assert ended["status"] == "ended"
    assert isinstance(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), NotEntitled)
    coming = [rfc3339(now + DAY), rfc3339(now + 9 * DAY)]
    assert (await put(admin, org, plan="tiny", period={"bounds": coming}))["status"] == "suspended"
    assert isinstance(await charging.take(context.ledger, org, "r2", {"api_calls": 1}), NotEntitled)
    async with context.db.connection() as connection:
        renew_at = await connection.fetchval("SELECT renew_at FROM publication WHERE org = $1", org)
    assert renew_at.timestamp() == now + DAY, "the first period begins by itself"


@pytest.mark.parametrize(
    ("period", "field"),
    [
        ({}, "body.period"),
        ({"every": 2}, "body.period"),
        ({"every": 0, "unit": "day"}, "body.period.every"),
        ({"every": 13, "unit": "month"}, "body.period"),
        ({"unit": "year"}, "body.period.unit"),
        ({"bounds": ["2026-01-01T00:00:00Z"]}, "body.period.bounds"),
        ({"bounds": ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"]}, "body.period"),
        ({"bounds": ["2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]}, "body.period"),
        ({"unit": "day", "bounds": ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]}, "body.period"),
    ],
)
async def test_periods_that_cannot_be_are_refused_with_their_field(
    admin: AsyncClient, entitled: Entitled, period: dict[str, Any], field: str
) -> None:
    org = await entitled("tiny")
    response = await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "period": period})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_a_plan_change_in_mid_period_keeps_what_was_used(
    admin: AsyncClient, entitled: Entitled, context: Context
) -> None:
    org = await entitled("tiny")
    assert isinstance(await charging.take(context.ledger, org, "r1", {"api_calls": 70}), Admitted)
    before = (await admin.get(f"/v1/entitlements/{org}")).json()
    after = await put(admin, org, plan="starter")
    assert after["period"] == before["period"]
    assert (after["meters"][0]["used"], after["meters"][0]["remaining"]) == (70, 9930)
    back = await put(admin, org, plan="tiny")
    assert back["meters"][0]["remaining"] == 30
    assert isinstance(await charging.take(context.ledger, org, "r2", {"api_calls": 31}), Exhausted)
    smaller = await put(admin, org, plan="tiny", meters={"api_calls": 50})
    assert smaller["meters"][0]["remaining"] == 0, "less than what is used: nothing is left, and nothing is owed"


async def test_a_plan_that_is_paid_by_the_year_has_monthly_periods(
    entitled: Entitled, context: Context, admin: AsyncClient
) -> None:
    anchor = monthly_period(0, await now_of(context) - 400 * DAY).start
    org = await entitled("starter", period_anchor=rfc3339(anchor))
    period = monthly_period(anchor, await now_of(context))
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert entitlement["period"] == {"start": rfc3339(period.start), "end": rfc3339(period.end)}


@pytest.mark.parametrize("allowance", [300, 10**6])
async def test_over_a_boundary_under_load_each_request_is_in_the_one_period_of_its_time(
    entitled: Entitled, context: Context, allowance: int
) -> None:
    """Nothing of the control plane runs: what is published is enough. One allowance is used up, the other is not."""
    used_up = min(allowance, 300)  # in each of the two, so that the boundary is met under load
    admitted: list[int] = []

    async def client(number: int) -> None:
        asked = 0
        while await now_of(context) < boundary + 0.6 or admitted.count(boundary) < used_up:
            decision = await charging.take(context.ledger, org, f"c{number}-{asked}", {"api_calls": 1})
            asked += 1
            if isinstance(decision, Admitted):
                admitted.append(decision.period.start)
            else:
                await asyncio.sleep(0.005)

    for lead_seconds in (1, 10, 30):  # a slow machine needs longer for what is to come before the boundary
        admitted.clear()
        boundary = math.ceil(await now_of(context)) + lead_seconds
        bounds = [boundary - DAY, boundary, boundary + DAY]
        period = {"bounds": [rfc3339(bound) for bound in bounds]}
        org = await entitled("tiny", meters={"api_calls": allowance}, period=period)
        await asyncio.gather(*map(client, range(12)))
        if admitted.count(bounds[0]) >= used_up:
            break
    assert sorted(set(admitted)) == bounds[:2]
    if allowance == 300:
        assert [admitted.count(start) for start in bounds[:2]] == [allowance, allowance]
    entries = as_entries(await context.ledger.redis.xrange(keys.events_key(keys.shard_of(org, context.ledger.shards))))
    for entry_id, fields in entries:
        period_start = parse(next(iter(fields.values())).decode()).period_start
        at = int(entry_id.partition(b"-")[0]) / 1000
        assert period_start == (bounds[0] if at < boundary else bounds[1])
    assert len(entries) == len(admitted)

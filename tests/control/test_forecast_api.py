"""The forecast of an organization: of the days that are over, until the period ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.http.context import Context
from control.moments import moment
from tests.control.plane import Entitled
from tests.control.test_usage_buckets import append
from tests.control.usage import write_all

pytestmark = pytest.mark.usefixtures("new_streams")
DAY = timedelta(days=1)


def midnight(context: Context) -> datetime:
    return moment(context.clock()).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def with_history(
    context: Context, entitled: Entitled, redis: Redis, days: int, units: int = 100, allowance: int = 1000
) -> str:
    """An organization whose period has just begun, and lasts for 30 days."""
    anchor = midnight(context).isoformat().replace("+00:00", "Z")
    org = await entitled(meters={"api_calls": allowance}, period={"every": 30, "unit": "day"}, period_anchor=anchor)
    for ago in range(days, 0, -1):
        at = midnight(context) - ago * DAY + timedelta(hours=12)
        await append(redis, context, org, at, f"api_calls:{units}")
    await write_all(context)
    return org


async def forecast(admin: AsyncClient, org: str) -> tuple[dict[str, Any], dict[str, Any]]:
    answer = await admin.get(f"/v1/organizations/{org}/forecast")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    [meter] = [each for each in document["meters"] if each["meter"] == "api_calls"]
    return document, meter


async def test_what_is_used_evenly_runs_out_after_as_many_days(
    context: Context, entitled: Entitled, redis: Redis, admin: AsyncClient
) -> None:
    org = await with_history(context, entitled, redis, days=40)
    document, meter = await forecast(admin, org)
    assert document["coverage_percent"] == 80
    assert (meter["history_days"], meter["remaining"]) == (40, 1000)
    at_end = meter["at_end"]
    left_days = (datetime.fromisoformat(document["period"]["end"]) - moment(context.clock())) / DAY
    assert at_end["likely"] == pytest.approx(100 * left_days, rel=0.02)
    assert at_end["low"] <= at_end["likely"] <= at_end["high"]
    earliest, likely, latest = (
        datetime.fromisoformat(meter["runs_out"][name]) for name in ("earliest", "likely", "latest")
    )
    assert earliest <= likely <= latest
    assert likely - moment(context.clock()) == pytest.approx(10 * DAY, abs=DAY / 2)
    assert meter["days"][-1]["until"] == document["period"]["end"]
    assert meter["days"][-1]["used"] == at_end
    assert meter["backtest"] == {"weeks": 3, "held": 3}


async def test_what_lasts_until_the_period_ends_does_not_run_out(
    context: Context, entitled: Entitled, redis: Redis, admin: AsyncClient
) -> None:
    org = await with_history(context, entitled, redis, days=21, allowance=10_000)
    _, meter = await forecast(admin, org)
    assert meter["runs_out"] is None
    assert meter["at_end"]["high"] < 10_000


async def test_too_short_a_history_says_nothing(
    context: Context, entitled: Entitled, redis: Redis, admin: AsyncClient
) -> None:
    org = await with_history(context, entitled, redis, days=6)
    _, meter = await forecast(admin, org)
    assert (meter["history_days"], meter["at_end"], meter["runs_out"], meter["days"]) == (6, None, None, [])


async def test_without_an_entitlement_there_is_nothing_to_forecast(admin: AsyncClient) -> None:
    await admin.put("/v1/organizations/bare", json={"name": "Bare"})
    assert (await admin.get("/v1/organizations/bare/forecast")).status_code == 404
    assert (await admin.get("/v1/organizations/nobody-here/forecast")).status_code == 404

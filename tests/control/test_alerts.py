"""Alerts that an organization chooses itself are thresholds beside those of the settings."""

from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.http.context import Context
from control.usage.thresholds import Thresholds
from tests.control.plane import Entitled
from tests.control.portal.customers import customer
from tests.control.test_usage_buckets import spend
from tests.control.usage import write_all

pytestmark = pytest.mark.usefixtures("new_streams")


async def choose(admin: AsyncClient, org: str, *percents: int) -> None:
    answer = await admin.put(f"/v1/organizations/{org}/alerts", json={"percents": list(percents)})
    assert answer.status_code == 200, answer.text


async def reached(admin: AsyncClient, org: str) -> list[int]:
    answer = await admin.get(f"/v1/organizations/{org}/alerts")
    return sorted(each["percent"] for each in answer.json()["reached"])


async def test_an_alert_of_the_own_choice_is_an_event_once_beside_those_of_the_settings(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org, other = await entitled(meters={"api_calls": 100}), await entitled(meters={"api_calls": 100})
    await choose(admin, org, 50, 20)
    for each in (org, other):
        for units in (30, 25, 30):
            await spend(context, each, units)
            await write_all(context)
    assert await reached(admin, org) == [20, 50, 80]
    assert await reached(admin, other) == [80]


async def test_what_is_reached_already_when_it_is_chosen_is_an_event_then(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled(meters={"api_calls": 100})
    await spend(context, org, 60)
    await write_all(context)
    assert await reached(admin, org) == []
    await choose(admin, org, 50)
    thresholds = Thresholds(context.db, (80, 100), context.ledger.shards, False, context.clock)
    await thresholds.review()
    assert await reached(admin, org) == [50]


@pytest.mark.parametrize("percents", [[0], [1001], ["50"], [None], list(range(1, 12)), "50"])
async def test_what_is_no_percentage_is_refused(admin: AsyncClient, entitled: Entitled, percents: Any) -> None:
    answer = await admin.put(f"/v1/organizations/{await entitled()}/alerts", json={"percents": percents})
    assert answer.status_code == 422


async def test_a_person_chooses_alerts_in_the_portal(context: Context, admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled()
    async with customer(context, admin, org, role="admin") as person, customer(context, admin, org) as member:
        await person.send("/portal/alerts", 303, percents="90, 50 %; 50")
        assert (await admin.get(f"/v1/organizations/{org}/alerts")).json()["percents"] == [50, 90]
        assert 'value="50, 90"' in await person.open("/portal/alerts")
        assert "Must be numbers" in await person.send("/portal/alerts", 422, percents="half")
        await member.send("/portal/alerts", 403, percents="10")
        assert "Percentages" not in await member.open("/portal/alerts")
        await person.send("/portal/alerts", 303, percents="")
    assert (await admin.get(f"/v1/organizations/{org}/alerts")).json()["percents"] == []
    entries = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert [each["action"] for each in entries if each["action"].startswith("alerts")] == ["alerts.chosen"] * 2

"""An organization at its limit is an incident, from the moment nothing is left until something is again."""

from typing import Any
from uuid import uuid4

from httpx import AsyncClient

from control.http.context import Context
from control.usage.limits import EXHAUSTED, LOOK_AGAIN_SECONDS, LimitWatch
from tests import charging
from tests.control.plane import Entitled, MovedClock


async def use(context: Context, org: str, units: int, meter: str = "api_calls") -> None:
    await charging.take(context.ledger, org, uuid4().hex[:20], {meter: units})
    await context.writer.resume()
    while not await context.writer.write():
        pass


async def incidents(context: Context, clock: MovedClock, admin: AsyncClient, org: str) -> list[dict[str, Any]]:
    """Of the organization, the open ones first, after another look."""
    clock.move(seconds=LOOK_AGAIN_SECONDS + 1)
    await LimitWatch(context.db, context.ledger, clock).round()
    listed = (await admin.get("/v1/incidents?limit=500")).json()["incidents"]
    return [each for each in listed if each["org"] == org and each["kind"] == EXHAUSTED]


async def test_an_organization_at_its_limit_is_an_incident_until_something_is_left_again(
    context: Context, clock: MovedClock, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    await use(context, org, 9)
    assert await incidents(context, clock, admin, org) == []
    await use(context, org, 1)
    for _ in range(2):
        [incident] = await incidents(context, clock, admin, org)
        assert (incident["closed_at"], incident["count"], incident["key"]) == (None, 1, f"{org}/api_calls")
        assert incident["content"].items() >= {"meter": "api_calls", "limit": 10, "policy": "HARD_STOP"}.items()

    grant = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "helping out"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    [incident] = await incidents(context, clock, admin, org)
    assert incident["closed_at"] is not None
    await use(context, org, 5)
    assert [each["closed_at"] is None for each in await incidents(context, clock, admin, org)] == [True, False]

    await admin.patch(f"/v1/entitlements/{org}", json={"meters": {"api_calls": 100}})
    assert all(each["closed_at"] for each in await incidents(context, clock, admin, org))


async def test_who_pays_for_more_is_at_no_limit_until_what_may_be_sold_is(
    context: Context, clock: MovedClock, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("growth", meters={"api_calls": 10}, overage_max={"api_calls": 3})
    await use(context, org, 10)
    await use(context, org, 2)
    assert await incidents(context, clock, admin, org) == []
    await use(context, org, 1)
    [incident] = await incidents(context, clock, admin, org)
    assert incident["content"]["overage_max"] == 3


async def test_an_organization_that_is_at_its_limit_by_grants_alone_is_told_too(
    context: Context, clock: MovedClock, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    grant = {"meter": "images", "units": 2, "expires_at": "2099-01-01T00:00:00Z", "reason": "a trial"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    await use(context, org, 1, "images")
    assert await incidents(context, clock, admin, org) == []
    await use(context, org, 1, "images")
    [incident] = await incidents(context, clock, admin, org)
    assert (incident["content"]["meter"], incident["closed_at"]) == ("images", None)


async def test_what_is_watched_is_forgotten_when_its_period_is_over(
    context: Context, clock: MovedClock, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny", meters={"api_calls": 1})
    await use(context, org, 1)
    assert await incidents(context, clock, admin, org)
    async with context.db.connection() as connection:
        await connection.execute("UPDATE limit_watch SET period_end = now() - interval '1 s' WHERE org = $1", org)
        await incidents(context, clock, admin, org)
        assert not await connection.fetchval("SELECT count(*) FROM limit_watch WHERE org = $1", org)

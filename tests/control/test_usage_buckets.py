"""`GET /v1/usage`: the buckets are the events, and with what is not written yet they are what the gateways enforce."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.http.context import Context
from control.moments import rfc3339
from control.usage import buckets
from quota import keys
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import Admitted
from tests import charging
from tests.control.plane import Entitled, admin_of
from tests.control.usage import write_all

pytestmark = pytest.mark.usefixtures("new_streams")


async def spend(context: Context, org: str, units: int, meter: str = "api_calls") -> bytes:
    decision = await charging.take(context.ledger, org, uuid4().hex, {meter: units})
    assert isinstance(decision, Admitted)
    return decision.receipt


async def usage(admin: AsyncClient, org: str, **query: str) -> dict[str, Any]:
    response = await admin.get("/v1/usage", params={"org": org, **query})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def append(redis: Redis, context: Context, org: str, at: datetime, charges: str) -> None:
    """An event of that time; the ones of an organization must be appended in the order of time."""
    stream, start = keys.events_key(keys.shard_of(org, 32)), int(at.replace(day=1, hour=0, minute=0).timestamp())
    event: dict[Any, Any] = {"e": f"t {uuid4().hex} {org} {start} {charges}"}
    await redis.xadd(stream, event, id=f"{int(at.timestamp() * 1000)}-*")


def starts(answer: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(m["meter"], b["start"], b["units"]) for m in answer["meters"] for b in m["buckets"]]


@pytest.mark.parametrize("bucket", ["hour", "day", "month"])
async def test_the_sum_of_the_buckets_equals_the_counters_and_before_the_writer_comes_unwritten_is_the_rest(
    context: Context, entitled: Entitled, admin: AsyncClient, bucket: str
) -> None:
    org = await entitled("growth", meters={"api_calls": 10, "images": 50})
    grant = {"meter": "api_calls", "units": 4, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    for units in (8, 5, 3):
        await spend(context, org, units)
    await charging.settle(context.ledger, org, await spend(context, org, 9), {"api_calls": 6})
    await write_all(context)
    await spend(context, org, 30, "images")
    receipt = await spend(context, org, 2)
    await charging.settle(context.ledger, org, receipt, {"api_calls": 0})
    await spend(context, org, 1)

    def sums(answer: dict[str, Any]) -> dict[str, list[int]]:
        added: dict[str, list[int]] = {}
        for meter in [b | {"meter": m["meter"]} for m in answer["meters"] for b in m["buckets"]] + answer["unwritten"]:
            counter = added.setdefault(meter["meter"], [0, 0, 0])
            for i, name in enumerate(("units", "burnt", "overage")):
                counter[i] += meter[name]
        return added

    standing = await context.ledger.peek(org)
    assert standing is not None
    counters = {u.meter: [u.used, u.burnt, u.overage] for u in standing.usage}
    assert counters == {"api_calls": [23, 4, 9], "images": [30, 0, 0]}
    before = await usage(admin, org, bucket=bucket)
    assert [(u["meter"], u["units"], u["overage"]) for u in before["unwritten"]] == [
        ("api_calls", 1, 1),
        ("images", 30, 0),
    ]
    assert sums(before) == counters
    await write_all(context)
    after = await usage(admin, org, bucket=bucket)
    assert after["unwritten"] == []
    assert sums(after) == counters
    assert {m["meter"]: [m["units"], m["burnt"], m["overage"]] for m in after["meters"]} == counters
    assert {m["meter"]: m["events"] for m in after["meters"]} == {"api_calls": 8, "images": 1}
    only = await usage(admin, org, bucket=bucket, meter="images")
    assert sums(only) == {"images": [30, 0, 0]}


async def test_each_event_is_in_the_hour_day_and_month_of_its_time_in_utc_and_to_is_not_included(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("tiny")
    times = ["2026-03-31T22:59:59.999", "2026-03-31T23:00:00.000", "2026-04-01T00:00:00.000", "2026-04-01T00:30:00.000"]
    for n, text in enumerate(times):
        at = datetime.fromisoformat(text).replace(tzinfo=UTC)
        await append(redis, context, org, at, f"api_calls:{10**n} images:1")
    await write_all(context)
    whole = {"from": "2026-03-31T00:00:00Z", "to": "2026-04-02T00:00:00Z", "meter": "api_calls"}
    hours = [("2026-03-31T22", 1), ("2026-03-31T23", 10), ("2026-04-01T00", 1100)]
    expected = [("api_calls", f"{hour}:00:00Z", units) for hour, units in hours]
    assert starts(await usage(admin, org, bucket="hour", **whole)) == expected
    days = [("api_calls", "2026-03-31T00:00:00Z", 11), ("api_calls", "2026-04-01T00:00:00Z", 1100)]
    assert starts(await usage(admin, org, bucket="day", **whole)) == days
    months = [("api_calls", "2026-03-01T00:00:00Z", 11), ("api_calls", "2026-04-01T00:00:00Z", 1100)]
    assert starts(await usage(admin, org, bucket="month", **whole)) == months
    cut = {"from": "2026-03-31T23:00:00Z", "to": "2026-04-01T02:30:00+02:00", "meter": "api_calls"}
    assert starts(await usage(admin, org, bucket="day", **cut)) == [
        ("api_calls", "2026-03-31T00:00:00Z", 10),
        ("api_calls", "2026-04-01T00:00:00Z", 100),
    ]
    both = {"from": "2026-03-01T00:00:00Z", "to": "2026-05-01T00:00:00Z"}
    assert {m["meter"]: m["units"] for m in (await usage(admin, org, **both))["meters"]} == {
        "api_calls": 1111,
        "images": 4,
    }


async def test_an_organization_that_used_nothing_has_no_buckets_and_one_that_nobody_knows_is_404(
    entitled: Entitled, admin: AsyncClient
) -> None:
    answer = await usage(admin, await entitled("tiny"))
    assert (answer["meters"], answer["unwritten"]) == ([], [])
    assert (await admin.get("/v1/usage?org=nobody")).status_code == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"bucket": "minute"}, "query.bucket"),
        ({"from": "2026-02-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}, "query.from"),
        ({"from": "2026-02-02T00:00:00Z", "to": "2026-02-01T00:00:00Z"}, "query.from"),
        ({"bucket": "hour", "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:01Z"}, "query.from"),
        ({"bucket": "day", "from": "2024-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}, "query.from"),
        ({"bucket": "month", "from": "1970-01-01T00:00:00Z"}, "query.from"),
        ({"from": "2026-02-01"}, "query.from"),
        ({"from": "1700000000"}, "query.from"),
        ({"from": "2026-02-01T00:00:00"}, "query.from"),
        ({"to": "0001-01-01T00:00:00+14:00"}, "query.to"),
        ({"to": "9999-12-31T23:59:59-14:00"}, "query.to"),
        ({"meter": "'; DROP TABLE usage_event; --"}, "query.meter"),
    ],
)
async def test_a_question_that_is_wrong_or_too_long_is_422_by_the_name_of_its_field(
    entitled: Entitled, admin: AsyncClient, query: dict[str, str], field: str
) -> None:
    response = await admin.get("/v1/usage", params={"org": "acme", **query})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


async def test_the_longest_question_of_each_size_is_answered(entitled: Entitled, admin: AsyncClient) -> None:
    org, until = await entitled("tiny"), datetime(2026, 11, 1, tzinfo=UTC)
    for bucket, days in (("hour", 31), ("day", 366), ("month", 3660)):
        since = rfc3339((until - timedelta(days=days)).timestamp())
        await usage(admin, org, bucket=bucket, to=rfc3339(until.timestamp()), **{"from": since})


async def test_without_postgres_the_buckets_are_503_and_without_redis_they_are_told_without_the_unwritten(
    context: Context, entitled: Entitled, admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    await spend(context, org, 3)
    await write_all(context)
    await spend(context, org, 2)

    async def silent(*_: object) -> None:
        raise LedgerUnavailable("peek: away")

    monkeypatch.setattr(Ledger, "peek", silent)
    answer = await usage(admin, org)
    assert ([m["units"] for m in answer["meters"]], answer["unwritten"]) == ([3], None)

    def away(*_: object) -> None:
        raise StoreUnavailable("Postgres: away")

    monkeypatch.setattr("control.db.Database.connection", away)
    response = await admin.get(f"/v1/usage?org={org}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["type"] == "urn:quotagate:problem:store-unavailable"


async def test_many_who_ask_for_usage_keep_no_connection_from_the_others_and_are_told_to_come_again(
    context: Context, entitled: Entitled, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    impatient = replace(context, buckets=buckets.Buckets(context.db, context.ledger, wait_seconds=0.05))
    asked, answered, used = asyncio.Semaphore(0), asyncio.Event(), buckets.Buckets._used

    async def slow(self: buckets.Buckets, *args: Any) -> buckets.Used:
        async with context.db.connection():
            asked.release()
            await answered.wait()
        return await used(self, *args)

    monkeypatch.setattr(buckets.Buckets, "_used", slow)
    async with admin_of(impatient) as admin:
        slow_ones = [asyncio.create_task(admin.get(f"/v1/usage?org={org}")) for _ in range(buckets.AT_ONCE)]
        for _ in slow_ones:
            await asked.acquire()
        late = await asyncio.gather(*(admin.get(f"/v1/usage?org={org}") for _ in range(30)))
        assert {(response.status_code, response.headers["retry-after"]) for response in late} == {(503, "1")}
        assert (await admin.get(f"/v1/entitlements/{org}")).status_code == 200
        answered.set()
        assert [response.status_code for response in await asyncio.gather(*slow_ones)] == [200] * buckets.AT_ONCE

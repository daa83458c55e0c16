"""`POST /v1/usage`: each record is charged once, or is told why not, whatever the others are."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.http.context import Context
from control.moments import moment, rfc3339
from quota import keys
from quota.calls.call import Call
from quota.ledger import Ledger
from quota.model import COST_MAX, Recalled
from tests.control.plane import Entitled
from tests.control.reporting import Post, events, field_of, record, statuses
from tests.control.usage import used
from tests.expected import monthly_period


async def test_a_record_is_charged_to_the_tokens_organization_and_says_where_it_counts(
    context: Context, entitled: Entitled, post: Post, clock: Callable[[], float]
) -> None:
    org = await entitled("tiny")
    response = await post(org, record(units=7, idempotency_key="run-1"))
    assert response.status_code == 200
    result = response.json()
    period = monthly_period(0, clock())
    assert result | {"id": None} == {
        "status": 200,
        "idempotency_key": "run-1",
        "id": None,
        "meter": "api_calls",
        "units": 7,
        "overage": 0,
        "period_start": rfc3339(period.start),
    }
    assert response.headers["ratelimit-policy"] == f'"api_calls";q=100;w={period.seconds}'
    assert response.headers["ratelimit"].startswith('"api_calls";r=93;t=')
    assert await used(context, org) == 7
    await context.writer.resume()
    await context.writer.write()
    async with context.db.connection() as connection:
        row = await connection.fetchrow("SELECT request_id, meter, units, kind FROM usage_event WHERE org = $1", org)
    assert tuple(row) == (result["id"], "api_calls", 7, "take")


async def test_a_batch_of_a_thousand_is_charged_whole_in_few_script_calls_and_one_more_is_refused_whole(
    context: Context, entitled: Entitled, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("bulk")
    calls: list[str] = []
    run = Ledger.run

    async def counted(self: Ledger, call: Call) -> Any:
        calls.append(call.script)
        return await run(self, call)

    monkeypatch.setattr(Ledger, "run", counted)
    response = await post(org, [record(units=n) for n in range(1, 1001)])
    assert statuses(response) == [200] * 1000
    assert (response.json()["charged"], response.json()["refused"]) == (1000, 0)
    assert await used(context, org) == 500_500
    assert Counter(calls) == {"take": 20, "peek": 1}
    too_many = await post(org, [record() for _ in range(1001)])
    assert (too_many.status_code, field_of(too_many.json())) == (422, "body")
    assert (await post(org, [])).status_code == 422
    assert await used(context, org) == 500_500


async def test_a_batch_with_bad_records_answers_each_with_its_own_error_and_counts_the_rest(
    context: Context, entitled: Entitled, post: Post
) -> None:
    org = await entitled("tiny")
    bad: list[tuple[Any, int, str]] = [
        (record(units=-1), 422, "units"),
        (record(units=1.5), 422, "units"),
        (record(meter="Not A Meter"), 422, "meter"),
        (record(meter="images"), 403, ""),
        (record(units=99), 429, ""),
        (record(units=10_000), 429, ""),
        (record(timestamp="2001-01-01T00:00:00Z"), 422, "timestamp"),
        (record(surprise=1), 422, "surprise"),
        (record(idempotency_key="two words"), 422, "idempotency_key"),
        ({"meter": "api_calls", "units": 1}, 422, "idempotency_key"),
        (17, 422, ""),
        (None, 422, ""),
        ([record()], 422, ""),
    ]
    batch = [each for content, _, _ in bad for each in (content, record())]
    response = await post(org, batch)
    assert statuses(response) == [each for _, status, _ in bad for each in (status, 200)]
    for n, (content, status, field) in enumerate(bad):
        result = response.json()["results"][2 * n]
        assert result["type"]
        assert result["title"]
        assert result["detail"]
        if status == 422:
            assert field_of(result) == f"body.{2 * n}.{field}".rstrip(".")
        if isinstance(content, dict) and field != "idempotency_key":
            assert result["idempotency_key"] == content["idempotency_key"]
    assert await used(context, org) == await events(context, org) == len(bad)


@pytest.mark.parametrize(
    "units", [-1, 0, 1.5, 1e-3, float(COST_MAX + 1), COST_MAX + 1, 10**400, -(10**30), True, "5", None, [1], {"n": 1}]
)
async def test_units_that_are_negative_zero_fractional_or_absurd_are_422_and_nothing_is_charged(
    context: Context, entitled: Entitled, post: Post, units: object
) -> None:
    org = await entitled("bulk")
    response = await post(org, record(units=units))
    assert (response.status_code, response.json()["type"]) == (422, "urn:quotagate:problem:invalid")
    assert field_of(response.json()) == "body.units"
    assert await used(context, org) == await events(context, org) == 0


async def test_units_up_to_the_largest_charge_of_the_ledger_are_taken(
    context: Context, entitled: Entitled, post: Post
) -> None:
    org = await entitled("bulk", meters={"api_calls": 10**15})
    assert (await post(org, record(units=COST_MAX))).status_code == 200
    assert await used(context, org) == COST_MAX


async def test_a_timestamp_outside_the_open_period_or_ahead_of_the_clock_is_422(
    context: Context, entitled: Entitled, post: Post, clock: Callable[[], float]
) -> None:
    org = await entitled("tiny")
    now = clock()
    period = monthly_period(0, now)
    good = [rfc3339(now), rfc3339(period.start), f"{moment(now).astimezone().isoformat()}"]
    bad = [
        rfc3339(period.start - 1),
        rfc3339(period.end),
        rfc3339(now + 300),
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-02-30T00:00:00Z",
        "yesterday",
        rfc3339(now).rstrip("Z"),
        int(now),
    ]
    response = await post(org, [record(timestamp=at) for at in (*good, *bad)])
    assert statuses(response) == [200] * len(good) + [422] * len(bad)
    for result in response.json()["results"][len(good) :]:
        assert field_of(result).endswith("timestamp")
    assert await used(context, org) == len(good)


async def test_a_period_that_ends_while_a_record_is_charged_gives_the_charge_back(
    context: Context, entitled: Entitled, post: Post, clock: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    before = monthly_period(0, monthly_period(0, clock()).start - 1)
    recall = Ledger.recall

    async def a_moment_ago(self: Ledger, *args: Any) -> Recalled:
        recalled = await recall(self, *args)
        return Recalled((before.end - 1) * 1_000_000, recalled.status, before, recalled.receipts)

    monkeypatch.setattr(Ledger, "recall", a_moment_ago)
    sent = record(timestamp=rfc3339(before.end - 1))
    assert statuses(await post(org, [sent, record()])) == [422, 200]
    assert await used(context, org) == 1
    monkeypatch.setattr(Ledger, "recall", recall)
    assert (await post(org, sent | {"timestamp": None})).status_code == 200, "its key is free"


@pytest.mark.parametrize(
    ("content", "plan", "status", "problem"),
    [
        ({"meter": "images"}, "tiny", 403, "urn:quotagate:problem:meter-not-in-plan"),
        ({"units": 100}, "tiny", 429, "https://iana.org/assignments/http-problem-types#quota-exceeded"),
        ({"units": 101}, "tiny", 429, "urn:quotagate:problem:cost-above-limit"),
        ({}, None, 402, "urn:quotagate:problem:no-entitlement"),
    ],
)
async def test_a_record_that_the_plan_does_not_allow_is_told_as_the_gateway_tells_it_and_charges_nothing(
    context: Context,
    entitled: Entitled,
    post: Post,
    admin: AsyncClient,
    content: dict[str, Any],
    plan: str | None,
    status: int,
    problem: str,
) -> None:
    org = await entitled("tiny")
    await post(org, record(units=1))
    if plan is None:
        await admin.delete(f"/v1/entitlements/{org}")
    response = await post(org, record(**content))
    assert (response.status_code, response.json()["type"]) == (status, problem)
    assert await used(context, org) == 1
    if status == 429:
        answer = response.json()
        assert answer["violated-policies"] == ["api_calls"]
        assert (answer["limit"], answer["remaining"], answer["cost"]) == (100, 99, content["units"])
        assert response.headers["ratelimit"].startswith('"api_calls";r=99;t=')
        assert ("retry-after" in response.headers) == problem.endswith("quota-exceeded")
        [listed] = (await post(org, [record(**content)])).json()["results"]
        assert ("retry_after_seconds" in listed) == problem.endswith("quota-exceeded")


async def test_no_rate_and_no_limit_of_requests_under_way_holds_reported_usage_up(
    context: Context, entitled: Entitled, post: Post, redis: Redis
) -> None:
    org = await entitled("starter", rate={"requests": 1, "seconds": 3600}, concurrent_max=1)
    assert statuses(await post(org, [record() for _ in range(50)])) == [200] * 50
    assert await redis.zcard(keys.permits_key(org, 32)) == 0
    assert await redis.hget(keys.org_key(org, 32), "tat") is None

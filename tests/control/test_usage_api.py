"""`POST /v1/usage`: each record is charged once, or is told why not, whatever the others are and whatever is away."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient, Response
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.http.context import Context
from control.http.envelope import BODY_BYTES_MAX_OF
from control.moments import moment, rfc3339
from quota import keys
from quota.calls.call import Call
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import COST_MAX, Recalled
from tests.expected import monthly_period
from tests.replies import as_entries

Entitled = Callable[..., Awaitable[str]]
Post = Callable[..., Awaitable[Response]]


def record(**other: Any) -> dict[str, Any]:
    return {"meter": "api_calls", "units": 1, "idempotency_key": uuid4().hex, **other}


@pytest.fixture
def post(nobody: AsyncClient, token_of: Callable[..., str]) -> Post:
    """Sends what is given, with the organization's own token."""

    async def send(org: str, content: Any) -> Response:
        return await nobody.post("/v1/usage", json=content, headers={"authorization": f"Bearer {token_of(org)}"})

    return send


async def used(context: Context, org: str) -> int:
    standing = await context.ledger.peek(org)
    assert standing is not None
    return sum(counter.used for counter in standing.usage)


async def events(context: Context, org: str) -> int:
    """Of the organization, in its stream."""
    entries = as_entries(await context.ledger.redis.xrange(keys.events_key(keys.shard_of(org, 32))))
    return sum(entry[1][b"e"].split(b" ")[2] == org.encode() for entry in entries)


def statuses(response: Response) -> list[int]:
    assert response.status_code == 200, response.text
    return [result["status"] for result in response.json()["results"]]


def field_of(problem: dict[str, Any]) -> str:
    return str(problem["errors"][0]["field"])


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


async def test_a_key_that_comes_again_is_answered_as_the_first_time_and_charged_once(
    context: Context, entitled: Entitled, post: Post, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    sent = record(units=60, timestamp=rfc3339(context.clock()))
    first = await post(org, sent)
    assert first.status_code == 200
    again = await post(org, dict(reversed(sent.items())))
    assert (again.status_code, again.json()) == (200, first.json())
    listed = await post(org, [sent, record(), sent])
    assert listed.json()["results"][0] == listed.json()["results"][2] == first.json()
    # Not even an organization that may use nothing any more is told otherwise of what it was charged for.
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "status": "suspended"})
    assert (await post(org, sent)).json() == first.json()
    assert (await post(org, record())).status_code == 402
    assert await used(context, org) == 61
    assert await events(context, org) == 2


@pytest.mark.parametrize(
    "other", [{"units": 4}, {"meter": "images"}, {"timestamp": rfc3339(monthly_period(0, 1.8e9).start)}]
)
async def test_a_key_with_another_record_is_409_and_nothing_is_charged(
    context: Context, entitled: Entitled, post: Post, other: dict[str, Any]
) -> None:
    org = await entitled("tiny", meters={"images": 10})
    sent = record(units=3)
    assert (await post(org, sent)).status_code == 200
    response = await post(org, sent | other)
    assert (response.status_code, response.json()["type"]) == (409, "urn:quotagate:problem:conflict")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["correlation_id"] == response.headers["x-request-id"]
    assert statuses(await post(org, [sent | other, record(), sent])) == [409, 200, 200]
    assert await used(context, org) == 4


async def test_of_two_records_with_one_key_in_one_batch_the_first_is_charged_and_another_one_is_409(
    context: Context, entitled: Entitled, post: Post
) -> None:
    org = await entitled("tiny")
    same, other = record(units=2), record(units=2)
    response = await post(org, [same, other, same, other | {"units": 9}])
    assert statuses(response) == [200, 200, 200, 409]
    assert response.json()["results"][0] == response.json()["results"][2]
    assert await used(context, org) == 4


async def test_200_posts_with_one_key_at_once_charge_once_and_have_one_answer(
    context: Context, entitled: Entitled, post: Post, admin: AsyncClient
) -> None:
    org = await entitled("tiny", concurrent_max=1)
    sent = record(units=5)
    answers = await asyncio.gather(*(post(org, sent) for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await used(context, org) == 5
    assert await events(context, org) == 1


async def test_of_200_posts_with_one_key_and_two_contents_at_once_one_content_is_charged_once_and_the_other_is_409(
    context: Context, entitled: Entitled, post: Post
) -> None:
    org = await entitled("tiny")
    sent = record()
    contents = [sent | {"units": 2}, sent | {"units": 3}]
    answers = await asyncio.gather(*(post(org, contents[n % 2]) for n in range(200)))
    charged = await used(context, org)
    assert charged in (2, 3)
    assert [answer.status_code == 200 for answer in answers] == [n % 2 == charged - 2 for n in range(200)]
    assert await events(context, org) == 1


async def test_a_refused_record_leaves_its_key_free(
    context: Context, entitled: Entitled, post: Post, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    sent = record(units=101)
    assert (await post(org, sent)).status_code == 429
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "starter"})
    assert (await post(org, sent)).status_code == 200
    assert await used(context, org) == 101


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
        found = await recall(self, *args)
        return Recalled((before.end - 1) * 1_000_000, found.status, before, found.receipts)

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
        told = response.json()
        assert told["violated-policies"] == ["api_calls"]
        assert (told["limit"], told["remaining"], told["cost"]) == (100, 99, content["units"])
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


async def test_an_organization_that_redis_does_not_know_is_loaded_once_for_all_and_charged_where_it_was(
    context: Context, entitled: Entitled, post: Post, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    await post(org, record(units=90))
    await redis.delete(keys.org_key(org, 32))
    loaded: list[str] = []
    install = type(context.publisher).install

    async def counted(self: Any, asked: str) -> Any:
        loaded.append(asked)
        return await install(self, asked)

    monkeypatch.setattr(type(context.publisher), "install", counted)
    answers = await asyncio.gather(*(post(org, record(units=1)) for _ in range(20)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 10}
    assert loaded == [org]
    assert await used(context, org) == 100


async def test_without_postgres_usage_is_still_charged_and_only_what_must_be_loaded_is_503(
    context: Context, entitled: Entitled, post: Post, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")

    def away(*_: object) -> None:
        raise StoreUnavailable("Postgres: away")

    monkeypatch.setattr("control.db.Database.connection", away)
    assert (await post(org, record())).status_code == 200
    assert statuses(await post(org, [record(), record(units=-1)])) == [200, 422]
    assert await used(context, org) == 2
    await redis.delete(keys.org_key(org, 32))
    sent = record()
    response = await post(org, sent)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["type"] == "urn:quotagate:problem:store-unavailable"
    monkeypatch.undo()
    assert (await post(org, sent)).status_code == 200
    assert await used(context, org) == 3


async def test_without_redis_usage_is_503_with_retry_after_and_the_same_batch_again_is_charged_once(
    context: Context, entitled: Entitled, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("bulk")
    batch = [record() for _ in range(75)]
    run, takes = Ledger.run, 0

    async def lost(self: Ledger, call: Call) -> Any:
        nonlocal takes
        reply = await run(self, call)
        takes += call.script == "take"
        if takes == 2:
            raise LedgerUnavailable("take: the reply was lost")
        return reply

    monkeypatch.setattr(Ledger, "run", lost)
    response = await post(org, batch)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["type"] == "urn:quotagate:problem:ledger-unavailable"
    monkeypatch.undo()
    assert statuses(await post(org, batch)) == [200] * 75
    assert await used(context, org) == await events(context, org) == 75


async def test_a_record_that_redis_has_an_error_for_is_503_and_the_others_count(
    context: Context, entitled: Entitled, post: Post, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    odd = record()
    from control.usage import reporter

    await redis.rpush(keys.idempotency_key(org, 32, reporter._name_of(odd["idempotency_key"])), "no string")
    response = await post(org, [record(), odd, record()])
    assert statuses(response) == [200, 503, 200]
    assert response.json()["results"][1]["retry_after_seconds"] == 1
    assert await used(context, org) == 2
    alone = await post(org, odd)
    assert (alone.status_code, alone.headers["retry-after"]) == (503, "1")
    assert "WRONGTYPE" not in alone.text


BAD_BODIES: list[tuple[bytes, int]] = [
    (b"", 422),
    (b"{", 422),
    (b"\xff\xfe", 422),
    (b'"text"', 422),
    (b"null", 422),
    (b"[" * 200_000, 422),
    (b'{"a":' * 80_000, 422),
    (b'[{"meter": "api_calls", "units": NaN, "idempotency_key": "a"}]', 422),
    (b'{"meter": "api_calls", "units": 1, "units": 2, "idempotency_key": "a"}', 422),
    (b'{"meter": "api_calls", "units": 1' + b"0" * 100_000 + b', "idempotency_key": "a"}', 422),
    (b'{"meter": "api_calls", "units": 1e999, "idempotency_key": "a"}', 422),
    (b'{"meter": "api_calls", "units": 1, "idempotency_key": "a\\u0000"}', 422),
    (b'{"meter": "api_calls", "units": 1, "idempotency_key": "a", "\\ud800": 1}', 422),
    (b'{"\\ud800": 1, "\\ud800": 2}', 422),
    (b"{" + b",".join(b'"f%d": 1' % n for n in range(20_000)) + b"}", 422),
    (b"[" + b",".join(b"{}" for _ in range(1000)) + b"]", 200),
    (b" " * (BODY_BYTES_MAX_OF["/v1/usage"] + 1), 413),
]


@pytest.mark.parametrize(("body", "status"), BAD_BODIES, ids=[repr(body[:40]) for body, _ in BAD_BODIES])
async def test_a_body_that_is_odd_nested_or_huge_is_refused_in_time_and_charges_nothing(
    context: Context, entitled: Entitled, admin: AsyncClient, body: bytes, status: int
) -> None:
    org = await entitled("tiny")
    headers = {"content-type": "application/json"}
    response = await admin.post(f"/v1/usage?org={org}", content=body, headers=headers)
    assert response.status_code == status, response.text[:500]
    if status == 200:
        assert response.json()["charged"] == 0
    else:
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.content) < 4096
    assert await used(context, org) == 0


async def test_a_thousand_records_as_long_as_they_may_be_fit_into_a_body(post: Post, entitled: Entitled) -> None:
    org = await entitled("bulk")
    at = "2026-11-23T05:00:00.000000+00:00"
    longest = [record(meter="m" * 63, units=COST_MAX, idempotency_key=f"{n:0>255}", timestamp=at) for n in range(1000)]
    assert (await post(org, longest)).status_code == 200
    assert len(json.dumps(longest)) > 64 * 1024


async def test_a_body_that_is_not_declared_as_json_is_415(admin: AsyncClient) -> None:
    for content_type in ({}, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "text/json"}):
        response = await admin.post("/v1/usage?org=acme", content=json.dumps(record()), headers=content_type)
        assert response.status_code == 415, response.text


async def test_an_organization_reports_and_reads_its_own_usage_only_and_an_admin_names_whose(
    context: Context, entitled: Entitled, nobody: AsyncClient, admin: AsyncClient, token_of: Callable[..., str]
) -> None:
    own, other = await entitled("tiny"), await entitled("tiny")
    headers = {"authorization": f"Bearer {token_of(own)}"}
    for path, status in (("/v1/usage", 200), (f"/v1/usage?org={own}", 200), (f"/v1/usage?org={other}", 403)):
        assert (await nobody.post(path, json=record(), headers=headers)).status_code == status
        assert (await nobody.get(path, headers=headers)).status_code == status
    assert (await nobody.post("/v1/usage", json=record(org=other), headers=headers)).status_code == 422
    expired = {"authorization": f"Bearer {token_of(own, now=0.0, ttl=timedelta(hours=1))}"}
    for refused in ({}, expired, {"authorization": "Bearer wrong"}):
        assert (await nobody.post("/v1/usage", json=record(), headers=refused)).status_code == 401
        assert (await nobody.get("/v1/usage", headers=refused)).status_code == 401
    for method in ("GET", "POST"):
        assert (await admin.request(method, "/v1/usage", json=record())).status_code == 422
        assert (await admin.request(method, f"/v1/usage?org={other}", json=record())).status_code == 200
        assert (await admin.request(method, "/v1/usage?org=a%20b", json=record())).status_code == 422
    assert (await used(context, own), await used(context, other)) == (2, 1)


async def test_one_key_of_two_organizations_is_two_keys(entitled: Entitled, post: Post) -> None:
    sent = record()
    first, second = await post(await entitled("tiny"), sent), await post(await entitled("tiny"), sent | {"units": 2})
    assert (first.status_code, second.status_code) == (200, 200)

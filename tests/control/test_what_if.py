"""What if: what was recorded is decided again, under the terms of its time and under others."""

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.analytics.what_if.recorded import Entry, Part, Recorded
from control.analytics.what_if.replay import Span, replay
from control.http.context import Context
from quota.model import Admitted, Exhausted, Status
from quota.periods import Period
from quota.terms import MeterTerms, Terms
from tests import charging
from tests.control.plane import Entitled, MovedClock
from tests.control.taking import Gateway, install
from tests.control.usage import write_all

pytestmark = pytest.mark.usefixtures("new_streams")

START = datetime(2026, 11, 1, tzinfo=UTC)
PERIOD = Period(int(START.timestamp()), int(START.timestamp()) + 30 * 86_400)


def terms(allowance: int, overage_max: int | None = 0) -> list[Span]:
    published = Terms(1, Status.ACTIVE, (PERIOD,), {"calls": MeterTerms(allowance, overage_max)})
    return [Span(PERIOD.start, PERIOD.end, published)]


def taken(number: int, units: int, overage: int = 0) -> Recorded:
    return Recorded(
        START + timedelta(hours=number), f"r{number}", Entry.TAKE, (Part("calls", units, overage, {}),), PERIOD.start
    )


def given_back(number: int, of: int, units: int, overage: int = 0) -> Recorded:
    parts = (Part("calls", -units, -overage, {}),)
    return Recorded(START + timedelta(hours=number), f"r{of}", Entry.CORRECTION, parts, PERIOD.start)


async def spend(context: Context, org: str, units: int) -> bytes | None:
    decision = await charging.take(context.ledger, org, uuid4().hex, {"api_calls": units})
    assert isinstance(decision, Admitted | Exhausted)
    return decision.receipt if isinstance(decision, Admitted) else None


async def asked(admin: AsyncClient, **body: Any) -> dict[str, Any]:
    response = await admin.post("/v1/analytics/what-if", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_smaller_plan_would_have_refused_from_the_first_request_that_it_has_no_units_for() -> None:
    recorded = [taken(number, 30) for number in range(5)]
    assert [r.request_id for r in replay(terms(100), recorded).refused] == ["r3", "r4"]
    assert replay(terms(150), recorded).refused == []
    first = replay(terms(100), recorded).refused[0]
    assert (first.at, first.rule, first.meter, dict(first.costs)) == (recorded[3].at, "meter", "calls", {"calls": 30})


def test_what_was_given_back_is_there_for_the_next_request_unless_it_was_never_served() -> None:
    recorded = [taken(0, 60), given_back(1, 0, 40), taken(2, 80), given_back(3, 2, 80), taken(4, 15)]
    again = replay(terms(100), recorded)
    assert again.refused == []
    assert again.used[PERIOD.start, "calls"].used == 35
    smaller = replay(terms(70), recorded)
    assert [r.request_id for r in smaller.refused] == ["r2"]
    assert smaller.used[PERIOD.start, "calls"].used == 35, "nothing of a refused request is given back"


def test_overage_is_what_goes_beyond_and_is_given_back_first() -> None:
    recorded = [taken(0, 90), taken(1, 30), given_back(2, 1, 25)]
    again = replay(terms(100, None), recorded)
    assert again.used[PERIOD.start, "calls"].overage == 0
    assert [each.units for each in again.sold] == [20, -20]


def test_a_refused_request_that_is_kept_would_have_been_served_by_a_larger_plan() -> None:
    refused = Recorded(START + timedelta(hours=1), "r1", Entry.REFUSAL, (Part("calls", 50, 0, {}),))
    recorded = [taken(0, 60), refused]
    assert replay(terms(100), recorded).served == 0
    larger = replay(terms(200), recorded)
    assert (larger.served, larger.used[PERIOD.start, "calls"].used) == (1, 110)


@pytest.mark.parametrize("plan", ["starter", "growth"])
async def test_the_terms_in_force_decide_what_the_ledger_decided_to_the_unit(
    context: Context, entitled: Entitled, admin: AsyncClient, plan: str
) -> None:
    org = await entitled(plan, meters={"api_calls": 40})
    grant = {"meter": "api_calls", "units": 7, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    receipts = [await spend(context, org, units) for units in (11, 23, 9, 15, 8)]
    admitted = [receipt for receipt in receipts if receipt is not None]
    await charging.settle(context.ledger, org, admitted[-1], {"api_calls": 2})
    await spend(context, org, 3)
    await write_all(context)

    answer = await asked(admin, org=org)
    [outcome] = answer["organizations"]
    assert outcome["requests"] == outcome["reproduced"] == len(admitted) + 1
    assert (outcome["refused"], answer["refusals"]) == (0, [])
    [now] = answer["periods"]
    current = (await admin.get(f"/v1/entitlements/{org}")).json()["meters"]
    [meter] = [each for each in current if each["meter"] == "api_calls"]
    assert (now["used"], now["overage"]) == (meter["used"], meter["overage"])
    assert (now["otherwise_used"], now["otherwise_overage"]) == (now["used"], now["overage"])

    read = await admin.get("/v1/analytics/what-if", params={"org": org, "plan": plan})
    assert read.json()["organizations"][0]["requests"] == outcome["requests"]


async def test_a_random_run_with_rates_keys_and_changes_is_reproduced_verdict_by_verdict(
    context: Context, entitled: Entitled, admin: AsyncClient, clock: MovedClock, redis: Redis
) -> None:
    chance, gateway = random.Random(11), Gateway(context, redis)
    org = await entitled("tiny", meters={"api_calls": 30})
    bodies: list[dict[str, Any]] = [
        {"name": "a", "quotas": [{"meter": "api_calls", "units": 9, "window_seconds": 86_400}]},
        {"name": "b", "rate": {"requests": 1, "seconds": 3600, "burst": 9}},
        {"name": "c"},
    ]
    made = [(await admin.post(f"/v1/organizations/{org}/keys", json=body)).json() for body in bodies]
    await install(context, clock, org)
    served = 0
    for step in range(120):
        if step % 20 == 19:
            clock.now = time.time()
            body: dict[str, Any] = {"plan": "tiny", "meters": {"api_calls": 30 + step}}
            body |= chance.choice([{}, {"rate": {"requests": 1, "seconds": 3600, "burst": 5}}, {"concurrent_max": 3}])
            assert (await admin.put(f"/v1/entitlements/{org}", json=body)).status_code == 200
            limits = {"quotas": [{"meter": "api_calls", "units": chance.randint(5, 30)}]}
            answer = await admin.patch(f"/v1/organizations/{org}/keys/{made[2]['id']}", json=limits)
            assert answer.status_code == 200, answer.text
            await install(context, clock, org)
        charges = chance.choice([{"api_calls": chance.randint(1, 3)}, {"api_calls": 1}])
        request_id, decision = await gateway.take(org, charges, chance.choice([None, *made]))
        served += isinstance(decision, Admitted)
        if isinstance(decision, Admitted) and chance.random() < 0.6:
            await charging.release(context.ledger, org, request_id)
        if isinstance(decision, Admitted) and chance.random() < 0.2:
            await charging.settle(context.ledger, org, decision.receipt, {"api_calls": 0})
    refused = await gateway.tell()
    assert {"exhausted", "rate_limited", "concurrency_limited"} <= {each.said["is"] for each in refused}
    assert {"organization", "key"} <= {each.said.get("level") for each in refused}

    [outcome] = (await asked(admin, org=org))["organizations"]
    assert outcome["requests"] == outcome["reproduced"] == served + len(refused)
    assert (outcome["refused"], outcome["served"], outcome["unpaced"]) == (0, 0, 0)
    key = {"quotas": [{"meter": "api_calls", "units": 0}]}
    [outcome] = (await asked(admin, org=org, keys={made[1]["id"]: key}))["organizations"]
    assert outcome["refused_by"].get("own_quota", 0) == outcome["refused"] > 0
    query = {"org": org, "key": made[1]["id"], "key_quota": "api_calls=0/86400", "key_rate": "none"}
    [by_query] = (await admin.get("/v1/analytics/what-if", params=query)).json()["organizations"]
    assert by_query["refused_by"] == outcome["refused_by"]
    query = {"org": org, "rate": "1/60", "concurrent": "1", "request_seconds": "0.5"}
    [outcome] = (await admin.get("/v1/analytics/what-if", params=query)).json()["organizations"]
    assert outcome["refused"] > 0


async def test_a_question_names_who_would_have_been_refused_when_and_changes_nothing(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("growth")
    for units in (50, 40, 30):
        await spend(context, org, units)
    await write_all(context)
    before = (await admin.get(f"/v1/entitlements/{org}")).json()["version"]
    answer = await asked(admin, org=org, policy="HARD_STOP", meters={"api_calls": {"allowance": 100}})
    [outcome] = answer["organizations"]
    assert (outcome["refused"], outcome["refused_units"]) == (1, {"api_calls": 30})
    [refused] = answer["refusals"]
    assert (refused["costs"], refused["meter"]) == ({"api_calls": 30}, "api_calls")
    assert outcome["first_refused_at"] == refused["at"]
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["version"] == before


async def test_a_question_about_what_is_not_there_is_refused(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("starter")
    questions: list[dict[str, Any]] = [
        {"plan": "no-such-plan"},
        {"meters": {"no_such_meter": {"allowance": 1}}},
        {"price_minor": {"week": 100}},
        {"since": "2020-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"org": org, "surprise": 1},
        {"rate": "fast"},
        {"concurrent_max": 0},
        {"request_seconds": 0},
        {"keys": {"K3xb81Lm0aQz": {}}},
    ]
    key, unnamed = {"key": "K3xb81Lm0aQz"}, {"key_quota": "api_calls=5"}
    queries = [key, unnamed, key | {"org": "x", "key_quota": "many"}, key | {"org": "x", "key_rate": "fast"}]
    for query in queries:
        assert (await admin.get("/v1/analytics/what-if", params=query)).status_code == 422, query
    for body in questions:
        assert (await admin.post("/v1/analytics/what-if", json=body)).status_code == 422, body
    assert (await admin.post("/v1/analytics/what-if", json={"org": "nobody-knows"})).status_code == 404


async def test_all_organizations_come_in_pages(entitled: Entitled, admin: AsyncClient) -> None:
    made = {await entitled("starter") for _ in range(3)}
    seen, after = list[str](), None
    while True:
        page = await asked(admin, limit=2, **({"after": after} if after else {}))
        seen += [each["org"] for each in page["organizations"]]
        after = page["next"]
        if after is None:
            break
    assert made <= set(seen)
    assert len(seen) == len(set(seen))


async def test_a_page_ends_before_it_decides_too_much_and_the_next_one_goes_on(
    context: Context, entitled: Entitled, admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.api.what_if.ROWS_OF_ANSWER", 2)
    made = [await entitled("starter") for _ in range(3)]
    for org in made:
        for _ in range(2):
            await spend(context, org, 1)
    for _ in range(3):
        await spend(context, made[0], 1)
    await write_all(context)
    seen, too_much, after, pages = set[str](), set[str](), None, 0
    while True:
        page = await asked(admin, limit=50, **({"after": after} if after else {}))
        seen |= {each["org"] for each in page["organizations"] if each["requests"]}
        too_much |= set(page["too_much"])
        pages, after = pages + 1, page["next"]
        if after is None:
            break
    assert set(made[1:]) <= seen
    assert made[0] in too_much, "which can be asked about alone"
    assert pages > 1
    [alone] = (await asked(admin, org=made[0]))["organizations"]
    assert alone["requests"] == alone["reproduced"] == 5

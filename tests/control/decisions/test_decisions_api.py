"""Any decision is explained: of requests that were refused or charged, and of requests that nobody has sent."""

import random
import time
from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.http.context import Context
from quota.kept_refusals import Refused
from quota.model import Admitted, Decision
from tests import charging
from tests.control.plane import Entitled, MovedClock, TokenOf
from tests.control.taking import Gateway, install


@pytest.fixture(autouse=True)
async def none_of_the_test_before(context: Context, new_streams: None) -> None:
    async with context.db.connection() as connection:
        for table in ("refusal", "refusal_count", "refusal_source"):
            await connection.execute(f"DELETE FROM {table}")


@pytest.fixture
def gateway(context: Context, redis: Redis) -> Gateway:
    return Gateway(context, redis)


async def explained(client: AsyncClient, request_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/decisions/{request_id}")
    assert answer.status_code == 200, answer.text
    [decision] = answer.json()["decisions"]
    return dict(decision)


def rule_of(decision: dict[str, Any], rule: str) -> dict[str, Any]:
    return next(dict(each) for each in decision["rules"] if each["rule"] == rule)


async def test_a_refusal_is_explained_rule_by_rule_with_balances_and_the_smallest_change(
    admin: AsyncClient, context: Context, clock: MovedClock, entitled: Entitled, gateway: Gateway
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    await install(context, clock, org)
    await gateway.take(org, {"api_calls": 7})
    request_id, _ = await gateway.take(org, {"api_calls": 5}, correlation="order-7")
    await gateway.take(org, {"api_calls": 2})
    await gateway.tell()
    decision = await explained(admin, request_id)
    assert decision == await explained(admin, "order-7")
    assert (decision["source"], decision["outcome"], decision["org"]) == ("refusal", "refused", org)
    assert (decision["route"], decision["gateway"], decision["charges"]) == ("api", "gw1", {"api_calls": 5})
    assert decision["doubts"] == []
    outcomes = [(rule["rule"], rule["outcome"], rule["reached"]) for rule in decision["rules"]][:5]
    assert outcomes == [
        ("published", "passed", True),
        ("version", "passed", True),
        ("status", "passed", True),
        ("period", "passed", True),
        ("meter", "refused", True),
    ]
    meter = rule_of(decision, "meter")
    assert meter["before"] == {"limit": 10, "remaining": 3, "overage": 0}
    assert meter["after"] is None
    assert meter["short"] == 2
    assert "3 of 10 api_calls are left" in meter["text"]
    [remedy] = decision["remedy"]
    assert (remedy["kind"], remedy["by"], remedy["text"]) == ("give_grant", 2, "Grant 2 api_calls.")
    assert [change["kind"] for change in decision["changes"]][:2] == ["give_grant", "raise_allowance"]
    assert decision["changes"][1]["to"] == 12


async def test_an_admitted_request_is_explained_with_what_paid_for_it_and_its_correction(
    admin: AsyncClient, context: Context, clock: MovedClock, entitled: Entitled, gateway: Gateway
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    grant = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "a gift for tests"}
    assert (await admin.post(f"/v1/organizations/{org}/grants", json=grant)).status_code == 201
    await install(context, clock, org)
    await gateway.take(org, {"api_calls": 8})
    request_id, decided = await gateway.take(org, {"api_calls": 4})
    assert isinstance(decided, Admitted)
    await charging.settle(context.ledger, org, decided.receipt, {"api_calls": 3})
    await gateway.take(org, {"api_calls": 1})
    await gateway.tell()
    decision = await explained(admin, request_id)
    assert (decision["source"], decision["outcome"], decision["verdict"]) == ("usage_event", "admitted", "admitted")
    meter = rule_of(decision, "meter")
    assert meter["before"] == {"limit": 15, "remaining": 7, "overage": 0}
    assert meter["after"] == {"limit": 15, "remaining": 3, "overage": 0}
    assert (meter["paid"]["allowance"], sum(meter["paid"]["grants"].values())) == (2, 2)
    assert [correction["units"] for correction in decision["corrections"]] == [{"api_calls": -1}]
    assert decision["doubts"] == []
    assert decision["remedy"] == []


async def test_what_was_published_then_explains_not_what_is_published_now(
    admin: AsyncClient, context: Context, clock: MovedClock, entitled: Entitled, gateway: Gateway
) -> None:
    org = await entitled("tiny", meters={"api_calls": 3})
    await install(context, clock, org)
    request_id, _ = await gateway.take(org, {"api_calls": 4})
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "meters": {"api_calls": 1000}})
    await install(context, clock, org)
    await gateway.tell()
    decision = await explained(admin, request_id)
    assert rule_of(decision, "meter")["before"]["limit"] == 3
    assert decision["plan"] == "tiny"
    assert decision["doubts"] == []


async def test_each_refusal_of_a_random_run_is_replayed_to_what_the_ledger_said(
    admin: AsyncClient, context: Context, clock: MovedClock, entitled: Entitled, gateway: Gateway
) -> None:
    chance = random.Random(7)
    org = await entitled("tiny", meters={"api_calls": 20})
    keys_made: list[dict[str, Any] | None] = [None]
    for body in (
        {"name": "a", "quotas": [{"meter": "api_calls", "units": 9, "window_seconds": 86_400}]},
        {"name": "b", "rate": {"requests": 1, "seconds": 3600, "burst": 3}},
        {"name": "c", "quotas": [{"meter": "api_calls", "units": 6}, {"meter": "tokens", "units": 2}]},
    ):
        made = await admin.post(f"/v1/organizations/{org}/keys", json=body)
        assert made.status_code == 201, made.text
        keys_made.append(made.json())
    await install(context, clock, org)
    decided: dict[str, Decision] = {}
    for step in range(150):
        clock.now = time.time()
        if step % 15 == 14:
            change = chance.choice(["allowance", "grant", "rate", "suspend", "policy"])
            if change == "grant":
                grant = {"meter": "api_calls", "units": chance.randint(1, 9), "reason": "for tests"}
                grant["expires_at"] = "2099-01-01T00:00:00Z"
                assert (await admin.post(f"/v1/organizations/{org}/grants", json=grant)).status_code == 201
            else:
                body = {"plan": "tiny", "meters": {"api_calls": 20 + step + chance.randint(0, 20)}}
                body |= {"rate": {"requests": 1, "seconds": 3600, "burst": 4}} if change == "rate" else {}
                body |= {"policy": "METERED", "overage_max": {"api_calls": 5}} if change == "policy" else {}
                body |= {"status": "suspended"} if change == "suspend" else {}
                answer = await admin.put(f"/v1/entitlements/{org}", json=body)
                assert answer.status_code == 200, answer.text
            await install(context, clock, org)
        charges = chance.choice([{"api_calls": chance.randint(0, 6)}, {"api_calls": 1}, {"tokens": 1, "api_calls": 2}])
        request_id, decision = await gateway.take(org, charges, chance.choice(keys_made))
        decided[request_id] = decision
        if isinstance(decision, Admitted) and chance.random() < 0.2:
            actual = {meter: max(0, units - 1) for meter, units in charges.items()}
            await charging.settle(context.ledger, org, decision.receipt, actual)
    told = await gateway.tell()
    assert len(told) > 20
    kinds = set()
    for refused in told:
        replayed = await explained(admin, refused.request_id)
        kinds.add(refused.said["is"])
        assert replayed["doubts"] == [], (refused, replayed)
        assert any(rule["reached"] and rule["outcome"] == "refused" for rule in replayed["rules"])
        assert replayed["remedy"], refused
    assert len(kinds) >= 4, kinds
    for request_id, decision in decided.items():
        if isinstance(decision, Admitted) and any(balance.limit for balance in decision.balances):
            found = await admin.get(f"/v1/decisions/{request_id}")
            if found.status_code == 200:
                [shown] = found.json()["decisions"]
                after = {
                    rule["meter"]: rule["after"]["remaining"] for rule in shown["rules"] if rule["rule"] == "meter"
                }
                assert after == {balance.meter: balance.remaining for balance in decision.balances}


async def test_a_refused_token_is_explained_by_its_reason(
    admin: AsyncClient, gateway: Gateway, context: Context
) -> None:
    us = int(context.clock() * 1_000_000)
    gateway.refused.append(
        Refused(
            "t" * 20, None, us, None, None, None, "api", "GET", 401, "token_expired", False, "expired", {}, None, "", {}
        )
    )
    await gateway.tell()
    decision = await explained(admin, "t" * 20)
    assert (decision["org"], decision["rules"], decision["verdict"]) == (None, [], "token_expired")
    assert decision["remedy"][0]["text"] == "Send a token that has not expired."


async def test_a_request_that_nobody_sent_is_explained_and_charges_nothing(
    admin: AsyncClient, context: Context, clock: MovedClock, entitled: Entitled, gateway: Gateway
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    made = await admin.post(
        f"/v1/organizations/{org}/keys", json={"name": "k", "quotas": [{"meter": "api_calls", "units": 2}]}
    )
    await install(context, clock, org)
    body = {"org": org, "charges": {"api_calls": 4}, "key": made.json()["id"]}
    decision = (await admin.post("/v1/decisions/explain", json=body)).json()
    assert (decision["source"], decision["outcome"]) == ("hypothetical", "refused")
    assert rule_of(decision, "own_quota")["short"] == 2
    assert [change["kind"] for change in decision["remedy"]] == ["raise_own_quota"]
    query = {"org": org, "charge": "api_calls:4", "key": body["key"]}
    again = (await admin.get("/v1/explanations", params=query)).json()
    assert again | {"at": None} == decision | {"at": None}
    too_dear = (await admin.post("/v1/decisions/explain", json={"org": org, "charges": {"api_calls": 1000}})).json()
    assert too_dear["verdict"] == "cost_above_limit"
    without_key = (await admin.post("/v1/decisions/explain", json={"org": org, "charges": {"api_calls": 4}})).json()
    assert without_key["outcome"] == "admitted"
    assert rule_of(without_key, "meter")["after"]["remaining"] == 6
    standing = await context.ledger.peek(org)
    assert standing is not None
    assert standing.usage == ()


async def test_a_key_that_is_revoked_is_what_refuses_a_supposed_request(
    admin: AsyncClient, context: Context, clock: MovedClock, entitled: Entitled
) -> None:
    org = await entitled("tiny")
    made = (await admin.post(f"/v1/organizations/{org}/keys", json={"name": "k"})).json()
    await install(context, clock, org)
    assert (await admin.delete(f"/v1/organizations/{org}/keys/{made['id']}")).status_code == 204
    await install(context, clock, org)
    body = {"org": org, "charges": {"api_calls": 1}, "key": made["id"]}
    decision = (await admin.post("/v1/decisions/explain", json=body)).json()
    assert (decision["outcome"], decision["verdict"]) == ("refused", "token_key_revoked")
    assert [change["kind"] for change in decision["remedy"]] == ["principal"]
    assert [rule["rule"] for rule in decision["rules"] if rule["reached"]] == ["principal"]


async def test_an_organization_sees_its_own_decisions_and_no_others(
    nobody: AsyncClient,
    context: Context,
    clock: MovedClock,
    entitled: Entitled,
    gateway: Gateway,
    token_of: TokenOf,
) -> None:
    ours, theirs = await entitled("tiny", meters={"api_calls": 1}), await entitled("tiny")
    await install(context, clock, ours)
    await install(context, clock, theirs)
    mine, _ = await gateway.take(ours, {"api_calls": 2})
    other, _ = await gateway.take(theirs, {"api_calls": 1_000_000})
    charged, _ = await gateway.take(theirs, {"api_calls": 1})
    await gateway.tell()
    headers = {"authorization": f"Bearer {token_of(ours, now=context.clock())}"}
    assert (await nobody.get(f"/v1/decisions/{mine}", headers=headers)).status_code == 200
    for request_id in (other, charged):
        assert (await nobody.get(f"/v1/decisions/{request_id}", headers=headers)).status_code == 404
    listed = (await nobody.get("/v1/decisions", headers=headers)).json()
    assert [refusal["request_id"] for refusal in listed["refusals"]] == [mine]
    assert (await nobody.get(f"/v1/decisions?org={theirs}", headers=headers)).status_code == 403
    body = {"org": theirs, "charges": {"api_calls": 1}}
    assert (await nobody.post("/v1/decisions/explain", json=body, headers=headers)).status_code == 403
    assert (await nobody.get("/v1/decisions")).status_code == 401


async def test_refusals_are_listed_newest_first_by_filters_with_what_is_not_kept(
    admin: AsyncClient, context: Context, clock: MovedClock, entitled: Entitled, gateway: Gateway
) -> None:
    org = await entitled("tiny", meters={"api_calls": 0})
    await install(context, clock, org)
    ids = [(await gateway.take(org, {"api_calls": 1}))[0] for _ in range(5)]
    await gateway.tell()
    seen, before = [], None
    while True:
        query = {"org": org, "limit": "2"} | ({"before": before} if before else {})
        page = (await admin.get("/v1/decisions", params=query)).json()
        seen += [refusal["request_id"] for refusal in page["refusals"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ids[::-1]
    assert (await admin.get("/v1/decisions", params={"org": org, "verdict": "rate_limited"})).json()["refusals"] == []
    counted = (await admin.get("/v1/decisions")).json()["counted"]
    assert (counted["refused"], counted["kept"], counted["not_kept"]) == (1000, 5, 995)


@pytest.mark.parametrize(
    "query", ["before=x", "before=99999999999999999:a", "org=%20", "limit=0", "key=short", "from=2026", "nothing=1"]
)
async def test_a_filter_that_means_nothing_is_refused(admin: AsyncClient, query: str) -> None:
    assert (await admin.get(f"/v1/decisions?{query}")).status_code == 422


async def test_an_id_that_nobody_knows_is_404_with_what_is_kept(admin: AsyncClient) -> None:
    answer = await admin.get("/v1/decisions/0123")
    assert answer.status_code == 404
    assert "30 days" in answer.json()["detail"]

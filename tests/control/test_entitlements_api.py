from datetime import UTC, datetime
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.http.context import Context
from quota import keys
from quota.ledger import LedgerUnavailable
from quota.model import Status
from tests import charging
from tests.control.plane import Entitled, MovedClock, TokenOf


async def test_an_entitlement_tells_plan_remaining_and_reset(
    context: Context, entitled: Entitled, nobody: AsyncClient, token_of: TokenOf
) -> None:
    org = await entitled("growth")
    await charging.take(context.ledger, org, "r1", {"api_calls": 40})
    headers = {"authorization": f"Bearer {token_of(org)}"}
    entitlement = (await nobody.get(f"/v1/entitlements/{org}", headers=headers)).json()
    assert (entitlement["plan"], entitlement["plan_name"], entitlement["status"], entitlement["policy"]) == (
        "growth",
        "Growth",
        "active",
        "METERED",
    )
    assert entitlement["meters"] == [
        {"meter": "api_calls", "allowance": 100_000, "limit": 100_000, "used": 40, "remaining": 99_960, "overage": 0}
    ]
    assert entitlement["rate"] == {"requests": 200, "seconds": 1, "burst": 400}
    assert entitlement["reset"]["at"] == entitlement["period"]["end"]
    assert 0 < entitlement["reset"]["seconds"] <= 31 * 86_400
    assert (entitlement["source"], entitlement["published"]) == ("redis", True)


async def test_the_same_put_twice_changes_nothing(entitled: Entitled, admin: AsyncClient) -> None:
    content = {
        "plan": "growth",
        "status": "trialing",
        "policy": "HARD_STOP",
        "meters": {"api_calls": 5, "images": 2},
        "overage_max": {"api_calls": 7},
        "rate": {"requests": 3, "seconds": 60},
        "concurrent_max": 8,
        "period_anchor": "2026-01-31T10:00:00+02:00",
    }
    org = await entitled("tiny")
    first = await admin.put(f"/v1/entitlements/{org}", json=content)
    journal = (await admin.get(f"/v1/organizations/{org}/journal")).json()
    again = await admin.put(f"/v1/entitlements/{org}", json=content)
    assert first.status_code == again.status_code == 200
    assert again.headers["etag"] == first.headers["etag"]
    assert {**again.json(), "as_of": 0, "reset": 0} == {**first.json(), "as_of": 0, "reset": 0}
    assert (await admin.get(f"/v1/organizations/{org}/journal")).json() == journal
    assert first.json()["period_anchor"] == "2026-01-31T08:00:00Z"


async def test_what_is_left_out_is_the_plans_again_but_the_period_stays(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny", meters={"api_calls": 5}, period_anchor="2026-01-15T00:00:00Z")
    before = (await admin.get(f"/v1/entitlements/{org}")).json()
    after = (await admin.put(f"/v1/entitlements/{org}", json={"plan": "starter"})).json()
    assert after["meters"][0]["allowance"] == 10_000
    assert after["period"] == before["period"]


async def test_a_version_that_is_outdated_changes_nothing(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    read = (await admin.get(f"/v1/entitlements/{org}")).headers["etag"]
    first = await admin.put(f"/v1/entitlements/{org}", json={"plan": "starter"}, headers={"if-match": read})
    second = await admin.put(f"/v1/entitlements/{org}", json={"plan": "growth"}, headers={"if-match": read})
    ended = await admin.delete(f"/v1/entitlements/{org}", headers={"if-match": read})
    assert [first.status_code, second.status_code, ended.status_code] == [200, 412, 412]
    assert second.json()["type"] == "urn:quotagate:problem:precondition-failed"
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["plan"] == "starter"


@pytest.mark.parametrize("wrong", ["42", '"42', "'42'", '"a b"', 'w/"42"', '"1" "2"', "", ",", '*, "1"'])
async def test_an_if_match_that_is_none_by_rfc_9110_is_400(entitled: Entitled, admin: AsyncClient, wrong: str) -> None:
    path = f"/v1/entitlements/{await entitled('tiny')}"
    response = await admin.put(path, json={"plan": "growth"}, headers={"if-match": wrong})
    assert response.status_code == 400
    assert (await admin.get(path)).json()["plan"] == "tiny"


@pytest.mark.parametrize("other", ['"x"', '""', '"1", "2"', 'W/"1"', '"042"', '"%s"' % ("9" * 30)])
async def test_an_if_match_that_names_no_version_in_force_is_412(
    entitled: Entitled, admin: AsyncClient, other: str
) -> None:
    path = f"/v1/entitlements/{await entitled('tiny')}"
    response = await admin.put(path, json={"plan": "growth"}, headers={"if-match": other})
    assert response.status_code == 412
    assert response.headers["etag"] == (await admin.get(path)).headers["etag"]


async def test_an_if_match_of_several_versions_or_of_any_holds_where_one_is_there(
    entitled: Entitled, admin: AsyncClient
) -> None:
    path = f"/v1/entitlements/{await entitled('tiny')}"
    read = (await admin.get(path)).headers["etag"]
    for matching, plan in ((f'"1" ,, {read}', "growth"), ("*", "starter")):
        response = await admin.put(path, json={"plan": plan}, headers={"if-match": matching})
        assert (response.status_code, response.json()["plan"]) == (200, plan)
    org = f"org-{uuid4().hex[:8]}"
    await admin.put(f"/v1/organizations/{org}", json={"name": org})
    nothing = await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny"}, headers={"if-match": "*"})
    assert (nothing.status_code, "etag" in nothing.headers) == (412, False), "there is nothing that it could match"


async def test_an_ended_entitlement_is_refused_and_ending_it_again_changes_nothing(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    for _ in range(2):
        assert (await admin.delete(f"/v1/entitlements/{org}")).status_code == 204
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert (entitlement["status"], entitlement["plan"], entitlement["meters"], entitlement["reset"]) == (
        "ended",
        None,
        [],
        None,
    )
    decision = await charging.take(context.ledger, org, "r1", {"api_calls": 1})
    assert getattr(decision, "status", None) is Status.ENDED
    actions = [e["action"] for e in (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]]
    assert actions == ["entitlement.ended", "entitlement.set", "organization.created"]


async def test_a_suspended_organization_is_refused_and_keeps_its_period(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    await charging.take(context.ledger, org, "r1", {"api_calls": 3})
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "status": "suspended"})
    assert getattr(await charging.take(context.ledger, org, "r2", {"api_calls": 1}), "status", None) is Status.SUSPENDED
    meter = (await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny"})).json()["meters"][0]
    assert meter["used"] == 3


async def test_who_is_unknown_and_who_has_nothing_are_told_apart(admin: AsyncClient, catalogue: None) -> None:
    unknown = f"org-{uuid4().hex[:8]}"
    for response in (
        await admin.get(f"/v1/entitlements/{unknown}"),
        await admin.put(f"/v1/entitlements/{unknown}", json={"plan": "tiny"}),
        await admin.delete(f"/v1/entitlements/{unknown}"),
        await admin.get(f"/v1/organizations/{unknown}"),
        await admin.get(f"/v1/organizations/{unknown}/grants"),
        await admin.get(f"/v1/organizations/{unknown}/journal"),
    ):
        assert response.status_code == 404
        assert response.json()["type"] == "urn:quotagate:problem:organization-unknown"
    await admin.put(f"/v1/organizations/{unknown}", json={"name": "Known now"})
    response = await admin.get(f"/v1/entitlements/{unknown}")
    assert response.json()["type"] == "urn:quotagate:problem:not-found"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({}, "body.plan"),
        ({"plan": "nope"}, "body.plan"),
        ({"plan": "tiny", "typo": 1}, "body.typo"),
        ({"plan": "tiny", "status": "ended"}, "body.status"),
        ({"plan": "tiny", "policy": "hard_stop"}, "body.policy"),
        ({"plan": "tiny", "meters": {"Bad Name": 1}}, "body.meters"),
        ({"plan": "tiny", "meters": {"api_calls": -1}}, "body.meters"),
        ({"plan": "tiny", "meters": {"api_calls": "5"}}, "body.meters"),
        ({"plan": "tiny", "meters": {"api_calls": 1.5}}, "body.meters"),
        ({"plan": "tiny", "meters": {"api_calls": 10**16}}, "body.meters"),
        ({"plan": "tiny", "rate": {"requests": 0}}, "body.rate"),
        ({"plan": "tiny", "concurrent_max": 0}, "body.concurrent_max"),
        ({"plan": "tiny", "concurrent_max": "8"}, "body.concurrent_max"),
        ({"plan": "tiny", "period_anchor": "2026-01-31T00:00:00"}, "body.period_anchor"),
        ({"plan": "tiny", "period_anchor": 1_700_000_000}, "body.period_anchor"),
        ({"plan": "tiny", "period_anchor": "1700000000"}, "body.period_anchor"),
        ({"plan": "tiny", "period_anchor": "1899-01-01T00:00:00Z"}, "body.period_anchor"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_changes(
    entitled: Entitled, admin: AsyncClient, content: dict[str, object], field: str
) -> None:
    org = await entitled("starter")
    response = await admin.put(f"/v1/entitlements/{org}", json=content)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert any(error["field"].startswith(field) for error in response.json()["errors"]), response.text
    assert (await admin.get(f"/v1/entitlements/{org}")).headers["etag"]
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["plan"] == "starter"


async def test_while_redis_is_away_postgres_answers_with_what_is_written(
    context: Context, entitled: Entitled, admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    grant = {"meter": "api_calls", "units": 4, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    await charging.take(context.ledger, org, "r1", {"api_calls": 40})
    await context.writer.resume()
    await context.writer.write()
    exact = (await admin.get(f"/v1/entitlements/{org}")).json()

    async def away(*_: object) -> None:
        raise LedgerUnavailable("peek: refused")

    monkeypatch.setattr(context.ledger, "peek", away)
    written = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert (written["source"], written["published"]) == ("postgres", False)
    assert written["as_of"] < exact["as_of"]
    for name in ("plan", "status", "period", "meters", "grants", "rate", "version"):
        assert written[name] == exact[name], name


async def test_an_organization_that_redis_does_not_know_is_loaded_by_reading_it(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    await charging.take(context.ledger, org, "r1", {"api_calls": 9})
    await context.ledger.redis.delete(keys.org_key(org, 32))
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert (entitlement["source"], entitlement["meters"][0]["used"]) == ("redis", 9)


async def test_periods_that_ran_out_are_renewed_by_reading_them(
    entitled: Entitled, admin: AsyncClient, clock: MovedClock
) -> None:
    clock.move(days=-70)  # Redis keeps the real time: to it, what is published now is over
    org = await entitled("tiny")
    clock.move(days=70)
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert entitlement["source"] == "redis"
    assert entitlement["meters"][0]["remaining"] == 100


async def test_what_get_returns_can_be_put_and_changes_nothing(entitled: Entitled, admin: AsyncClient) -> None:
    content = {"meters": {"api_calls": 25_000}, "rate": {"requests": 3, "seconds": 60}, "concurrent_max": 8}
    org = await entitled("starter", **content)
    read = await admin.get(f"/v1/entitlements/{org}")
    for document in (read.json(), read.json()["set"]):
        again = await admin.put(f"/v1/entitlements/{org}", json=document)
        assert again.status_code == 200, again.text
        assert again.headers["etag"] == read.headers["etag"]
    moved = {**read.json(), "plan": "growth"}
    refused = await admin.put(f"/v1/entitlements/{org}", json=moved)
    assert refused.status_code == 422
    assert "change the one in set" in refused.json()["detail"]


async def test_a_patch_changes_what_it_names_and_null_is_the_plans_again(
    entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("many", meters={"images": 5, "tokens": 7}, overage_max={"images": 1}, concurrent_max=8)
    path = f"/v1/entitlements/{org}"
    patched = (await admin.patch(path, json={"meters": {"images": 50, "free": 2}})).json()["set"]
    assert patched["meters"] == {"images": 50, "tokens": 7, "free": 2}
    assert (patched["overage_max"], patched["concurrent_max"]) == ({"images": 1}, 8)
    patched = (await admin.patch(path, json={"meters": {"tokens": None}, "concurrent_max": None})).json()["set"]
    assert patched["meters"] == {"images": 50, "free": 2}
    assert patched["concurrent_max"] is None
    moved = (await admin.patch(path, json={"plan": "starter"})).json()["set"]
    assert (moved["plan"], moved["meters"]) == ("starter", {"images": 50, "free": 2})


async def test_a_patch_of_nothing_that_is_in_force_needs_a_plan(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    await admin.delete(f"/v1/entitlements/{org}")
    refused = await admin.patch(f"/v1/entitlements/{org}", json={"meters": {"api_calls": 5}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "body.plan"


async def test_suspending_and_resuming_leave_all_else_as_it_was(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("starter", meters={"api_calls": 25_000})
    path = f"/v1/entitlements/{org}"
    before = (await admin.get(path)).json()["set"]
    suspended = (await admin.post(f"{path}/suspend", json={"reason": "abuse"})).json()
    assert (suspended["status"], suspended["set"]) == ("suspended", {**before, "status": "suspended"})
    assert getattr(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), "status", None) is Status.SUSPENDED
    assert (await admin.patch(path, json={"meters": {"api_calls": 26_000}})).json()["status"] == "suspended"
    resumed = (await admin.post(f"{path}/resume")).json()
    assert (resumed["status"], resumed["meters"][0]["allowance"]) == ("active", 26_000)
    entries = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert [entry["action"] for entry in entries[:3]] == [
        "entitlement.resumed",
        "entitlement.set",
        "entitlement.suspended",
    ]
    assert entries[2]["after"] == {"held": True, "reason": "abuse"}
    version = (await admin.get(path)).headers["etag"]
    assert (await admin.post(f"{path}/resume")).headers["etag"] == version, "again is no change"


async def test_who_never_had_an_entitlement_can_be_suspended_and_is_so_with_the_first(
    context: Context, admin: AsyncClient, catalogue: None
) -> None:
    org = f"org-{uuid4().hex[:8]}"
    path = f"/v1/entitlements/{org}"
    await admin.put(f"/v1/organizations/{org}", json={"name": org})
    assert (await admin.post(f"{path}/resume")).status_code == 404, "nothing is there that could be resumed"
    suspended = await admin.post(f"{path}/suspend", json={"reason": "abuse"})
    assert (suspended.status_code, suspended.json()["set"]) == (200, None)
    entries = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert (entries[0]["action"], entries[0]["after"]) == ("entitlement.suspended", {"held": True, "reason": "abuse"})
    assert (await admin.patch(path, json={"plan": "starter"})).json()["status"] == "suspended"
    assert getattr(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), "status", None) is Status.SUSPENDED
    assert (await admin.post(f"{path}/resume")).json()["status"] == "active"


async def test_an_ended_organization_can_be_suspended_and_stays_so_with_its_next_plan(
    entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    await admin.delete(f"/v1/entitlements/{org}")
    await admin.post(f"/v1/entitlements/{org}/suspend")
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["status"] == "ended"
    given = (await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "status": "suspended"})).json()
    assert given["status"] == "suspended"


async def test_a_patch_that_names_no_status_ends_no_suspension_also_where_nothing_was_in_force(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    path = f"/v1/entitlements/{org}"
    await admin.delete(path)
    await admin.post(f"{path}/suspend")
    assert (await admin.patch(path, json={"plan": "starter"})).json()["status"] == "suspended"
    assert getattr(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), "status", None) is Status.SUSPENDED
    assert (await admin.patch(path, json={"status": "active"})).json()["status"] == "active"
    entries = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert [(each["before"].get("held"), each["after"].get("held")) for each in entries[:2]] == [
        (True, None),
        (True, True),
    ]


async def test_a_version_that_is_outdated_is_told_the_one_that_is_not(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    path = f"/v1/entitlements/{org}"
    read = (await admin.get(path)).headers["etag"]
    changed = await admin.patch(path, json={"plan": "starter"}, headers={"if-match": read})
    for refused in (
        await admin.patch(path, json={"plan": "growth"}, headers={"if-match": read}),
        await admin.post(f"{path}/suspend", headers={"if-match": read}),
    ):
        assert refused.status_code == 412
        assert refused.headers["etag"] == changed.headers["etag"]


async def test_a_change_that_is_scheduled_comes_when_its_time_has_come(
    context: Context, clock: MovedClock, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("starter", meters={"api_calls": 25_000})
    path, at = f"/v1/entitlements/{org}", int(context.clock()) + 60
    effective = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted = {"plan": "growth", "meters": {"api_calls": 150_000}, "effective_at": effective}
    now = (await admin.put(path, json=wanted)).json()
    assert (now["plan"], now["meters"][0]["allowance"]) == ("starter", 25_000)
    [ahead] = now["scheduled"]
    assert (ahead["at"], ahead["set"]["plan"], ahead["set"]["meters"]) == (effective, "growth", {"api_calls": 150_000})
    assert (await admin.put(path, json=wanted)).json()["version"] == now["version"], "the same again is no change"
    later = {**wanted, "meters": {"api_calls": 160_000}}
    assert len((await admin.put(path, json=later)).json()["scheduled"]) == 1, "it takes the other's place"
    clock.move(seconds=61)
    await context.publisher.round()
    then = (await admin.get(path)).json()
    assert (then["plan"], then["meters"][0]["allowance"], then["scheduled"]) == ("growth", 160_000, [])


async def test_what_is_scheduled_can_be_taken_back(context: Context, entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("starter")
    path, at = f"/v1/entitlements/{org}", int(context.clock()) + 3600
    effective = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (await admin.patch(path, json={"plan": "growth", "effective_at": effective})).json()["scheduled"]
    for _ in range(2):
        assert (await admin.delete(f"{path}/scheduled")).status_code == 204
    entitlement = (await admin.get(path)).json()
    assert (entitlement["plan"], entitlement["scheduled"], entitlement["status"]) == ("starter", [], "active")
    past = await admin.patch(path, json={"plan": "growth", "effective_at": "2020-01-01T00:00:00Z"})
    assert past.status_code == 422


@pytest.mark.parametrize("field", ["meters", "overage_max"])
async def test_a_meter_that_no_plan_has_is_refused_with_a_suggestion(
    entitled: Entitled, admin: AsyncClient, field: str
) -> None:
    org = await entitled("starter")
    for answer in (
        await admin.put(f"/v1/entitlements/{org}", json={"plan": "starter", field: {"api_cals": 5}}),
        await admin.patch(f"/v1/entitlements/{org}", json={field: {"api_cals": 5}}),
    ):
        assert answer.status_code == 422
        assert answer.json()["detail"] == "No plan has the meter api_cals (did you mean api_calls?)."
    grant = {"meter": "api_cals", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "typo"}
    assert (await admin.post(f"/v1/organizations/{org}/grants", json=grant)).status_code == 422

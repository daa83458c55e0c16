"""Shadow mode of an organization: begun and ended as an action, published, and seen."""

from typing import Any

import pytest
from httpx import AsyncClient

from control.http.context import Context
from tests.control.actions.doing import Admin
from tests.control.plane import Entitled
from tests.control.reporting import Post, record, statuses
from tests.control.usage import used


@pytest.fixture
def ada(admin: AsyncClient) -> Admin:
    return Admin(admin)


async def published(context: Context, org: str) -> bool:
    snapshot = await context.ledger.peek(org)
    assert snapshot is not None
    return snapshot.shadow


async def supposed(admin: AsyncClient, org: str, units: int) -> dict[str, Any]:
    body = {"org": org, "charges": {"api_calls": units}}
    decision: dict[str, Any] = (await admin.post("/v1/decisions/explain", json=body)).json()
    return decision


async def test_it_is_shown_before_published_with_the_answer_seen_everywhere_and_undone(
    context: Context, ada: Admin, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled("tiny")
    effect = await ada.preview(org, "shadow", mode="on")
    assert [effect["entitlement"][when]["shadow"] for when in ("before", "after")] == [False, True]
    assert not await published(context, org)
    done = await ada.do(org, "shadow", mode="on")
    assert await published(context, org)
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert (entitlement["shadow"], entitlement["published"], entitlement["status"]) == (True, True, "active")
    assert (await admin.get(f"/v1/organizations/{org}")).json()["shadow"]
    assert (await admin.get(f"/v1/organizations/{org}/overview")).json()["organization"]["shadow"]
    listed = (await admin.get("/v1/organizations", params={"sort": "-created"})).json()["organizations"]
    assert [each["shadow"] for each in listed if each["id"] == org] == [True]
    assert [(await supposed(admin, org, units))["outcome"] for units in (1, 10**6)] == ["admitted", "would_be_refused"]
    assert (await ada.undo(done)).status_code == 200
    assert not await published(context, org)
    assert (await supposed(admin, org, 10**6))["outcome"] == "refused"
    entries = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    told = [(each["action"], each["after"].get("shadow")) for each in entries if "shadow" in each["action"]]
    assert told == [("organization.shadow_ended", False), ("organization.shadow_begun", True)]


async def test_what_is_so_already_is_no_action(ada: Admin, entitled: Entitled) -> None:
    org = await entitled("tiny")
    path = f"/v1/organizations/{org}/actions/shadow/preview"
    assert (await ada.client.post(path, json={"fields": {"mode": "off"}})).status_code == 409
    await ada.do(org, "shadow", mode="on")
    assert (await ada.client.post(path, json={"fields": {"mode": "on"}})).status_code == 409


async def test_it_outlasts_a_change_of_plan_and_the_end_of_the_entitlement_but_no_deletion(
    context: Context, ada: Admin, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled("tiny")
    await ada.do(org, "shadow", mode="on")
    await ada.do(org, "override", plan="starter")
    assert await published(context, org)
    assert (await admin.delete(f"/v1/entitlements/{org}")).status_code < 300
    assert await published(context, org)
    assert (await admin.delete(f"/v1/organizations/{org}")).status_code == 204
    assert not await published(context, org)
    assert (await admin.post(f"/v1/organizations/{org}/restore")).json()["shadow"]
    assert await published(context, org)


async def test_who_never_had_a_plan_can_be_in_shadow_mode(context: Context, ada: Admin) -> None:
    org = "shadowed-without-a-plan"
    await ada.client.put(f"/v1/organizations/{org}", json={"name": org})
    await ada.do(org, "shadow", mode="on")
    assert await published(context, org)
    assert (await ada.client.get(f"/v1/entitlements/{org}")).status_code == 404


async def test_reported_usage_that_would_be_refused_is_accepted_and_not_charged(
    context: Context, ada: Admin, entitled: Entitled, post: Post
) -> None:
    org = await entitled("tiny")
    await ada.do(org, "shadow", mode="on")
    some = [record(units=90, idempotency_key="fits"), record(units=90, idempotency_key="too-much")]
    answer = await post(org, [*some, record(units=-1)])
    assert statuses(answer) == [200, 200, 422]
    assert {name: answer.json()[name] for name in ("charged", "refused", "uncharged")} == {
        "charged": 1,
        "refused": 1,
        "uncharged": 1,
    }
    alone = await post(org, some[1])
    assert (alone.status_code, alone.headers["content-type"]) == (200, "application/json")
    told = alone.json()
    assert (told["shadow"], told["units"], told["title"]) == (True, 0, "Quota exceeded")
    assert await used(context, org) == 90
    await ada.do(org, "shadow", mode="off")
    assert (await post(org, some[1])).status_code == 429
    assert (await post(org, some[0])).status_code == 200  # its charge is recalled
    assert await used(context, org) == 90

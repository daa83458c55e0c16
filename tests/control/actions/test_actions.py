"""Actions on what the database has: shown before, done once, undone."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient

from control.actions.effect import see
from control.entitlements.derive import derive
from control.http.context import Context
from tests.control.actions.doing import Admin
from tests.control.plane import Entitled

METERS = ("api_calls", "free", "images", "tokens")
SOON = (datetime.now(UTC) + timedelta(days=20)).isoformat()


@pytest.fixture
def ada(admin: AsyncClient) -> Admin:
    return Admin(admin)


async def standing(context: Context, org: str) -> dict[str, Any]:
    """All that an organization may use, without versions."""
    now = context.clock()
    async with context.db.connection() as connection:
        seen = await see(connection, org, now)
        codes = await connection.fetchval(
            "SELECT coalesce(sum(sites), 0) FROM activation_code WHERE org = $1 AND revoked_at IS NULL", org
        )
    entitlement = derive(seen.state, now)
    return {
        "status": entitlement.status,
        "plan": entitlement.plan,
        "policy": entitlement.policy,
        "meters": entitlement.meters,
        "grants": entitlement.grants,
        "periods": entitlement.periods,
        "rate": entitlement.rate,
        "concurrent_max": entitlement.concurrent_max,
        "ahead": seen.ahead,
        "terms": seen.state.terms,
        "caps": seen.state.caps,
        "codes": codes,
        "shadow": entitlement.shadow,
    }


def some_action(chance: random.Random, suspended: bool, shadow: bool) -> tuple[str, dict[str, Any]]:
    meter, units = chance.choice(METERS), chance.choice((0, 1, 77, 10**9))
    some: list[tuple[str, dict[str, Any]]] = [
        ("override", {"meter": meter, "allowance": units}),
        ("override", {"meter": meter, "allowance": units, "overage_max": chance.randrange(1000)}),
        ("override", {"meter": meter, "restore": "meter"}),
        ("override", {"policy": chance.choice(("HARD_STOP", "METERED"))}),
        ("override", {"concurrent_max": chance.randrange(1, 50)}),
        ("override", {"restore": "all"}),
        ("override", {"plan": chance.choice(("starter", "growth", "many"))}),
        ("override", {"plan": "many", "meter": "free", "allowance": units, "policy": "METERED", "restore": "all"}),
        ("grant", {"meter": meter, "units": max(1, units), "expires_at": SOON}),
        ("cap", {"meter": meter, "units": chance.choice((0, 5, 10**9))}),
        ("cap", {"meter": meter}),
        ("activation_code", {"sites": chance.randrange(1, 9)}),
        ("resume" if suspended else "suspend", {}),
        ("shadow", {"mode": "off" if shadow else "on"}),
    ]
    return chance.choice(some)


@pytest.mark.parametrize("seed", range(12))
async def test_undo_of_apply_is_what_was_before(context: Context, ada: Admin, entitled: Entitled, seed: int) -> None:
    chance = random.Random(seed)
    own: dict[str, Any] = {
        "rate": {"requests": 7, "seconds": 0.5, "burst": 3},
        "period": {"every": 2, "unit": "week"},
        "period_anchor": "2026-03-04T05:06:07Z",
    }
    org = await entitled(chance.choice(("starter", "growth", "many")), **(own if chance.random() < 0.5 else {}))
    done: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for _ in range(12):
        before = await standing(context, org)
        if done and chance.random() < 0.4:
            action, earlier = done.pop()
            answer = await ada.undo(action)
            assert answer.status_code == 200, (answer.text, action)
            assert await standing(context, org) == earlier, action
            continue
        name, fields = some_action(chance, before["status"].word == "suspended", before["shadow"])
        answer = await ada.client.post(f"/v1/organizations/{org}/actions/{name}/preview", json={"fields": fields})
        if answer.status_code == 409:  # it is so already
            assert await standing(context, org) == before
            continue
        assert answer.status_code == 200, answer.text
        assert await standing(context, org) == before, "a preview changes nothing"
        action = await ada.do(org, name, **fields)
        assert action["undoable"]
        assert await standing(context, org) != before
        done.append((action, before))
    for action, before in reversed(done):
        assert (await ada.undo(action)).status_code == 200
        assert await standing(context, org) == before, action


async def test_the_effect_that_is_shown_is_the_effect_that_it_has(
    context: Context, ada: Admin, entitled: Entitled
) -> None:
    org = await entitled("starter")
    fields = {"meter": "api_calls", "allowance": 7}
    effect = await ada.preview(org, "override", **fields)
    await ada.do(org, "override", **fields)
    again = await ada.preview(org, "suspend")
    assert effect["entitlement"]["after"] == again["entitlement"]["before"]
    [calls] = [each for each in again["entitlement"]["before"]["meters"] if each["meter"] == "api_calls"]
    assert (calls["allowance"], calls["remaining"]) == (7, 7)
    snapshot = await context.ledger.peek(org)
    assert snapshot is not None
    assert {each.meter: each.allowance for each in snapshot.meters}["api_calls"] == 7, "gateways go by it"


async def test_of_two_admins_the_second_sees_what_has_changed_and_overwrites_nothing(
    context: Context, ada: Admin, entitled: Entitled
) -> None:
    org = await entitled("starter")
    mine = {"meter": "api_calls", "allowance": 7}
    seen = await ada.preview(org, "override", **mine)
    await ada.do(org, "override", meter="api_calls", allowance=99)
    after = await standing(context, org)
    answer = await ada.confirm(org, "override", seen["state"], **mine)
    assert answer.status_code == 409, answer.text
    changed = answer.json()["changed"]
    assert [each["action"] for each in changed] == ["action.done", "entitlement.set"]
    assert {each["actor"] for each in changed} == {"admin"}
    assert changed[1]["after"]["meters"] == {"api_calls": 99}
    assert await standing(context, org) == after


async def test_of_two_confirmations_at_once_one_is_done(ada: Admin, entitled: Entitled) -> None:
    org = await entitled("starter")
    previews = [await ada.preview(org, "override", meter="api_calls", allowance=n) for n in range(6)]
    answers = await asyncio.gather(
        *(
            ada.confirm(org, "override", effect["state"], meter="api_calls", allowance=n)
            for n, effect in enumerate(previews)
        )
    )
    assert sorted(each.status_code for each in answers) == [201, *[409] * 5]


async def test_a_confirmation_that_comes_twice_is_done_once_and_shows_no_secret_again(
    ada: Admin, entitled: Entitled
) -> None:
    org = await entitled("starter")
    effect = await ada.preview(org, "activation_code", sites=3)
    first, *others = await asyncio.gather(
        *(ada.confirm(org, "activation_code", effect["state"], sites=3) for _ in range(4))
    )
    again = await ada.confirm(org, "activation_code", effect["state"], sites=3)
    assert (again.status_code, again.json()["shown"]) == (201, {})
    shown = [each.json()["shown"] for each in (first, *others) if each.status_code == 201 and each.json()["shown"]]
    assert [list(each) for each in shown] == [["Activation code"]]
    codes = (await ada.client.get(f"/v1/organizations/{org}/activation-codes")).json()["activation_codes"]
    assert len(codes) == 1
    other = await ada.confirm(org, "activation_code", effect["state"], sites=4)
    assert other.status_code == 409, "another action than the one that was shown"


async def test_another_action_than_the_one_that_was_shown_is_not_done(ada: Admin, entitled: Entitled) -> None:
    org, other = await entitled("starter"), await entitled("starter")
    state = (await ada.preview(org, "override", meter="api_calls", allowance=7))["state"]
    assert (await ada.confirm(org, "override", state, meter="api_calls", allowance=8)).status_code == 409
    assert (await ada.confirm(other, "override", state, meter="api_calls", allowance=7)).status_code == 409
    assert (await ada.confirm(org, "suspend", state)).status_code == 409
    for wrong in ("", "x", state[:-1], state.upper(), state + "0"):
        assert (await ada.confirm(org, "suspend", wrong)).status_code == 422
    assert (await ada.confirm(org, "override", state, meter="api_calls", allowance=7)).status_code == 201


async def test_what_somebody_else_has_changed_since_is_not_undone(
    context: Context, ada: Admin, entitled: Entitled
) -> None:
    org = await entitled("starter")
    done = await ada.do(org, "override", meter="api_calls", allowance=7)
    patch = await ada.client.patch(f"/v1/entitlements/{org}", json={"meters": {"api_calls": 8}})
    assert patch.status_code == 200
    after = await standing(context, org)
    answer = await ada.undo(done)
    assert answer.status_code == 409, answer.text
    assert await standing(context, org) == after
    assert (await ada.client.patch(f"/v1/entitlements/{org}", json={"meters": {"api_calls": 7}})).is_success
    assert (await ada.undo(done)).status_code == 200
    again = await ada.undo(done)
    assert again.status_code == 409, "it is undone already"


async def test_keys_are_rolled_and_revoked_and_that_cannot_be_undone(
    context: Context, ada: Admin, entitled: Entitled
) -> None:
    org = await entitled("starter")
    made = (await ada.client.post(f"/v1/organizations/{org}/keys", json={"name": "the shop's"})).json()
    rolled = await ada.do(org, "key_roll", key=made["id"], grace_seconds=60)
    assert rolled["shown"]["New key"].startswith("qg_live_")
    assert (await ada.undo(rolled)).status_code == 409
    revoked = await ada.do(org, "key_revoke", key=rolled["done"]["new"])
    assert (await ada.undo(revoked)).status_code == 409
    keys = (await ada.client.get(f"/v1/organizations/{org}/keys")).json()["keys"]
    assert {key["id"]: key["state"] for key in keys} == {made["id"]: "active", rolled["done"]["new"]: "revoked"}
    again = await ada.client.post(
        f"/v1/organizations/{org}/actions/key_revoke/preview", json={"fields": {"key": revoked["fields"]["key"]}}
    )
    assert again.status_code == 409
    async with context.db.connection() as connection:
        journal = await connection.fetch("SELECT before::text, after::text FROM audit_journal WHERE org = $1", org)
        rows = await connection.fetch("SELECT row_to_json(a)::text FROM admin_action a WHERE org = $1", org)
    texts = [text for row in (*journal, *rows) for text in row if text]
    assert not [text for text in texts if rolled["shown"]["New key"] in text], "a secret is stored nowhere"


async def test_the_journal_says_who_did_it_and_why_and_who_undid_it(
    context: Context, ada: Admin, entitled: Entitled
) -> None:
    org = await entitled("starter")
    done = await ada.do(org, "suspend")
    assert (await ada.undo(done)).status_code == 200
    async with context.db.connection() as connection:
        query = "SELECT action, actor, before, after FROM audit_journal WHERE org = $1 AND action LIKE $2 ORDER BY id"
        rows = [dict(row) for row in await connection.fetch(query, org, "action.%")]
    shared = {"id": done["id"], "action": "suspend"}
    assert rows == [
        {
            "action": "action.done",
            "actor": "admin",
            "before": None,
            "after": {**shared, "reason": "a test", "fields": {}, "undoable": True},
        },
        {"action": "action.undone", "actor": "admin", "before": {**shared, "reason": "a mistake"}, "after": None},
    ]
    listed = (await ada.client.get(f"/v1/organizations/{org}/actions")).json()["actions"]
    assert [(each["name"], each["state"], each["undoable"]) for each in listed] == [("suspend", "undone", False)]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("override", {}),
        ("override", {"meter": "api_calls"}),
        ("override", {"allowance": 5}),
        ("override", {"meter": "api_calls", "allowance": -1}),
        ("override", {"restore": "everything"}),
        ("override", {"plan": "of_nobody"}),
        ("override", {"meter": "of_nobody", "allowance": 5}),
        ("grant", {"meter": "api_calls", "units": 0, "expires_at": "2099-01-01T00:00:00Z"}),
        ("grant", {"meter": "api_calls", "units": 5, "expires_at": "tomorrow"}),
        ("suspend", {"for": "a while"}),
        ("key_roll", {"key": "?"}),
    ],
    ids=str,
)
async def test_bad_input_is_answered_422(ada: Admin, entitled: Entitled, name: str, fields: dict[str, Any]) -> None:
    org = await entitled("starter")
    answer = await ada.client.post(f"/v1/organizations/{org}/actions/{name}/preview", json={"fields": fields})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


async def test_a_form_has_what_there_is_to_choose_from(ada: Admin, entitled: Entitled) -> None:
    org = await entitled("starter")
    form = (await ada.client.get(f"/v1/organizations/{org}/actions/override")).json()
    fields = {each["name"]: each for each in form["fields"]}
    assert ("growth", "Growth") in [(each["value"], each["label"]) for each in fields["plan"]["options"]]
    assert [fields[name]["kind"] for name in ("plan", "meter", "allowance", "policy")] == [
        "choice",
        "choice",
        "number",
        "choice",
    ]
    kinds = (await ada.client.get("/v1/actions")).json()["actions"]
    assert {"override", "grant", "suspend", "resume", "shadow"} <= {each["name"] for each in kinds}
    for each in kinds:
        assert (await ada.client.get(f"/v1/organizations/{org}/actions/{each['name']}")).status_code == 200

"""Caps of overage that organizations set for themselves: the ledger goes by them, and no plan drops them."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.http.context import Context
from quota.model import Admitted, Exhausted
from tests import charging
from tests.control.actions.doing import Admin
from tests.control.plane import Entitled, MovedClock
from tests.control.portal.customers import customer
from tests.control.usage import write_all


async def put(client: AsyncClient, org: str, units: int | None, meter: str = "api_calls", **more: Any) -> int:
    answer = await client.put(f"/v1/organizations/{org}/caps/{meter}", json={"units": units, **more})
    return answer.status_code


async def cap(client: AsyncClient, org: str, meter: str = "api_calls") -> dict[str, Any]:
    answer = await client.get(f"/v1/organizations/{org}/caps")
    assert answer.status_code == 200, answer.text
    [found] = [each for each in answer.json()["caps"] if each["meter"] == meter]
    return dict(found)


async def is_served(context: Context, org: str, units: int) -> bool:
    decision = await charging.take(context.ledger, org, uuid4().hex, {"api_calls": units})
    assert isinstance(decision, Admitted | Exhausted)
    return isinstance(decision, Admitted)


async def test_beyond_the_cap_a_request_is_refused_from_the_answer_on(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled("growth", meters={"api_calls": 10})
    assert await is_served(context, org, 12)
    assert await put(admin, org, 5) == 200
    assert not await is_served(context, org, 4)
    assert await is_served(context, org, 3)
    assert not await is_served(context, org, 1)
    assert await put(admin, org, 0) == 200
    assert not await is_served(context, org, 1)
    assert await put(admin, org, None) == 200
    assert await is_served(context, org, 1000)


async def test_no_plan_drops_a_cap(context: Context, admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("growth", meters={"api_calls": 10})
    await put(admin, org, 5)
    starter = await admin.put(f"/v1/entitlements/{org}", json={"plan": "starter", "meters": {"api_calls": 10}})
    assert starter.status_code == 200
    assert (await cap(admin, org))["in_force"] == 0, "this plan sells nothing"
    assert (await admin.delete(f"/v1/entitlements/{org}")).status_code == 204
    again = await admin.put(f"/v1/entitlements/{org}", json={"plan": "growth", "meters": {"api_calls": 10}})
    assert (again.status_code, again.json()["caps"]) == (200, {"api_calls": 5})
    assert (await cap(admin, org))["in_force"] == 5
    assert await is_served(context, org, 15)
    assert not await is_served(context, org, 1)


async def test_a_cap_is_never_above_what_the_vendor_allows(admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("growth", overage_max={"api_calls": 100})
    for own, in_force in ((500, 100), (100, 100), (99, 99), (None, 100)):
        assert await put(admin, org, own) == 200
        found = await cap(admin, org)
        assert (found["units"], found["allowed"], found["in_force"]) == (own, 100, in_force)


async def test_what_a_cap_costs_at_most_is_told_by_the_plans_price(admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("growth")
    await put(admin, org, 1501)
    found = await cap(admin, org)
    price = found["price"]
    assert found["worth_minor"] == -(-1501 * price["amount_minor"] // price["units"])
    await put(admin, org, None)
    assert (await cap(admin, org))["worth_minor"] is None, "any number may be bought"


async def test_of_two_people_at_once_the_second_overwrites_nothing(admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("growth")
    answers = await asyncio.gather(*(put(admin, org, units, expected=None) for units in range(1, 7)))
    assert sorted(answers) == [200] + [409] * 5
    now = (await cap(admin, org))["units"]
    assert await put(admin, org, 50, expected=now + 1) == 409
    assert await put(admin, org, 50, expected=now) == 200


@pytest.mark.parametrize("body", [{}, {"units": -1}, {"units": "5"}, {"units": 1.5}, {"units": 2**60}, {"cap": 5}])
async def test_what_is_no_cap_is_refused(admin: AsyncClient, entitled: Entitled, body: dict[str, Any]) -> None:
    org = await entitled()
    assert (await admin.put(f"/v1/organizations/{org}/caps/api_calls", json=body)).status_code == 422
    assert await put(admin, org, 5, "no_such_meter") == 422
    assert await put(admin, "never-was", 5) == 404


async def test_owners_set_caps_in_the_portal_and_undo_them(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled("growth")
    async with (
        customer(context, admin, org, role="owner") as owner,
        customer(context, admin, org, role="admin") as other,
    ):
        await owner.send("/portal/caps/api_calls", 303, units="50", was="")
        await owner.send("/portal/caps/api_calls", 303, units="20", was="50")
        assert 'value="20"' in await owner.open("/portal/caps")
        late = await owner.send("/portal/caps/api_calls", 422, units="7", was="50")
        assert "Somebody else was faster. The cap is 20 units by now." in late
        await owner.send("/portal/caps/api_calls", 303, units="50", was="20")  # what the button Undo sends
        assert "before that it was 20 units" in await owner.open("/portal/caps")
        assert "Save" not in await other.open("/portal/caps")
        await other.send("/portal/caps/api_calls", 403, units="7", was="50")
        await owner.send("/portal/caps/api_calls", 422, units="many", was="50")
        await owner.send("/portal/caps/no_such_meter", 422, units="7", was="")
    assert (await cap(admin, org))["units"] == 50
    entries = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    changed = [(e["before"]["units"], e["after"]["units"]) for e in entries if e["action"] == "overage_cap.set"]
    assert changed == [(20, 50), (50, 20), (None, 50)]
    assert {e["actor"] for e in entries if e["action"] == "overage_cap.set"} == {f"org:{org}"}


async def test_an_admins_cap_is_not_undone_over_the_owners(admin: AsyncClient, entitled: Entitled) -> None:
    org, ada = await entitled("growth"), Admin(admin)
    action = await ada.do(org, "cap", meter="api_calls", units=5)
    await put(admin, org, 6)
    assert (await ada.undo(action)).status_code == 409
    await put(admin, org, 5)
    assert (await ada.undo(action)).status_code == 200
    assert (await cap(admin, org))["units"] is None


@pytest.mark.usefixtures("new_streams")
async def test_a_replay_of_the_past_has_the_caps_of_the_past(
    context: Context, admin: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled("growth", meters={"api_calls": 10})
    for cap_then, units in ((None, 30), (25, 5), (25, 1), (40, 15)):
        clock.now = time.time() + 0.002  # recorded times are of Redis' clock, and have milliseconds
        await put(admin, org, cap_then)
        while time.time() < clock.now:  # noqa: ASYNC110  # the time itself is waited for
            await asyncio.sleep(0.001)
        await is_served(context, org, units)
    await write_all(context)
    answer = await admin.post("/v1/analytics/what-if", json={"org": org})
    [outcome] = answer.json()["organizations"]
    assert (outcome["requests"], outcome["reproduced"], outcome["refused"]) == (3, 3, 0)

"""One organization as a whole, and what its entitlement was and will be."""

from datetime import timedelta
from uuid import uuid4

from httpx import AsyncClient

from control.http.context import Context
from control.moments import moment
from tests.control.plane import Entitled, MovedClock, TokenOf
from tests.control.usage import spend, write_all


async def test_an_overview_tells_plan_use_people_keys_and_changes_ahead(
    context: Context, admin: AsyncClient, entitled: Entitled, new_streams: None, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    await admin.put(f"/v1/organizations/{org}/members/user_1", json={"role": "owner"})
    await admin.post(f"/v1/organizations/{org}/keys", json={"name": "k"})
    at = moment(clock()).replace(microsecond=0) + timedelta(days=3)
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "growth", "effective_at": at.isoformat()})
    await spend(context, org, units=7)
    await write_all(context)
    overview = (await admin.get(f"/v1/organizations/{org}/overview")).json()
    assert overview["organization"]["id"] == org
    assert overview["summary"]["plan"] == "tiny"
    assert [meter["used"] for meter in overview["summary"]["meters"]] == [7]
    assert [overview[name]["found"] for name in ("people", "keys", "sites", "open_incidents")] == [1, 1, 0, 0]
    assert overview["changes"] == [at.isoformat().replace("+00:00", "Z")]


async def test_an_overview_of_nobody_is_404_and_no_customer_may_see_one(
    admin: AsyncClient, nobody: AsyncClient, entitled: Entitled, token_of: TokenOf
) -> None:
    assert (await admin.get("/v1/organizations/nobody/overview")).status_code == 404
    org = await entitled("tiny")
    own = {"authorization": f"Bearer {token_of(org)}"}
    assert (await nobody.get(f"/v1/organizations/{org}/overview", headers=own)).status_code == 403


async def test_history_has_each_time_at_which_the_entitlement_became_another(
    admin: AsyncClient, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    clock.move(hours=1)
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "growth"})
    clock.move(hours=1)
    await admin.patch(f"/v1/entitlements/{org}", json={"meters": {"api_calls": 5}})
    clock.move(hours=1)
    at = moment(clock()).replace(microsecond=0) + timedelta(days=3)
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "effective_at": at.isoformat()})
    entries = (await admin.get(f"/v1/entitlements/{org}/history")).json()["entries"]
    assert [(e["state"], e["set"]["plan"], e["set"]["meters"]) for e in entries] == [
        ("scheduled", "tiny", {}),
        ("current", "growth", {"api_calls": 5}),
        ("past", "growth", {}),
        ("past", "tiny", {}),
    ]
    assert [entry["end"] for entry in entries[1:]] == [entry["start"] for entry in entries[:-1]]
    assert entries[0]["end"] is None
    read: list[object] = []
    before: str | None = None
    while True:
        query = {"limit": "1"} | ({} if before is None else {"before": before})
        page = (await admin.get(f"/v1/entitlements/{org}/history", params=query)).json()
        read += page["entries"]
        before = page["next"]
        if before is None:
            break
    assert read == entries


async def test_history_tells_an_end_and_a_suspension(admin: AsyncClient, entitled: Entitled, clock: MovedClock) -> None:
    org = await entitled("tiny")
    clock.move(hours=1)
    await admin.post(f"/v1/entitlements/{org}/suspend")
    clock.move(hours=1)
    await admin.delete(f"/v1/entitlements/{org}")
    ended, suspended, first = (await admin.get(f"/v1/entitlements/{org}/history")).json()["entries"]
    assert (ended["state"], ended["set"], ended["plan_name"]) == ("current", None, None)
    assert (suspended["set"]["status"], first["set"]["status"]) == ("suspended", "active")


async def test_history_of_who_never_had_one_is_empty(admin: AsyncClient) -> None:
    org = f"org-{uuid4().hex[:8]}"
    assert (await admin.get(f"/v1/entitlements/{org}/history")).status_code == 404
    await admin.put(f"/v1/organizations/{org}", json={"name": org})
    assert (await admin.get(f"/v1/entitlements/{org}/history")).json() == {"entries": [], "next": None}

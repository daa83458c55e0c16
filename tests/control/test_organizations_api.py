from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.entitlements import grants
from control.entitlements.grants import LIVE_MAX, NewGrant
from control.http.context import Context
from control.journal import Author
from control.moments import moment
from tests.control.plane import Entitled

GRANT = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "an outage"}


async def test_an_organization_is_created_renamed_and_left_alone(admin: AsyncClient) -> None:
    path = f"/v1/organizations/org-{uuid4().hex[:8]}"
    created = await admin.put(path, json={"name": "Acme"})
    again = await admin.put(path, json={"name": "Acme"})
    renamed = await admin.put(path, json={"name": "Acme & Söhne"})
    assert [created.status_code, again.status_code, renamed.status_code] == [201, 200, 200]
    assert (await admin.get(path)).json() == {**created.json(), "name": "Acme & Söhne"}
    entries = (await admin.get(f"{path}/journal")).json()["entries"]
    assert [(e["action"], e["before"], e["after"]) for e in entries] == [
        ("organization.renamed", {"name": "Acme"}, {"name": "Acme & Söhne"}),
        ("organization.created", None, {"name": "Acme"}),
    ]


@pytest.mark.parametrize("org", ["%20", "a%20b", "-a", "a" * 129, "a%00", "a%0A", "ä"])
async def test_an_id_that_could_tear_keys_or_events_apart_is_refused(admin: AsyncClient, org: str) -> None:
    assert (await admin.put(f"/v1/organizations/{org}", json={"name": "x"})).status_code == 422


@pytest.mark.parametrize("name", ["", "x" * 201, "a\x00b", "a\nb", 5, None])
async def test_a_name_is_a_line_of_text(admin: AsyncClient, name: object) -> None:
    assert (await admin.put(f"/v1/organizations/org-{uuid4().hex[:8]}", json={"name": name})).status_code == 422


async def test_every_organization_is_on_one_page(admin: AsyncClient) -> None:
    made = {f"org-{uuid4().hex[:8]}" for _ in range(7)}
    for org in made:
        await admin.put(f"/v1/organizations/{org}", json={"name": org})
    seen: list[str] = []
    after: str | None = None
    while True:
        query = {"limit": 3} | ({"after": after} if after else {})
        page = (await admin.get("/v1/organizations", params=query)).json()
        seen += [o["id"] for o in page["organizations"]]
        after = page["next"]
        if after is None:
            break
    assert seen == sorted(set(seen))
    assert made <= set(seen)


async def test_the_journal_names_actor_correlation_id_before_and_after(admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("tiny")
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "growth"}, headers={"x-request-id": "ticket-42"})
    [newest, *older] = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert (newest["actor"], newest["correlation_id"], newest["action"]) == ("admin", "ticket-42", "entitlement.set")
    assert (newest["before"]["plan"], newest["after"]["plan"]) == ("tiny", "growth")
    page = (await admin.get(f"/v1/organizations/{org}/journal", params={"limit": 1})).json()
    following = (await admin.get(f"/v1/organizations/{org}/journal", params={"before": page["next"]})).json()
    assert [*page["entries"], *following["entries"]] == [newest, *older]


async def test_a_grant_with_the_same_key_is_made_once(admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("tiny")
    path, headers = f"/v1/organizations/{org}/grants", {"idempotency-key": "k1"}
    first = await admin.post(path, json=GRANT, headers=headers)
    again = await admin.post(path, json=GRANT, headers=headers)
    other = await admin.post(path, json={**GRANT, "units": 6}, headers=headers)
    assert [first.status_code, again.status_code, other.status_code] == [201, 200, 409]
    assert first.json() == again.json()
    without = await admin.post(path, json=GRANT)
    assert without.json()["id"] != first.json()["id"]
    assert len((await admin.get(path)).json()["grants"]) == 2


async def test_a_grant_shows_what_is_left_until_it_is_revoked(admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("tiny")
    path = f"/v1/organizations/{org}/grants"
    grant = (await admin.post(path, json=GRANT)).json()
    assert (grant["state"], grant["remaining"]) == ("live", 5)
    for _ in range(2):
        assert (await admin.delete(f"{path}/{grant['id']}")).status_code == 204
    [revoked] = (await admin.get(path)).json()["grants"]
    assert (revoked["state"], revoked["remaining"]) == ("revoked", 0)
    assert (await admin.delete(f"{path}/{uuid4()}")).status_code == 404
    actions = [e["action"] for e in (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]]
    assert actions.count("grant.revoked") == actions.count("grant.created") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"units": 0},
        {"units": "5"},
        {"meter": "Bad"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2099-01-01"},
        {"expires_at": 4_070_908_800},
        {"reason": ""},
        {"extra": 1},
    ],
)
async def test_a_grant_that_makes_no_sense_is_refused(
    admin: AsyncClient, entitled: Entitled, wrong: dict[str, object]
) -> None:
    org = await entitled("tiny")
    assert (await admin.post(f"/v1/organizations/{org}/grants", json={**GRANT, **wrong})).status_code == 422


async def test_grants_are_bounded(context: Context, admin: AsyncClient, entitled: Entitled) -> None:
    org = await entitled("tiny")
    new = NewGrant("api_calls", 5, moment(context.clock() + 86_400), "test")
    for _ in range(LIVE_MAX - 1):
        await grants.create(context.db, org, new, None, context.clock(), Author("tests", "tests"))
    statuses = [(await admin.post(f"/v1/organizations/{org}/grants", json=GRANT)).status_code for _ in range(2)]
    assert statuses == [201, 409]


async def test_a_grant_waits_for_the_entitlement_that_it_adds_to(admin: AsyncClient, catalogue: None) -> None:
    org = f"org-{uuid4().hex[:8]}"
    await admin.put(f"/v1/organizations/{org}", json={"name": org})
    assert (await admin.post(f"/v1/organizations/{org}/grants", json=GRANT)).status_code == 201
    entitlement = (await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny"})).json()
    assert entitlement["meters"][0]["limit"] == 105


async def test_the_catalogue_is_shown_with_prices(admin: AsyncClient, catalogue: None) -> None:
    plans = {p["code"]: p for p in (await admin.get("/v1/plans")).json()["plans"]}
    assert plans["growth"]["price_minor"] == {"month": 39_900, "year": 399_000}
    assert plans["growth"]["meters"]["api_calls"]["overage"] == {"amount_minor": 300, "units": 1000}
    assert plans["tiny"]["demo"]

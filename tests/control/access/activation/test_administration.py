"""Who makes codes, and sees, names and ends sites."""

import time
from datetime import timedelta

import jwt
import pytest
from httpx import AsyncClient

from control.http.context import Context
from control.moments import moment
from devstack import token_mint
from tests.control.access.activation.site import Sites, again, code_of, listed
from tests.control.access.persons import token_of_person
from tests.control.plane import JWT_SECRET, Entitled, MovedClock, TokenOf


async def test_a_code_is_shown_once_and_listed_by_its_first_characters(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    path = f"/v1/organizations/{org}/activation-codes"
    made = (await admin.post(path, json={"sites": 2, "note": "for the shop", "valid_seconds": 3600})).json()
    assert made["code"].startswith(f"{made['handle']}-")
    await sites().activate(made["code"])
    page = (await admin.get(path)).json()
    assert made["code"] not in str(page)
    [code] = page["activation_codes"]
    assert (code["sites"], code["sites_taken"], code["state"], code["note"]) == (2, 1, "valid", "for the shop")
    assert code["expires_at"] == (moment(clock.now) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert (await admin.get("/v1/activation-codes", params={"limit": 1})).json()["activation_codes"] == [code]


async def test_a_revoked_code_activates_nothing_and_its_sites_go_on(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org, other = await entitled(), await entitled()
    path = f"/v1/organizations/{org}/activation-codes"
    made = (await admin.post(path, json={"sites": 2})).json()
    site = sites()
    await site.activate(made["code"])
    assert (await admin.delete(f"/v1/organizations/{other}/activation-codes/{made['id']}")).status_code == 404
    for _ in range(2):
        assert (await admin.delete(f"{path}/{made['id']}")).status_code == 204
    assert (await sites().ask_activation(made["code"])).status_code == 403
    await site.refresh()


@pytest.mark.parametrize(
    "content",
    [
        {"sites": 0},
        {"sites": "2"},
        {"valid_seconds": 2_592_001},
        {"access_seconds": 0},
        {"uncounted_domains": ["*"]},
        {"uncounted_domains": ["http://x.example"]},
        {"scopes": ["two words"]},
        {"product": "two words"},
        {"plan": "starter"},
    ],
)
async def test_a_code_of_a_wrong_form_is_refused(
    admin: AsyncClient, entitled: Entitled, content: dict[str, object]
) -> None:
    answer = await admin.post(f"/v1/organizations/{await entitled()}/activation-codes", json=content)
    assert answer.status_code == 422, answer.text


async def test_a_code_for_a_plan_that_nobody_sells_is_refused(admin: AsyncClient, catalogue: None) -> None:
    answer = await admin.post("/v1/activation-codes", json={"plan": "no-such-plan"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.plan")


async def test_a_plan_code_makes_no_organization_before_it_is_used_and_no_second_plan_after(
    admin: AsyncClient, catalogue: None, sites: Sites
) -> None:
    made = (await admin.post("/v1/activation-codes", json={"plan": "starter", "sites": 2})).json()
    path = f"/v1/entitlements/{made['organization']}"
    assert (await admin.get(path)).status_code == 404
    await sites().activate(made["code"])
    assert (await admin.get(path)).json()["plan"] == "starter"
    assert (await admin.delete(path)).status_code in (200, 204)
    await sites().activate(made["code"])
    assert (await admin.get(path)).json()["plan"] is None  # an admin has ended it: the code does not give it again


async def test_a_site_is_named_released_and_revoked_in_its_own_organization_only(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    org, other = await entitled(), await entitled()
    code, site = await code_of(admin, org), sites()
    await site.activate(code)
    for method, path in (("PUT", ""), ("POST", "/release"), ("POST", "/revoke")):
        for wrong in (f"{other}/sites/{site.id}", f"{org}/sites/site_unknown"):
            answer = await admin.request(method, f"/v1/organizations/{wrong}{path}", json={"name": "x"})
            assert answer.status_code == 404, answer.text
    named = await admin.put(f"/v1/organizations/{org}/sites/{site.id}", json={"name": "The shop"})
    assert named.json()["name"] == "The shop"
    released = await admin.post(f"/v1/organizations/{org}/sites/{site.id}/release")
    assert (released.json()["state"], released.json()["ended_by"]) == ("released", "release")
    assert again(await site.ask_refresh()) == "released"
    await sites().activate(code)
    assert len(await listed(admin, org)) == 1


async def test_an_organizations_people_make_codes_for_as_many_sites_as_the_settings_allow(
    admin: AsyncClient, nobody: AsyncClient, context: Context, entitled: Entitled, sites: Sites, token_of: TokenOf
) -> None:
    org = await entitled()
    path = f"/v1/organizations/{org}/activation-codes"
    plain = {"authorization": f"Bearer {token_of(org)}"}
    assert (await nobody.post(path, headers=plain, json={})).status_code == 403
    made = await admin.post("/v1/service-tokens", json={"name": "their-admin", "org": org, "role": "admin"})
    assert made.status_code == 201, made.text
    own = {"authorization": f"Bearer {made.json()['token']}"}
    most = context.activation.settings.self_service_sites_max
    first = await nobody.post(path, headers=own, json={"sites": most - 1})
    assert first.status_code == 201, first.text
    assert (await nobody.post(path, headers=own, json={"sites": 2})).status_code == 409
    await sites().activate(first.json()["code"])
    assert (await nobody.post(path, headers=own, json={"sites": 2})).status_code == 409
    assert (await nobody.post(path, headers=own, json={"sites": 1})).status_code == 201
    assert (await nobody.get(f"/v1/organizations/{org}/sites", headers=own)).status_code == 200
    assert (await nobody.post("/v1/activation-codes", headers=own, json={"plan": "starter"})).status_code == 403


async def test_an_organizations_people_give_their_codes_no_scope_that_they_lack_themselves(
    nobody: AsyncClient, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled()
    path, own = f"/v1/organizations/{org}/activation-codes", token_of_person(org, "u1", "admin", scope="reports")
    assert (await nobody.post(path, headers=own, json={"scopes": ["reports"]})).status_code == 201
    assert (await nobody.post(path, headers=own, json={"scopes": ["reports", "export"]})).status_code == 403
    assert (await admin.post(path, json={"scopes": ["export"]})).status_code == 201


async def test_a_sites_own_token_manages_no_sites_and_makes_no_codes(nobody: AsyncClient, entitled: Entitled) -> None:
    org = await entitled()
    claims = {"iss": token_mint.ISSUER, "aud": token_mint.AUDIENCE, "org_id": org, "exp": time.time() + 600}
    token = jwt.encode(claims | {"site": "site_1", "roles": ["site", "admin"]}, JWT_SECRET, "HS256")
    own = {"authorization": f"Bearer {token}"}
    assert (await nobody.get(f"/v1/entitlements/{org}", headers=own)).status_code == 200
    for path in ("sites", "activation-codes"):
        assert (await nobody.get(f"/v1/organizations/{org}/{path}", headers=own)).status_code == 403

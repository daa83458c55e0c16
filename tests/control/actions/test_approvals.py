"""What one admin asks for, and another one approves."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from control.access.lifetimes import Seen
from control.access.permissions import AdminRole
from control.access.signin.same_origin import token_of
from control.access.signin.sessions import SignedIn
from control.app import build
from control.http.context import Context
from control.settings.control_plane import Settings
from tests.control.actions.doing import Admin
from tests.control.plane import Entitled, MovedClock

GRANT = {"meter": "api_calls", "units": 500, "expires_at": (datetime.now(UTC) + timedelta(days=20)).isoformat()}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    approvals = {"actions": ["grant", "shadow", "suspend"]}
    return Settings.model_validate({**settings.model_dump(), "approvals": approvals})


@dataclass
class People:
    """Persons who have signed in, and machines."""

    context: Context
    admin: AsyncClient

    async def _with(self, headers: Mapping[str, str]) -> Admin:
        transport = ASGITransport(build(self.context), raise_app_exceptions=False)
        return Admin(AsyncClient(transport=transport, base_url="http://control", headers=headers))

    async def _session(self, signed_in: SignedIn) -> Admin:
        secret = await self.context.signin.sessions.begin(signed_in, Seen("127.0.0.1", "tests"), None, "tests")
        headers = {
            "cookie": f"__Host-quotagate={secret}",
            "x-csrf-token": token_of(secret),
            "sec-fetch-site": "same-origin",
        }
        return await self._with(headers)

    async def person(self, email: str, role: AdminRole = AdminRole.ADMIN) -> Admin:
        return await self._session(SignedIn(f"sso:{email}", "sso", email, None, frozenset({role})))

    async def by_link_of(self, maker: Admin) -> Admin:
        made = await maker.client.post("/v1/console-links", json={"role": "admin"})
        assert made.status_code == 201, made.text
        signed_in = await self.context.signin.links.use(made.json()["url"].partition("code=")[2])
        assert signed_in is not None
        return await self._session(signed_in)

    async def token_of(self, maker: Admin, name: str) -> Admin:
        made = await maker.client.post("/v1/service-tokens", json={"name": name, "role": "admin"})
        assert made.status_code == 201, made.text
        return await self._with({"authorization": f"Bearer {made.json()['token']}"})


@pytest.fixture
def people(context: Context, admin: AsyncClient) -> People:
    return People(context, admin)


async def ask(admin: Admin, org: str, name: str, **fields: Any) -> dict[str, Any]:
    effect = await admin.preview(org, name, **fields)
    assert effect["second_person"]
    answer = await admin.confirm(org, name, effect["state"], **fields)
    assert answer.status_code == 202, answer.text
    asked: dict[str, Any] = answer.json()
    assert asked["state"] == "waiting"
    return asked


async def approve(admin: Admin, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    shown = await admin.client.get(f"/v1/approvals/{asked['id']}")
    assert shown.status_code == 200, shown.text
    effect = shown.json()["effect"]
    body = {"state": effect["state"] if effect else "0" * 32 + "." + "0" * 16 + ".-." + "0" * 16}
    answer = await admin.client.post(f"/v1/approvals/{asked['id']}/approve", json=body)
    return answer.status_code, answer.json()


async def units_granted(admin: Admin, org: str) -> int:
    grants = (await admin.client.get(f"/v1/organizations/{org}/grants")).json()["grants"]
    return sum(each["units"] for each in grants if each["state"] == "live")


async def test_nothing_is_done_until_another_person_approves(people: People, entitled: Entitled) -> None:
    org, ada, bob = await entitled("starter"), await people.person("ada@example.com"), await people.person("bob@x.org")
    asked = await ask(ada, org, "grant", **GRANT)
    assert await units_granted(ada, org) == 0
    waiting = (await bob.client.get("/v1/approvals")).json()["approvals"]
    assert asked["id"] in [each["id"] for each in waiting]
    status, done = await approve(bob, asked)
    assert (status, done["state"], done["asked_by"], done["decided_by"]) == (
        200,
        "done",
        "person:ada@example.com",
        "person:bob@x.org",
    )
    assert await units_granted(ada, org) == 500
    assert (await approve(bob, asked))[0] == 409, "once"
    assert await units_granted(ada, org) == 500


async def test_nobody_approves_their_own_request_by_whatever_they_have_made(people: People, entitled: Entitled) -> None:
    org, ada = await entitled("starter"), await people.person("ada@example.com")
    asked = await ask(ada, org, "grant", **GRANT)
    token = await people.token_of(ada, f"of-ada-{org}")
    for own in (
        ada,
        await people.person("ada@example.com"),
        await people.by_link_of(ada),
        token,
        await people.token_of(token, f"of-the-token-{org}"),
        await people.by_link_of(token),
    ):
        status, problem = await approve(own, asked)
        assert (status, problem["reason"]) == (403, "same_person"), problem
    assert await units_granted(ada, org) == 0
    assert (await approve(Admin(people.admin), asked))[0] == 200


async def test_a_machine_asks_and_its_maker_does_not_approve(people: People, entitled: Entitled) -> None:
    org, ada = await entitled("starter"), await people.person("ada@example.com")
    asked = await ask(await people.token_of(ada, f"machine-{org}"), org, "grant", **GRANT)
    assert (await approve(ada, asked))[0] == 403
    assert (await approve(await people.person("bob@x.org"), asked))[0] == 200


async def test_shadow_mode_begins_when_a_second_person_has_approved_it(people: People, entitled: Entitled) -> None:
    org, ada, bob = await entitled("starter"), await people.person("ada@example.com"), await people.person("bob@x.org")
    asked = await ask(ada, org, "shadow", mode="on")
    assert not (await ada.client.get(f"/v1/organizations/{org}")).json()["shadow"]
    assert (await approve(bob, asked))[0] == 200
    assert (await ada.client.get(f"/v1/organizations/{org}")).json()["shadow"]


async def test_who_lacks_a_permission_approves_nothing(people: People, entitled: Entitled) -> None:
    org, ada = await entitled("starter"), await people.person("ada@example.com")
    asked = await ask(ada, org, "suspend")
    support = await people.person("sue@example.com", AdminRole.SUPPORT)
    assert (await approve(support, asked))[0] == 403
    asked_grant = await ask(support, org, "grant", **GRANT)
    billing = await people.person("bill@example.com", AdminRole.BILLING)
    assert (await approve(billing, asked_grant))[0] == 200
    assert (await approve(billing, asked))[0] == 200


async def test_a_request_is_declined_by_another_or_withdrawn_by_its_own_person(
    people: People, entitled: Entitled
) -> None:
    org, ada, bob = await entitled("starter"), await people.person("ada@example.com"), await people.person("bob@x.org")
    for admin, state in ((ada, "withdrawn"), (bob, "declined")):
        asked = await ask(ada, org, "grant", **GRANT)
        path = f"/v1/approvals/{asked['id']}/decline"
        answer = await admin.client.post(path, json={"reason": "not needed"})
        assert (answer.status_code, answer.json()["state"], answer.json()["note"]) == (200, state, "not needed")
        assert (await admin.client.post(path, json={"reason": "again"})).status_code == 409
        body = {"state": "0" * 32 + "." + "0" * 16 + ".-." + "0" * 16}
        late = await bob.client.post(f"/v1/approvals/{asked['id']}/approve", json=body)
        assert late.status_code == 409
    assert await units_granted(ada, org) == 0


async def test_what_has_changed_since_the_second_person_looked_is_not_approved(
    people: People, entitled: Entitled
) -> None:
    org, ada, bob = await entitled("starter"), await people.person("ada@example.com"), await people.person("bob@x.org")
    asked = await ask(ada, org, "grant", **GRANT)
    shown = (await bob.client.get(f"/v1/approvals/{asked['id']}")).json()
    await ada.do(org, "override", meter="api_calls", allowance=7)
    path = f"/v1/approvals/{asked['id']}/approve"
    answer = await bob.client.post(path, json={"state": shown["effect"]["state"]})
    assert answer.status_code == 409, answer.text
    assert answer.json()["changed"][0]["actor"] == "person:ada@example.com"
    assert (await approve(bob, asked))[0] == 200, "having seen the change"


async def test_a_request_that_nobody_decides_is_over_after_a_week(
    people: People, entitled: Entitled, clock: MovedClock
) -> None:
    org, ada, bob = await entitled("starter"), await people.person("ada@example.com"), Admin(people.admin)
    asked = await ask(ada, org, "grant", **GRANT)
    clock.move(days=8)
    assert (await approve(bob, asked))[0] == 409


async def test_no_other_endpoint_does_alone_what_needs_two(people: People, entitled: Entitled) -> None:
    org, ada = await entitled("starter", status="active"), await people.person("ada@example.com")
    tries = [
        ("POST", f"/v1/organizations/{org}/grants", {**GRANT, "reason": "x"}),
        ("POST", f"/v1/entitlements/{org}/suspend", {"reason": "x"}),
        ("PATCH", f"/v1/entitlements/{org}", {"status": "suspended"}),
        ("PUT", f"/v1/entitlements/{org}", {"plan": "starter", "status": "suspended"}),
    ]
    for method, path, body in tries:
        answer = await ada.client.request(method, path, json=body)
        assert (answer.status_code, answer.json().get("reason")) == (403, "second_person"), (path, answer.text)
    assert (await ada.client.post(f"/v1/entitlements/{org}/resume")).status_code == 200, "this needs one person"
    assert await units_granted(ada, org) == 0

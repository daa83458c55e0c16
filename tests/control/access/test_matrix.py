"""Each endpoint, by each kind of caller, of their own organization, of another one, and of none: nothing succeeds that
the roles do not say, and no answer tells whether another tenant's object exists."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from httpx import ASGITransport, AsyncClient

from control.access.people.service_tokens import generate
from control.app import build, opened
from control.settings.control_plane import Settings
from identity import api_key
from tests.control.access.matrix import CALLERS, SAFE, SOME_ID, UNKNOWN, Operation, Tenant, World, operations_of, told
from tests.control.plane import ADMIN_TOKEN, Entitled, MovedClock, TokenOf


@pytest.fixture
async def world(settings: Settings, clock: MovedClock, entitled: Entitled, admin: AsyncClient) -> AsyncIterator[World]:
    behind = settings.model_copy(
        update={"forwarded": settings.forwarded.model_copy(update={"trusted": ("127.0.0.1",)})}
    )
    async with opened(behind, clock) as context:
        transport = ASGITransport(build(context), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://control") as client:
            it = World(client, admin)
            await it.furnish(entitled)
            yield it


async def listed(world: World) -> Sequence[Operation]:
    operations = operations_of((await world.client.get("/openapi.json")).json())
    assert len(operations) >= 60
    return operations


@pytest.mark.parametrize("name", CALLERS)
async def test_a_caller_may_what_the_roles_say_and_nothing_else(world: World, name: str) -> None:
    caller = await world.caller(name)
    before = await world.snapshot(world.foreign)
    refused = allowed = 0
    for operation in await listed(world):
        for org in {world.own.org, world.foreign.org, world.missing} if "{org}" in operation.path else {world.own.org}:
            if caller.may(operation, org):
                # What would change something is asked of nobody, and without a body: it must be refused for that.
                where = org if operation.method in SAFE or caller.org is not None else world.missing
                answer = await world.ask(operation, operation.url(where), caller.headers)
                assert answer.status_code not in (401, 403, *range(500, 600)), (operation, answer.text)
                allowed += 1
                continue
            for body in (None, operation.example) if operation.example is not None else (None,):
                answer = await world.ask(operation, operation.url(org), caller.headers, body)
                assert answer.status_code == 403, (operation, org, answer.text)
                assert answer.json()["type"] == "urn:quotagate:problem:forbidden"
                refused += 1
    assert allowed > 0
    assert refused > 0 or name == "vendor admin"
    assert await world.snapshot(world.foreign) == before


@pytest.mark.parametrize("name", ["person owner", "machine owner", "member admin", "token", "key"])
async def test_no_answer_tells_whether_another_tenant_or_its_objects_exist(world: World, name: str) -> None:
    caller, foreign = await world.caller(name), world.foreign
    before = await world.snapshot(foreign)
    compared = 0
    for operation in await listed(world):
        bodies = (None, operation.example) if operation.example is not None else (None,)
        for body in bodies:
            if "{org}" in operation.path:
                there = await world.ask(operation, operation.url(foreign.org, **foreign.ids), caller.headers, body)
                nowhere = await world.ask(operation, operation.url(world.missing), caller.headers, body)
                assert told(there, *_ids(foreign)) == told(nowhere, *_ids(foreign), world.missing), operation
                compared += 1
            if operation.path == "/v1/usage":
                answers = [
                    told(await world.ask(operation, operation.path, caller.headers, body, org=org), org)
                    for org in (foreign.org, world.missing)
                ]
                assert answers[0] == answers[1], operation
                assert answers[0][0] == 403
            for parameter, id_ in foreign.ids.items():
                if f"{{{parameter}}}" in operation.path and "{org}" in operation.path and body is None:
                    # The object of another tenant, asked for as one's own.
                    url, unknown = operation.url(world.own.org, **{parameter: id_}), UNKNOWN.get(parameter, SOME_ID)
                    there = await world.ask(operation, url, caller.headers)
                    nowhere = await world.ask(operation, operation.url(world.own.org), caller.headers)
                    assert told(there, id_, unknown) == told(nowhere, id_, unknown), operation
                    compared += 1
    assert compared >= 50
    assert await world.snapshot(foreign) == before


def _ids(tenant: Tenant) -> list[str]:
    return [tenant.org, *tenant.ids.values()]


async def test_who_is_not_known_is_refused_alike_wherever_he_asks(
    world: World, token_of: TokenOf, clock: MovedClock
) -> None:
    revoked = await world.admin.post("/v1/service-tokens", json={"name": f"gone-{generate()[4:12]}", "role": "admin"})
    await world.admin.delete(f"/v1/service-tokens/{revoked.json()['id']}")
    path = f"/v1/organizations/{world.own.org}/keys/{world.own.ids['key']}"
    assert (await world.admin.delete(path)).status_code in (200, 204)
    tokens = {
        "none": None,
        "no token": "a.b.c",
        "expired": token_of(world.own.org, now=clock.now - 7200, ttl=timedelta(hours=1)),
        "unknown service token": generate(),
        "revoked service token": revoked.json()["token"],
        "unknown key": api_key.generate("qg", "live"),
        "revoked key": world.own.api_key,
        "nearly the admin's": ADMIN_TOKEN[:-1],
    }
    for name, token in tokens.items():
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answers = set()
        for operation in await listed(world):
            for org in (world.own.org, world.missing):
                answer = await world.ask(operation, operation.url(org), headers, operation.example)
                assert answer.status_code == 401, (name, operation, answer.text)
                problem = answer.json()
                answers.add((problem["type"], problem["detail"], answer.headers["www-authenticate"]))
        assert len(answers) == 1, (name, answers)


async def test_nothing_of_a_deleted_organization_opens_anything(world: World) -> None:
    org = world.own.org
    callers = [await world.caller(name) for name in ("machine owner", "person owner", "token", "site", "key")]
    path = f"/v1/entitlements/{org}"
    for caller in callers:
        assert (await world.client.get(path, headers=caller.headers)).status_code == 200
    assert (await world.admin.delete(f"/v1/organizations/{org}")).status_code == 204
    for caller in callers:
        for url in (path, "/v1/plans", f"/v1/organizations/{org}"):
            assert (await world.client.get(url, headers=caller.headers)).status_code == 401, url
    assert (await world.admin.post(f"/v1/organizations/{org}/restore")).status_code == 200
    for caller in callers:
        assert (await world.client.get(path, headers=caller.headers)).status_code == 200

"""What names nothing is refused by name: a cursor, a filter, an organization. An empty page would look like an end."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.journal import ACTIONS
from tests.control.access.matrix import UNKNOWN
from tests.control.plane import Entitled, TokenOf

Parameter = tuple[str, str, str]

SOME_ID = "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"
FREE = ("actor", "environment", "person", "q", "user")
"""Filters by what may exist without being known here: whose key, whose session, which words."""
SUPPOSED = ("org", "route", "host", "scope", "role", "upgrade")
TOLD_BY_GATEWAYS = {("/v1/decisions", name) for name in ("org", "route", "verdict")}
TOLD_BY_GATEWAYS |= {("/v1/explanations", name) for name in SUPPOSED}
"""Of requests, refused or supposed: also of organizations that nobody knows, on routes and for reasons that gateways
have, with what their tokens say."""
SEVERAL = ("/v1/configuration/organizations", "org")
"""It answers with those that are there: configuration as code asks for those that are still to be made, too."""
CURSORS = ("before", "after")


async def operations(client: AsyncClient) -> list[tuple[str, str, dict[str, Any]]]:
    document = (await client.get("/openapi.json")).json()
    paths: dict[str, dict[str, Any]] = document["paths"]
    return [
        (method.upper(), path, operation) for path, methods in paths.items() for method, operation in methods.items()
    ]


async def parameters(client: AsyncClient, org: str) -> list[Parameter]:
    """Every query parameter of every list, with what else its path needs."""

    def each() -> Iterator[Parameter]:
        for method, path, operation in listed:
            names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
            if method == "GET" and not path.startswith("/-/"):
                yield from ((path.replace("{org}", org), name, org if path == "/v1/usage" else "") for name in names)

    listed = await operations(client)
    return list(each())


async def test_a_value_that_no_parameter_can_have_is_refused_with_its_name(
    admin: AsyncClient, entitled: Entitled
) -> None:
    listed = await parameters(admin, await entitled())
    assert len(listed) >= 25
    for path, name, org in listed:
        if name in FREE or (path, name) in {*TOLD_BY_GATEWAYS, SEVERAL}:
            continue
        query = {"org": org} if org else {}
        answer = await admin.get(path, params={**query, name: "zz"})
        if name == "org":
            assert answer.status_code == 404, (path, answer.text)
            assert answer.json()["detail"] == "No organization has the id zz.", path
        else:
            assert answer.status_code == 422, (path, name, answer.text)
            fields = [error["field"].removesuffix(".0") for error in answer.json()["errors"]]  # of a list, the first
            assert f"query.{name}" in fields, (path, name)  # beside what else the endpoint asks for


async def test_a_cursor_that_is_no_entry_of_the_list_is_refused(admin: AsyncClient, entitled: Entitled) -> None:
    cursors = [(path, name) for path, name, _ in await parameters(admin, await entitled()) if name in CURSORS]
    assert len(cursors) >= 9
    for path, name in cursors:
        for cursor in (SOME_ID, f"open:{SOME_ID}", f"closed:{SOME_ID}", "in_1", "evt_1", "no-such-org", ""):
            answer = await admin.get(path, params={name: cursor})
            assert answer.status_code == 422, (path, name, cursor, answer.text)
            assert [error["field"] for error in answer.json()["errors"]] == [f"query.{name}"], (path, cursor)


async def test_a_cursor_of_another_organizations_list_is_refused(admin: AsyncClient, entitled: Entitled) -> None:
    org, other = await entitled(), await entitled()
    for each in (org, other):
        grant = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "an outage"}
        for _ in range(2):
            assert (await admin.post(f"/v1/organizations/{each}/grants", json=grant)).status_code == 201
    for kind in ("grants", "journal"):
        cursor = (await admin.get(f"/v1/organizations/{org}/{kind}", params={"limit": 1})).json()["next"]
        for each, status in ((org, 200), (other, 422)):
            answer = await admin.get(f"/v1/organizations/{each}/{kind}", params={"before": cursor})
            assert answer.status_code == status, (kind, answer.text)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/journal?action=entitlement.sett", "did you mean entitlement.set?"),
        ("/v1/usage?org={org}&meter=api_cals", "did you mean api_calls?"),
    ],
)
async def test_a_word_that_is_nearly_one_is_told_which(
    admin: AsyncClient, entitled: Entitled, path: str, hint: str
) -> None:
    answer = await admin.get(path.replace("{org}", await entitled()))
    assert answer.status_code == 422
    assert hint in answer.json()["detail"]


async def test_every_action_that_is_known_can_be_asked_for(admin: AsyncClient) -> None:
    for action in ACTIONS:
        assert (await admin.get("/v1/journal", params={"action": action})).status_code == 200, action


async def test_an_organization_that_nobody_knows_is_404_wherever_a_path_names_it(
    admin: AsyncClient, catalogue: None
) -> None:
    org = f"org-{uuid4().hex[:12]}"
    asked = 0
    for method, path, _ in await operations(admin):
        if "{org}" not in path or (method, path) == ("PUT", "/v1/organizations/{org}"):
            continue
        path = re.sub(r"{(\w+)}", lambda name: org if name[1] == "org" else UNKNOWN.get(name[1], SOME_ID), path)
        for body in BODIES:
            query = {"subject": "someone"} if path.endswith("/revocations/user") else {}
            answer = await admin.request(method, path, json=body, params=query)
            # A body that is none is told first where it is read before the organization is looked up.
            if answer.status_code != 422:
                assert answer.status_code == 404, (method, path, body, answer.text)
                assert answer.json()["type"] == "urn:quotagate:problem:organization-unknown", (method, path)
                break
        else:
            pytest.fail(f"no body was taken by {method} {path}")
        asked += 1
    assert asked >= 20


BODIES: tuple[Any, ...] = (
    None,
    {"plan": "starter"},
    {"role": "member"},
    {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "an outage"},
)


async def test_usage_of_an_organization_that_nobody_knows_is_404_both_ways(
    admin: AsyncClient, nobody: AsyncClient, token_of: TokenOf, catalogue: None
) -> None:
    org = f"org-{uuid4().hex[:12]}"
    own = {"authorization": f"Bearer {token_of(org)}"}
    record = {"meter": "api_calls", "units": 1, "idempotency_key": "a"}
    for content in (record, [record, {**record, "idempotency_key": "b"}]):
        for answer in (
            await admin.post("/v1/usage", params={"org": org}, json=content),
            await nobody.post("/v1/usage", headers=own, json=content),
        ):
            assert answer.status_code == 404, answer.text
            assert answer.json()["type"] == "urn:quotagate:problem:organization-unknown"
    assert (await admin.get("/v1/usage", params={"org": org})).status_code == 404


async def test_what_a_text_must_be_is_said_in_words(admin: AsyncClient) -> None:
    for method, path, said in (
        ("DELETE", "/v1/service-tokens/bootstrap", "must be an id as lists show it, which is a UUID; a name is none"),
        ("GET", "/v1/incidents?org=%20", "must be an organization's id"),
        ("GET", "/v1/analytics/movements?currency=USD", "must be a currency in lower case, such as usd"),
    ):
        answer = await admin.request(method, path)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
        assert "^" not in answer.json()["detail"]

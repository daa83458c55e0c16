"""A route that requires scopes and roles: 403 before anything is charged, whatever is remembered of who asks."""

from typing import Any

import pytest

from tests.gateway.access.tokens import bearer
from tests.gateway.rig import Organization, StartGateway, Upstream, request
from tests.gateway.rig.keys import Keyring

ROUTES: list[dict[str, Any]] = [
    {"path": "/", "upstream": "api"},
    {"path": "/admin", "upstream": "api", "name": "admin", "require": {"scopes": ["a", "b"], "roles": ["owner"]}},
]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, "insufficient_scope"),
        ({"scope": "a", "roles": ["owner"]}, "insufficient_scope"),
        ({"scope": "a b", "roles": ["member"]}, "insufficient_role"),
        ({"scope": "b a c", "roles": ["member", "owner"]}, None),
    ],
)
async def test_a_token_without_scope_or_role_is_refused_on_that_route_alone(
    start: StartGateway,
    acme: Organization,
    upstream: Upstream,
    claims: dict[str, Any],
    expected: str | None,
) -> None:
    gateway = await start(routes=ROUTES, auth={"roles_claim": "roles"})
    client = await gateway.connect()
    auth = bearer(**claims)
    for _ in range(2):
        assert (await client.ask(request(auth))).status == 200
        answer = await client.ask(request(auth, path="/admin"))
        assert answer.status == (403 if expected else 200)
        if expected:
            assert answer.problem["reason"] == expected
        if expected == "insufficient_scope":
            assert 'scope="a b"' in (answer["www-authenticate"] or "")
    assert await acme.used() == len(upstream.requests) == (2 if expected else 4)


async def test_no_key_passes_for_a_role_unless_the_route_lets_keys_in(start: StartGateway, acme: Organization) -> None:
    gateway = await start(routes=ROUTES)
    named = await Keyring().make(acme, scopes=("route:admin",))
    answer = await gateway.ask(request(named.auth, path="/admin"))
    assert (answer.status, answer.problem["reason"]) == (403, "key_scope")


async def test_a_key_is_let_in_where_its_own_scopes_name_the_route(start: StartGateway, acme: Organization) -> None:
    gateway = await start(routes=[ROUTES[0], {**ROUTES[1], "require": {"roles": ["owner"], "keys": True}}])
    keyring = Keyring()
    everything, named = await keyring.make(acme), await keyring.make(acme, scopes=("route:admin",))
    for _ in range(2):
        assert (await gateway.ask(request(everything.auth))).status == 200
        assert (await gateway.ask(request(everything.auth, path="/admin"))).status == 403
        assert (await gateway.ask(request(named.auth, path="/admin"))).status == 200
        assert (await gateway.ask(request(named.auth))).status == 403

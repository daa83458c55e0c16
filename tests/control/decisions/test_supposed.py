"""A request that nobody sends is explained from its route and its key on, by what gateways tell of their routes."""

import time
from collections.abc import Mapping
from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.decisions.gateway_routes import forget_old
from control.http.context import Context
from quota import keys
from quota.routes import (
    KEPT_SECONDS,
    Price,
    Route,
    Routes,
    TellsCost,
    Tunnel,
    TunnelUnit,
    digest_of,
    encode,
    value_of,
)
from tests.control.plane import Entitled, MovedClock, TokenOf

READ = Route("read", None, ("GET",), "/v1", {"api_calls": Price(1)})
CHAT = Route(
    "chat",
    None,
    ("POST",),
    "/v1/chat",
    {"api_calls": Price(2), "tokens": Price(5, TellsCost.HEADER, "X-Tokens", 2, 50)},
)
ADMIN = Route("admin", None, None, "/v1/admin", {"api_calls": Price(1)}, scopes=("manage",), roles=("owner",))
TRIAL = Route("trial", None, None, "/trial", {"api_calls": Price(1)}, shadow=True)
FREE = Route("free", None, None, "/free", {}, exempt=True)
SOCKET = Route(
    "socket",
    None,
    None,
    "/ws",
    {"api_calls": Price(1)},
    upgrades=("websocket",),
    tunnel=Tunnel(TunnelUnit.MESSAGE, {"tokens": 3}),
)
FILES = Route("files", None, None, "/files", {"api_calls": Price(4)}, encoded_slash=True, merge_slashes=False)
ROUTES = Routes((READ, CHAT, ADMIN, TRIAL, FREE, SOCKET, FILES), ("live",), ("shadowed",))

ROUTES_BY_NAME = {route.name: route for route in ROUTES.routes}


async def tell(redis: Redis, routes: Routes, started: float | None = None, seen: float | None = None) -> str:
    now, text = time.time(), encode(routes)
    value = value_of(text, int(started or now), int(seen or now))
    await redis.hset(keys.ROUTES, digest_of(text), value)
    return digest_of(text)


@pytest.fixture(autouse=True)
async def routes_of_the_test(redis: Redis) -> None:
    await redis.delete(keys.ROUTES)
    await tell(redis, ROUTES)


@pytest.fixture
async def org(entitled: Entitled, context: Context, clock: MovedClock) -> str:
    name = await entitled("tiny", meters={"api_calls": 10, "tokens": 100})
    clock.now = time.time()
    await context.publisher.install(name)
    return name


async def key_of(admin: AsyncClient, context: Context, org: str, **fields: Any) -> str:
    made = await admin.post(f"/v1/organizations/{org}/keys", json={"name": "k", **fields})
    assert made.status_code == 201, made.text
    await context.publisher.install(org)
    return str(made.json()["id"])


async def supposed(admin: AsyncClient, org: str, **asked: Any) -> dict[str, Any]:
    answer = await admin.post("/v1/decisions/explain", json={"org": org, **asked})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def outcomes(decision: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    checks = ("route", "principal", "requirement", "address", "scope", "price")
    return [(r["rule"], r["outcome"], r["reached"]) for r in decision["rules"] if r["rule"] in checks]


async def test_a_request_costs_what_its_route_charges(admin: AsyncClient, org: str) -> None:
    decision = await supposed(admin, org, method="POST", path="/v1/chat/completions")
    assert (decision["outcome"], decision["route"]) == ("admitted", "chat")
    assert decision["charges"] == {"api_calls": 2, "tokens": 5}
    assert decision == (await supposed(admin, org, route="chat", method="POST")) | {"at": decision["at"]}
    assert outcomes(decision) == [
        ("route", "passed", True),
        ("principal", "passed", True),
        ("requirement", "no_limit", True),
        ("price", "passed", True),
    ]
    query = {"org": org, "method": "POST", "path": "/v1/chat/completions"}
    again = (await admin.get("/v1/explanations", params=query)).json()
    assert again | {"at": None} == decision | {"at": None}


async def test_a_path_is_read_as_the_gateway_reads_it(admin: AsyncClient, org: str) -> None:
    for path, route, read_as in (
        ("/v1/%63hat", "chat", "/v1/chat"),
        ("/x/../v1/./chat//y", "chat", "/v1/chat/y"),
        ("/files/a%2fb//c", "files", "/files/a%2Fb//c"),
    ):
        decision = await supposed(admin, org, method="POST", path=path)
        assert (decision["outcome"], decision["route"]) == ("admitted", route)
        assert decision["charges"] == ROUTES_BY_NAME[route].charges
        assert f"The path is read as {read_as}." in decision["rules"][0]["text"]
    for path, verdict, told in (
        ("/v1/a%2Fb", "bad_request", "The path holds an encoded slash, backslash or control."),
        ("/../v1", "bad_request", "The path leaves the root."),
        ("/v1/%zz", "bad_request", "The path holds a `%` that is not followed by two hex digits."),
        ("/v1;x/admin", "no_route", "No route of the gateway holds the path."),
    ):
        decision = await supposed(admin, org, path=path)
        assert (decision["outcome"], decision["verdict"], decision["text"]) == ("refused", verdict, told)


async def test_an_upgrade_costs_its_opening_and_then_what_the_route_charges_in_the_tunnel(
    admin: AsyncClient, org: str
) -> None:
    offered = await supposed(admin, org, path="/ws/room", upgrade="WebSocket")
    assert (offered["outcome"], offered["charges"]) == ("admitted", {"api_calls": 1})
    assert offered["tunnel"] == {"per": "message", "charges": {"tokens": 3}}
    [price] = [rule["text"] for rule in offered["rules"] if rule["rule"] == "price"]
    assert price == "1 api_calls for the opening; afterwards each message of the client costs 3 tokens."
    for asked in (
        {"path": "/ws"},
        {"path": "/ws", "upgrade": "h2c"},
        {"path": "/ws", "upgrade": "websocket", "method": "POST"},
        {"path": "/v1", "upgrade": "websocket"},
    ):
        plain = await supposed(admin, org, **asked)
        assert (plain["outcome"], plain["charges"], plain["tunnel"]) == ("admitted", {"api_calls": 1}, None)
        ignored = f"No upgrade to {asked.get('upgrade')} is offered: it is ignored." in plain["rules"][0]["text"]
        assert ignored == ("upgrade" in asked)


async def test_a_cost_that_the_request_may_not_tell_is_refused_as_the_gateway_does(
    admin: AsyncClient, org: str
) -> None:
    told = await supposed(admin, org, route="chat", charges={"api_calls": 2, "tokens": 50})
    assert told["outcome"] == "admitted"
    refused = await supposed(admin, org, route="chat", charges={"api_calls": 2, "tokens": 51})
    assert (refused["outcome"], refused["verdict"]) == ("refused", "bad_request")
    assert "from 2 to 50 tokens" in refused["text"]


async def test_a_key_is_refused_for_its_scopes_with_what_it_lacks(
    admin: AsyncClient, context: Context, org: str
) -> None:
    key = await key_of(admin, context, org, scopes=["route:read", "method:GET"])
    refused = await supposed(admin, org, key=key, method="POST", path="/v1/chat")
    assert (refused["outcome"], refused["verdict"]) == ("refused", "token_key_scope")
    assert [change["text"] for change in refused["remedy"]] == ["Add to the key's scopes: route:chat method:POST."]
    assert not any(rule["reached"] for rule in refused["rules"] if rule["rule"] in ("price", "published", "meter"))
    assert (await supposed(admin, org, key=key, method="GET", path="/v1/things"))["outcome"] == "admitted"
    unknown = await supposed(admin, org, key=key, charges={"api_calls": 1})
    [scope] = [rule for rule in unknown["rules"] if rule["rule"] == "scope"]
    assert (unknown["outcome"], scope["known"]) == ("admitted", False)


async def test_a_key_is_refused_from_an_address_that_its_networks_do_not_hold(
    admin: AsyncClient, context: Context, org: str
) -> None:
    key = await key_of(admin, context, org, networks=["192.0.2.0/24"])
    elsewhere = await supposed(admin, org, key=key, route="read", address="203.0.113.7")
    assert (elsewhere["outcome"], elsewhere["verdict"]) == ("refused", "token_key_address")
    assert "203.0.113.7" in elsewhere["remedy"][0]["text"]
    assert (await supposed(admin, org, key=key, route="read", address="192.0.2.7"))["outcome"] == "admitted"
    nowhere = await supposed(admin, org, key=key, route="read")
    assert [rule["known"] for rule in nowhere["rules"] if rule["rule"] == "address"] == [False]


async def test_what_stands_against_a_request_before_the_ledger_is_named_beside_what_the_ledger_says(
    admin: AsyncClient, context: Context, org: str
) -> None:
    key = await key_of(admin, context, org, scopes=["route:read"])
    refused = await supposed(admin, org, key=key, route="chat", method="POST", charges={"api_calls": 11, "tokens": 5})
    assert [change["kind"] for change in refused["remedy"]] == ["principal", "give_grant"]
    assert refused["remedy"][1]["by"] == 1


async def test_a_key_of_an_environment_that_the_gateway_does_not_serve_is_refused(
    admin: AsyncClient, context: Context, org: str, redis: Redis
) -> None:
    await redis.delete(keys.ROUTES)
    await tell(redis, Routes((READ,), ("test",)))
    key = await key_of(admin, context, org)
    refused = await supposed(admin, org, key=key, route="read")
    assert refused["verdict"] == "token_key_environment"
    assert "accepts test" in refused["text"]


async def test_a_route_that_asks_for_scopes_and_roles_refuses_who_lacks_them(
    admin: AsyncClient, context: Context, org: str
) -> None:
    lacking = await supposed(admin, org, route="admin")
    assert (lacking["verdict"], lacking["outcome"]) == ("token_insufficient_scope", "refused")
    role = await supposed(admin, org, route="admin", scopes=["manage"], roles=["member"])
    assert role["verdict"] == "token_insufficient_role"
    assert (await supposed(admin, org, route="admin", scopes=["manage"], roles=["owner"]))["outcome"] == "admitted"
    key = await key_of(admin, context, org)
    assert (await supposed(admin, org, route="admin", key=key))["verdict"] == "token_key_scope"


async def test_a_route_decides_whether_the_ledger_is_asked_at_all_and_whether_a_refusal_holds(
    admin: AsyncClient, org: str
) -> None:
    for asked, outcome, verdict in (
        ({"path": "/elsewhere"}, "refused", "no_route"),
        ({"path": "/v1/chat", "method": "DELETE"}, "refused", "method_not_allowed"),
        ({"path": "/free/x"}, "admitted", "admitted"),
        ({"route": "trial", "charges": {"api_calls": 11}}, "would_be_refused", "cost_above_limit"),
        ({"route": "read", "charges": {"api_calls": 11}}, "refused", "cost_above_limit"),
    ):
        decision = await supposed(admin, org, **asked)
        assert (decision["outcome"], decision["verdict"]) == (outcome, verdict), asked


async def test_gateways_that_differ_are_said_to_and_those_that_started_last_are_believed(
    admin: AsyncClient, org: str, redis: Redis
) -> None:
    dearer = Routes((READ._replace(prices={"api_calls": Price(3)}), FREE), ("live",))
    await tell(redis, dearer, started=time.time() - 3600)
    decision = await supposed(admin, org, route="read")
    assert (decision["charges"], decision["doubts"]) == ({"api_calls": 1}, ["routes_differ"])
    assert (await supposed(admin, org, route="free"))["doubts"] == []
    unknown = await admin.post("/v1/decisions/explain", json={"org": org, "route": "nothing"})
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "No gateway has a route named 'nothing'.")
    listed = (await admin.get("/v1/routes")).json()["gateways"]
    assert [len(gateway["routes"]) for gateway in listed] == [7, 2]
    assert listed[0]["routes"][5]["tunnel"] == {"per": "message", "charges": {"tokens": 3}}
    assert listed[0]["routes"][1]["prices"]["tokens"] == {
        "units": 5,
        "told_by": "header",
        "name": "X-Tokens",
        "least": 2,
        "most": 50,
    }


async def test_routes_that_no_gateway_tells_any_more_are_used_with_a_doubt_and_then_forgotten(
    admin: AsyncClient, org: str, redis: Redis
) -> None:
    await redis.delete(keys.ROUTES)
    now = time.time()
    await tell(redis, ROUTES, seen=now - 600)
    await tell(redis, Routes((READ,)), seen=now - 1200)
    decision = await supposed(admin, org, route="chat")
    assert (decision["outcome"], decision["doubts"]) == ("admitted", ["routes_of_before"])
    [only] = (await admin.get("/v1/routes")).json()["gateways"]
    assert only["current"] is False
    await redis.hset(keys.ROUTES, "broken", b"nothing")
    assert (await supposed(admin, org, route="chat"))["outcome"] == "admitted"
    assert await forget_old(redis, now + KEPT_SECONDS - 900) == 2
    assert await forget_old(redis, now + KEPT_SECONDS) == 1
    assert (await admin.get("/v1/routes")).json() == {"gateways": []}
    gone = await admin.post("/v1/decisions/explain", json={"org": org, "route": "chat"})
    assert (gone.status_code, gone.json()["detail"]) == (404, "No gateway has told its routes.")
    assert (await supposed(admin, org, charges={"api_calls": 1}))["outcome"] == "admitted"


IMPOSSIBLE: list[dict[str, Any]] = [
    {},
    {"route": "read", "path": "/v1"},
    {"host": "api.example.com", "charges": {"api_calls": 1}},
    {"path": "v1"},
    {"path": "/v1?x=1"},
    {"path": "/v1 x"},
    {"path": "/é"},
    {"path": "/v1", "upgrade": "web socket"},
    {"path": "/v1", "method": "get"},
    {"path": "/v1", "host": "a b"},
    {"route": "read", "address": "nowhere"},
    {"route": "read", "address": "192.0.2.0/24"},
    {"route": "read", "scopes": [""]},
]


async def test_a_request_that_cannot_be_is_refused_by_name(admin: AsyncClient) -> None:
    for asked in IMPOSSIBLE:
        answer = await admin.post("/v1/decisions/explain", json={"org": "acme", **asked})
        assert answer.status_code == 422, asked
        query = {name.removesuffix("s") if name == "scopes" else name: value for name, value in asked.items()}
        if "charges" not in query:
            answer = await admin.get("/v1/explanations", params={"org": "acme", **query})
            assert answer.status_code == 422, asked


async def test_an_organization_asks_about_itself_and_is_shown_no_list_of_routes(
    nobody: AsyncClient, context: Context, org: str, token_of: TokenOf
) -> None:
    headers = {"authorization": f"Bearer {token_of(org, now=context.clock())}"}
    asked = {"org": org, "route": "read"}
    assert (await nobody.post("/v1/decisions/explain", json=asked, headers=headers)).status_code == 200
    assert (await nobody.get("/v1/routes", headers=headers)).status_code == 403

"""Requests that need no token and cost nothing: exempt routes, preflights, the gateway's own endpoints."""

import json
from typing import Any

import pytest

from tests.gateway.rig import (
    Gateway,
    MakeOrganization,
    Organization,
    StartGateway,
    Upstream,
    get,
    request,
)

PREFLIGHT = b"Origin: https://app.example.com\r\nAccess-Control-Request-Method: %b\r\n"


async def test_a_path_under_no_route_is_unknown_whoever_asks(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/v1", "upstream": "api"}])
    for organization in (None, acme):
        answer = await gateway.get("/v2", organization)
        assert (answer.status, answer.problem["type"]) == (404, "urn:quotagate:problem:no-route")
    assert await acme.used() == 0
    assert not upstream.requests


async def test_another_method_is_refused_with_those_that_are_allowed(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "methods": ["GET", "POST"]}])
    answer = await gateway.ask(request(acme.auth, b"DELETE"))
    assert (answer.status, answer["allow"]) == (405, "GET, HEAD, POST")
    assert await acme.used() == 0
    assert not upstream.requests


async def test_an_exempt_route_needs_no_token_and_charges_nothing(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    routes = [{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}]
    gateway = await start(routes=routes)
    for organization in (None, acme):
        answer = await gateway.get("/free/thing", organization)
        assert (answer.status, answer["ratelimit"]) == (200, None)
    assert len(upstream.requests) == 2
    assert b"x-quota-org" not in b"".join(upstream.requests).lower()
    assert await acme.used() == 0


@pytest.mark.parametrize("methods", [None, ["GET", "PUT"]])
async def test_a_preflight_needs_no_token_and_charges_nothing(
    start: StartGateway, upstream: Upstream, methods: Any
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "methods": methods}])
    upstream.answer = b"HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: *\r\n\r\n"
    answer = await gateway.ask(request(method=b"OPTIONS", lines=PREFLIGHT % b"PUT", path="/x"))
    assert (answer.status, answer["access-control-allow-origin"]) == (204, "*")
    assert upstream.requests[0].startswith(b"OPTIONS /x HTTP/1.1\r\n")


async def test_a_preflight_for_a_method_that_no_route_takes_is_refused(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "methods": ["GET"]}])
    assert (await gateway.ask(request(method=b"OPTIONS", lines=PREFLIGHT % b"PUT", path="/x"))).status == 405
    assert not upstream.requests


async def test_an_options_request_that_is_no_preflight_is_charged(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    assert (await gateway.ask(request(method=b"OPTIONS"))).status == 401
    assert (
        await gateway.ask(request(method=b"OPTIONS", lines=b"Access-Control-Request-Method: GET\r\n"))
    ).status == 401
    assert (await gateway.ask(request(acme.auth, b"OPTIONS"))).status == 200
    assert await acme.used() == 1
    assert len(upstream.requests) == 1


async def test_a_refusal_is_readable_for_a_page_of_an_allowed_origin(
    start: StartGateway, organization: MakeOrganization
) -> None:
    gateway = await start(cors={"allowed_origins": ["https://app.example.com"]})
    empty = await organization("empty", 0)
    allowed = await gateway.get("/", empty, b"Origin: https://app.example.com\r\n")
    assert (allowed.status, allowed["access-control-allow-origin"]) == (429, "https://app.example.com")
    assert "RateLimit" in (allowed["access-control-expose-headers"] or "")
    assert allowed["vary"] == "Origin"
    other = await gateway.get("/", empty, b"Origin: https://evil.example.com\r\n")
    assert (other.status, other["access-control-allow-origin"]) == (429, None)


async def test_health_and_readiness_are_the_gateways_own(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(limits={"head_bytes_max": 200_000})
    client = await gateway.connect()
    health = await client.ask(get("/-/health"))
    assert (health.status, json.loads(health.body)) == (200, {"status": "ok"})
    ready = await client.ask(get("/-/ready"))
    assert (ready.status, json.loads(ready.body)["status"]) == (200, "ready")
    missing = await client.ask(get("/-/nothing"))
    assert (missing.status, missing["content-type"]) == (404, "application/problem+json")
    head = await client.ask(request(method=b"HEAD", path="/-/health"))
    assert (head.status, head.body) == (200, b"")
    for length in (1000, 60_000, 100_000):
        assert (await client.ask(get(f"/-/{'x' * length}"))).status == 404
    assert not upstream.requests

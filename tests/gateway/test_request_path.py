"""What a request meets on its way: target, route, charge, forward. On real sockets and a real Valkey."""

import asyncio
import gc
from typing import Any

import pytest

from gateway.exchange.exchange import Exchange
from quota.model import Grant, MeterLimit, OveragePolicy, Status
from tests.gateway.rig import (
    Gateway,
    MakeOrganization,
    Organization,
    StartGateway,
    Until,
    Upstream,
    get,
)


async def test_an_admitted_request_is_forwarded_and_told_its_balance(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    for spent in (1, 2, 3):
        answer = await client.ask(get("/things", acme))
        assert (answer.status, answer.body, answer.remaining) == (200, b"ok", 100 - spent)
        assert answer["ratelimit-policy"] == '"api_calls";q=100;w=101000'
    assert len(upstream.requests) == 3
    assert await acme.used() == 3
    assert await acme.events() == ["t", "t", "t"]


async def test_of_101_requests_for_100_units_exactly_the_last_is_refused(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    client.send(get("/", acme) * 100)
    assert [(await client.answer()).remaining for _ in range(100)] == list(range(99, -1, -1))
    refused = await client.ask(get("/", acme))
    assert (refused.status, refused.remaining) == (429, 0)
    assert 99_000 < int(refused["retry-after"] or 0) <= 100_000
    assert refused["ratelimit-policy"] == '"api_calls";q=100;w=101000'
    problem = refused.problem
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["api_calls"]
    assert (problem["limit"], problem["remaining"], problem["cost"]) == (100, 0, 1)
    assert len(upstream.requests) == 100


async def test_an_exchange_that_is_over_does_not_wait_for_the_garbage_collector(
    gateway: Gateway, acme: Organization, organization: MakeOrganization
) -> None:
    tiny = await organization("tiny", 0)
    client = await gateway.connect()
    await client.ask(get("/", acme))
    gc.collect()
    gc.disable()
    try:
        assert [(await client.ask(get("/", org))).status for org in (acme, tiny, acme)] == [200, 429, 200]
        assert not [each for each in gc.get_objects() if type(each) is Exchange]
    finally:
        gc.enable()


async def test_a_refusal_charges_nothing_however_often_it_is_asked_for(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    tiny = await organization("tiny", 1)
    client = await gateway.connect()
    assert [(await client.ask(get("/", tiny))).status for _ in range(3)] == [200, 429, 429]
    assert await tiny.used() == 1
    assert await tiny.events() == ["t"]


@pytest.fixture
def long_memory(intervals: dict[str, Any]) -> None:
    intervals["exhausted_seconds"] = 3600.0


@pytest.mark.usefixtures("long_memory")
async def test_an_exhausted_organization_costs_redis_no_call_until_its_plan_changes(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, until: Until
) -> None:
    one = await organization("one", 1)
    client = await gateway.connect()
    statuses = [(await client.ask(get("/", one))).status for _ in range(10)]
    assert statuses == [200] + 9 * [429]
    assert gateway.worker.link.batches == 2
    await one.publish(2)
    await until(lambda: not gateway.worker.exhausted.by_org)
    assert [(await client.ask(get("/", one))).status for _ in range(2)] == [200, 429]
    assert len(upstream.requests) == 2


@pytest.mark.usefixtures("long_memory")
@pytest.mark.parametrize(
    "line", [b"", b"X-Request-Id: mine\r\n", b"Origin: https://app.example.com\r\n", b"Connection: close\r\n"]
)
async def test_a_refusal_from_memory_says_what_the_ledger_said(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, line: bytes
) -> None:
    one = await organization("one", 1)
    asked = get("/", one, line)
    await gateway.ask(get("/", one))
    fresh, again, third = [await gateway.ask(asked) for _ in range(3)]
    changing = {"correlation_id", "reset_seconds", "detail"}
    for answer in (again, third):
        assert answer.status == fresh.status == 429
        assert {k: v for k, v in answer.problem.items() if k not in changing} == {
            k: v for k, v in fresh.problem.items() if k not in changing
        }
        assert answer.problem["detail"] == fresh.problem["detail"]
        assert 0 <= fresh.problem["reset_seconds"] - answer.problem["reset_seconds"] <= 60
        assert answer["ratelimit-policy"] == fresh["ratelimit-policy"]
        assert answer["connection"] == fresh["connection"]
        assert answer["content-type"] == "application/problem+json"
        assert answer["x-request-id"] == "mine" or b"mine" not in line
    assert again.problem["correlation_id"] != third.problem["correlation_id"] or b"mine" in line


async def test_of_many_clients_for_the_last_unit_exactly_one_reaches_the_upstream(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    one = await organization("one", 1)
    answers = await asyncio.gather(*(gateway.ask(get("/", one)) for _ in range(100)))
    assert sorted(answer.status for answer in answers) == [200] + 99 * [429]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [Status.NONE, Status.SUSPENDED, Status.ENDED])
async def test_without_an_entitlement_in_force_the_way_to_pay_is_told(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, status: Status
) -> None:
    gateway = await start(upgrade_url="https://pay.example.com/plans")
    unpaid = await organization("unpaid", status=status, periods=())
    answer = await gateway.get("/", unpaid)
    assert answer.status == 402
    assert answer["link"] == '<https://pay.example.com/plans>; rel="payment"'
    assert answer.problem["upgrade_url"] == "https://pay.example.com/plans"
    assert answer.problem["entitlement_status"] == status.word
    assert answer["ratelimit"] is None
    assert not upstream.requests


async def test_a_meter_that_the_plan_lacks_is_forbidden(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"tokens": 1}}])
    answer = await gateway.get("/", acme)
    assert (answer.status, answer.problem["meter"]) == (403, "tokens")
    assert not upstream.requests


async def test_several_meters_are_charged_together_or_not_at_all(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"api_calls": 1, "tokens": 40}}])
    both = await organization("both", None, meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    client = await gateway.connect()
    answer = await client.ask(get("/", both))
    assert answer["ratelimit-policy"] == '"api_calls";q=10;w=101000, "tokens";q=100;w=101000'
    first, second = (answer["ratelimit"] or "").split(", ")
    assert first.startswith('"api_calls";r=9;t=')
    assert second.startswith('"tokens";r=60;t=')
    assert (await client.ask(get("/", both))).status == 200
    refused = await client.ask(get("/", both))
    assert (refused.status, refused.problem["violated-policies"]) == (429, ["tokens"])
    assert (refused.problem["remaining"], refused.problem["cost"]) == (20, 40)
    assert (await both.used("api_calls"), await both.used("tokens")) == (2, 80)
    assert len(upstream.requests) == 2


async def test_a_cost_above_the_whole_allowance_is_told_that_waiting_is_in_vain(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"api_calls": 101}}])
    acme = await organization("acme", 100)
    answer = await gateway.get("/", acme)
    assert answer.status == 429
    assert answer.problem["type"].endswith(":cost-above-limit")
    assert answer["retry-after"] is None
    assert answer.remaining == 100
    assert await acme.used() == 0
    assert not upstream.requests


async def test_grants_are_burnt_and_overage_is_sold_after_the_allowance(
    gateway: Gateway, organization: MakeOrganization
) -> None:
    acme = await organization(
        "acme",
        None,
        policy=OveragePolicy.METERED,
        meters=(MeterLimit("api_calls", 1, 1),),
        grants=(Grant("g1", "api_calls", 1, 4_000_000_000),),
    )
    client = await gateway.connect()
    answers = [await client.ask(get("/", acme)) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.remaining for answer in answers] == [1, 0, 0, 0]


async def test_the_route_of_the_host_comes_before_the_route_of_the_path(
    start: StartGateway, organization: MakeOrganization
) -> None:
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/", "host": "bulk.example.com", "upstream": "api", "meters": {"api_calls": 10}},
    ]
    gateway = await start(routes=routes)
    acme = await organization()
    assert (await gateway.get("/", acme)).remaining == 99
    bulk = b"GET / HTTP/1.1\r\nHost: BULK.example.com:80\r\n%b\r\n" % acme.auth
    assert (await gateway.ask(bulk)).remaining == 89


async def test_the_path_that_is_matched_is_the_path_that_is_sent(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    routes = [{"path": "/", "upstream": "api", "exempt": True}, {"path": "/admin", "upstream": "api"}]
    gateway = await start(routes=routes)
    for path in ("/%61dmin/x", "//admin//x", "/a/../admin/./x", "/%2e/admin/x"):
        assert (await gateway.get(path)).status == 401, path
    for path in ("/a%2fadmin/x", "/admin%5cx", "/..%00/admin", "/../admin/x", "/a/..;/admin/x", "/admin;a/x"):
        assert (await gateway.get(path)).status in (400, 404), path
    assert not upstream.requests
    assert (await gateway.get("//%61dmin/./%7ex?a=%2e%2E//", acme)).status == 200
    assert upstream.requests[0].startswith(b"GET /admin/~x?a=%2e%2E// HTTP/1.1\r\n")


async def test_a_gateway_that_has_just_started_serves_the_first_request(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    for _ in range(5):
        gateway = await start()
        assert gateway.worker.link.open
        assert (await gateway.get("/", acme)).status == 200

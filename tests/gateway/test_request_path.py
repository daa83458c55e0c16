"""What a request meets on its way: target, route, charge, forward. On real sockets and a real Valkey."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.exchange.verdicts import of_decision
from quota import keys
from quota.model import Grant, MeterLimit, OveragePolicy, RateLimit, RateLimited, Status
from quota.periods import Period
from tests.gateway.rig import PATIENCE_SECONDS, Gateway, MakeOrganization, Organization, StartGateway, Until, Upstream

PREFLIGHT = b"Origin: https://app.example.com\r\nAccess-Control-Request-Method: %b\r\n"


def request(path: str = "/", lines: bytes = b"", method: str = "GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: api.example.com\r\n%b\r\n" % (method.encode(), path.encode(), lines)


async def test_an_admitted_request_is_forwarded_and_told_its_balance(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    for spent in (1, 2, 3):
        answer = await client.ask(request("/things", acme.auth))
        assert (answer.status, answer.body, answer.remaining) == (200, b"ok", 100 - spent)
        assert answer["ratelimit-policy"] == '"api_calls";q=100;w=101000'
    assert len(upstream.requests) == 3
    assert await acme.used() == 3
    assert await acme.events() == ["t", "t", "t"]


async def test_of_101_requests_for_100_units_exactly_the_last_is_refused(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    client.send(request("/", acme.auth) * 100)
    assert [(await client.answer()).remaining for _ in range(100)] == list(range(99, -1, -1))
    refused = await client.ask(request("/", acme.auth))
    assert (refused.status, refused.remaining) == (429, 0)
    assert 99_000 < int(refused["retry-after"] or 0) <= 100_000
    assert refused["ratelimit-policy"] == '"api_calls";q=100;w=101000'
    problem = refused.problem
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["api_calls"]
    assert (problem["limit"], problem["remaining"], problem["cost"]) == (100, 0, 1)
    assert len(upstream.requests) == 100


async def test_a_refusal_charges_nothing_however_often_it_is_asked_for(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    tiny = await organization("tiny", 1)
    client = await gateway.connect()
    assert [(await client.ask(request("/", tiny.auth))).status for _ in range(3)] == [200, 429, 429]
    assert await tiny.used() == 1
    assert await tiny.events() == ["t"]


@pytest.fixture
def long_memory(intervals: dict[str, Any]) -> None:
    intervals["exhausted_seconds"] = 3600.0


@pytest.mark.usefixtures("long_memory")
async def test_an_exhausted_organization_costs_redis_no_call_until_its_plan_changes(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, takes, take = await organization("one", 1), 0, gateway.worker.link.take

    def counted(*words: Any) -> None:
        nonlocal takes
        takes += 1
        take(*words)

    monkeypatch.setattr(gateway.worker.link, "take", counted)
    client = await gateway.connect()
    statuses = [(await client.ask(request("/", one.auth))).status for _ in range(10)]
    assert statuses == [200] + 9 * [429]
    assert takes == 2
    await one.publish(2)
    await until(lambda: not gateway.worker.exhausted.by_org)
    assert [(await client.ask(request("/", one.auth))).status for _ in range(2)] == [200, 429]
    assert len(upstream.requests) == 2


@pytest.mark.usefixtures("long_memory")
@pytest.mark.parametrize(
    "line", [b"", b"X-Request-Id: mine\r\n", b"Origin: https://app.example.com\r\n", b"Connection: close\r\n"]
)
async def test_a_refusal_from_memory_says_what_the_ledger_said(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, line: bytes
) -> None:
    one = await organization("one", 1)
    asked = request("/", one.auth + line)
    await gateway.ask(request("/", one.auth))
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
    answers = await asyncio.gather(*(gateway.ask(request("/", one.auth)) for _ in range(100)))
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
    answer = await client.ask(request("/", both.auth))
    assert answer["ratelimit-policy"] == '"api_calls";q=10;w=101000, "tokens";q=100;w=101000'
    first, second = (answer["ratelimit"] or "").split(", ")
    assert first.startswith('"api_calls";r=9;t=')
    assert second.startswith('"tokens";r=60;t=')
    assert (await client.ask(request("/", both.auth))).status == 200
    refused = await client.ask(request("/", both.auth))
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
    answers = [await client.ask(request("/", acme.auth)) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.remaining for answer in answers] == [1, 0, 0, 0]


async def test_beyond_the_rate_limit_a_request_waits_and_nothing_is_charged(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    acme = await organization("acme", 100, rate=RateLimit(1, seconds=3600, burst=2))
    client = await gateway.connect()
    answers = [await client.ask(request("/", acme.auth)) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 3500 <= int(answers[2]["retry-after"] or 0) <= 3600
    assert answers[2].problem["type"] == "urn:quotagate:problem:rate-limited"
    assert await acme.used() == 2
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("rate", "policy"),
    [
        (RateLimit(1, seconds=60, burst=2), '"request-rate";q=2;w=120'),
        (RateLimit(1, seconds=86_400, burst=1), '"request-rate";q=1;w=86400'),
        (RateLimit(1, seconds=62.5, burst=1), '"request-rate";q=1;w=63'),  # a window has whole seconds
        (RateLimit(1, seconds=62.5, burst=2), '"request-rate";q=2;w=125'),
    ],
)
async def test_the_429_of_a_rate_limit_names_its_policy_what_is_left_and_when_a_request_passes(
    gateway: Gateway, organization: MakeOrganization, rate: RateLimit, policy: str
) -> None:
    acme = await organization("acme", 100, rate=rate)
    client = await gateway.connect()
    for _ in range(rate.burst):
        assert (await client.ask(request("/", acme.auth))).status == 200
    refused = await client.ask(request("/", acme.auth))
    wait = int(refused["retry-after"] or "0")
    assert rate.seconds / 2 < wait <= rate.seconds + 1
    assert refused["ratelimit-policy"] == policy
    assert refused["ratelimit"] == f'"request-rate";r=0;t={wait}'
    problem = refused.problem
    assert problem["violated-policies"] == ["request-rate"]
    assert policy.endswith(f";q={problem['limit']};w={policy.rpartition('=')[2]}")
    assert (problem["remaining"], problem["reset_seconds"]) == (0, wait)


@pytest.mark.parametrize(
    ("rate", "policy"),
    [
        (RateLimit(1000, seconds=1, burst=10), b'"request-rate";q=1000;w=1'),
        (RateLimit(3, seconds=1, burst=5), b'"request-rate";q=6;w=2'),
        (RateLimit(7, seconds=1, burst=1), b'"request-rate";q=7;w=1'),
    ],
)
def test_a_quick_rate_is_told_by_the_requests_of_whole_seconds(rate: RateLimit, policy: bytes) -> None:
    burst_us = rate.interval_us * rate.burst
    refused = RateLimited(Period(0, 100), 1, 1, rate.interval_us, burst_us)
    told = of_decision(refused, {"api_calls": 1}, None)
    assert told.fields == (b'RateLimit-Policy: %b\r\nRateLimit: "request-rate";r=0;t=1\r\nRetry-After: 1\r\n' % policy)


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
    answer = await gateway.ask(request("/", acme.auth, "DELETE"))
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
    answer = await gateway.ask(request("/x", PREFLIGHT % b"PUT", "OPTIONS"))
    assert (answer.status, answer["access-control-allow-origin"]) == (204, "*")
    assert upstream.requests[0].startswith(b"OPTIONS /x HTTP/1.1\r\n")


async def test_a_preflight_for_a_method_that_no_route_takes_is_refused(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "methods": ["GET"]}])
    assert (await gateway.ask(request("/x", PREFLIGHT % b"PUT", "OPTIONS"))).status == 405
    assert not upstream.requests


async def test_an_options_request_that_is_no_preflight_is_charged(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    assert (await gateway.ask(request("/", b"", "OPTIONS"))).status == 401
    assert (await gateway.ask(request("/", b"Access-Control-Request-Method: GET\r\n", "OPTIONS"))).status == 401
    assert (await gateway.ask(request("/", acme.auth, "OPTIONS"))).status == 200
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


# Organizations that Redis does not know


async def test_an_unknown_organization_is_asked_for_once_and_all_who_wait_are_served(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, redis_url: str
) -> None:
    known = await organization("known")
    late = await organization("late", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("late", 32))
        waiting = [asyncio.create_task(gateway.get("/", late)) for _ in range(20)]
        asked = await redis.blpop([keys.HYDRATE], timeout=PATIENCE_SECONDS)
        assert asked is not None
        assert asked[1] == b"late"
        assert (await gateway.get("/", known)).status == 200, "others do not wait"
        assert not [task for task in waiting if task.done()]
        await late.publish(100)
        answers = await asyncio.gather(*waiting)
        assert [answer.status for answer in answers] == 20 * [200]
        assert await redis.llen(keys.HYDRATE) == 0
    assert await late.used() == 20


async def test_an_organization_that_nobody_knows_is_told_so_once_the_control_plane_says_it(
    gateway: Gateway, organization: MakeOrganization, redis_url: str
) -> None:
    nobody = await organization("nobody", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("nobody", 32))
        asked = asyncio.create_task(gateway.get("/", nobody))
        await redis.blpop([keys.HYDRATE], timeout=PATIENCE_SECONDS)
        await nobody.publish(None, status=Status.NONE, periods=())
        assert (await asked).status == 402


async def test_a_control_plane_that_does_not_answer_is_our_fault(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, redis_url: str
) -> None:
    gateway = await start(hydrate_timeout_ms=100)
    lost = await organization("lost", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("lost", 32))
        answer = await gateway.get("/", lost)
        assert (answer.status, answer["retry-after"]) == (503, "1")
        assert answer.problem["type"] == "urn:quotagate:problem:entitlement-pending"
        await lost.publish(100)
        assert (await gateway.get("/", lost)).status == 200
    assert len(upstream.requests) == 1


async def test_an_announcement_that_was_missed_costs_the_wait_and_not_the_request(
    start: StartGateway, organization: MakeOrganization, redis_url: str
) -> None:
    gateway = await start(hydrate_timeout_ms=2_000)
    late = await organization("late", 0)
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("late", 32))
        asked = asyncio.create_task(gateway.get("/", late))
        await redis.blpop([keys.HYDRATE], timeout=PATIENCE_SECONDS)
        listener = gateway.worker.hydrator._listener
        assert listener is not None
        listener.cancel()
        await asyncio.sleep(0)
        await late.publish(100)
        assert (await asked).status == 200


# The gateway's own endpoints


async def test_health_and_readiness_are_the_gateways_own(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(limits={"head_bytes_max": 200_000})
    client = await gateway.connect()
    health = await client.ask(request("/-/health"))
    assert (health.status, json.loads(health.body)) == (200, {"status": "ok"})
    ready = await client.ask(request("/-/ready"))
    assert (ready.status, json.loads(ready.body)["status"]) == (200, "ready")
    missing = await client.ask(request("/-/nothing"))
    assert (missing.status, missing["content-type"]) == (404, "application/problem+json")
    head = await client.ask(request("/-/health", method="HEAD"))
    assert (head.status, head.body) == (200, b"")
    for length in (1000, 60_000, 100_000):
        assert (await client.ask(request(f"/-/{'x' * length}"))).status == 404
    assert not upstream.requests


async def test_a_gateway_that_has_just_started_serves_the_first_request(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    for _ in range(5):
        gateway = await start()
        assert gateway.worker.link.open
        assert (await gateway.get("/", acme)).status == 200

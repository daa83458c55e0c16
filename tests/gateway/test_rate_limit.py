"""Beyond the rate a request is refused, is told when it may come again, and is charged nothing."""

import pytest

from gateway.decision.refusals import of_decision
from quota.model import RateLimit, RateLimited
from quota.periods import Period
from tests.gateway.rig import (
    Gateway,
    MakeOrganization,
    Upstream,
    get,
)


async def test_beyond_the_rate_limit_a_request_waits_and_nothing_is_charged(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    acme = await organization("acme", 100, rate=RateLimit(1, seconds=3600, burst=2))
    client = await gateway.connect()
    answers = [await client.ask(get("/", acme)) for _ in range(3)]
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
        assert (await client.ask(get("/", acme))).status == 200
    refused = await client.ask(get("/", acme))
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
    answer = of_decision(refused, {"api_calls": 1}, None)
    assert answer.fields == (
        b'RateLimit-Policy: %b\r\nRateLimit: "request-rate";r=0;t=1\r\nRetry-After: 1\r\n' % policy
    )

"""Targets that are left out are told to Redis, for incidents of the control plane."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from time import time
from typing import Any, Protocol

import pytest
from redis.asyncio import Redis

from gateway.observe import upstream_faults
from quota import keys
from quota.upstream_faults import EJECTED, FIELD, UNHEALTHY, Report, decode
from tests.gateway.rig import (
    PATIENCE_SECONDS,
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    StartPair,
    Upstream,
    closed_port,
)
from tests.replies import as_entries

QUICK = {"consecutive_failures": 2, "seconds": 0.05, "seconds_max": 0.1}
LONG = {"consecutive_failures": 2, "seconds": 600, "seconds_max": 600}
PLENTY = 10_000_000


@pytest.fixture(autouse=True)
def quick(intervals: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    intervals["upstream_faults_seconds"] = 0.05
    monkeypatch.setattr(upstream_faults, "SOONEST_SECONDS", 0.0)


class Told(Protocol):
    async def __call__(self, holds: Callable[[Report], object]) -> Report: ...


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def told(redis: Redis) -> Told:
    """The newest report, as soon as this is true of it."""

    async def read(holds: Callable[[Report], object]) -> Report:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for _, fields in as_entries(await redis.xrevrange(keys.UPSTREAM_FAULTS, count=1)):
                    if holds(report := decode(fields[FIELD])):
                        return report
                await asyncio.sleep(0.01)

    return read


@pytest.fixture
def pair(start: StartGateway, upstream: Upstream, issuer: Upstream) -> StartPair:
    async def started(**settings: Any) -> Gateway:
        return await start(None, upstreams={"api": {"targets": [upstream.url, issuer.url], **settings}})

    return started


async def ends(peer: Peer) -> None:
    """Takes a request and ends the connection without a byte."""
    await peer.request()


async def test_nothing_is_sent_while_all_is_well(gateway: Gateway, acme: Organization, redis: Redis) -> None:
    assert (await gateway.get("/", acme)).status == 200
    assert gateway.worker.upstream_faults._timer is None
    assert not await redis.exists(keys.UPSTREAM_FAULTS)


async def test_an_ejected_target_is_told_with_why_and_until_when_and_that_it_is_well_again(
    pair: StartPair, organization: MakeOrganization, issuer: Upstream, told: Told, redis: Redis
) -> None:
    gateway, acme = await pair(ejection=QUICK), await organization("acme", PLENTY)
    issuer.serve = ends
    before_ms = int(time() * 1000)
    for _ in range(4):
        assert (await gateway.get("/", acme)).status == 200
    report = await told(lambda report: report.faults)
    [fault] = report.faults
    assert (fault.upstream, fault.target, fault.state) == ("api", issuer.url, EJECTED)
    assert before_ms <= fault.since_ms < (fault.until_ms or 0)
    assert re.search("closed the connection", fault.why)
    assert not report.outages, "another target is left"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while gateway.worker.upstreams["api"].targets[1].health.ejections < 2:
            assert (await gateway.get("/", acme)).status == 200
            await asyncio.sleep(0.002)
    again = await told(lambda later: later.faults and later.faults[0].until_ms != fault.until_ms)
    assert again.faults[0].since_ms == fault.since_ms, "a trial that fails is no new fault"
    assert 0 < await redis.pttl(keys.UPSTREAM_FAULTS) <= 5000
    issuer.serve = issuer._serve
    async with asyncio.timeout(PATIENCE_SECONDS):
        while gateway.worker.upstreams["api"].failing:
            assert (await gateway.get("/", acme)).status == 200
            await asyncio.sleep(0.002)
    assert await told(lambda report: not report.faults)


async def test_an_upstream_without_a_target_is_told_apart_and_whether_its_requests_are_refused(
    start: StartGateway, acme: Organization, told: Told
) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    for refused in (True, False):
        gateway = await start(None, upstreams={"api": {"url": url, "ejection": LONG, "circuit_breaker": refused}})
        for _ in range(2):
            assert (await gateway.get("/", acme)).status == 502
        report = await told(lambda report: report.outages)
        [fault], [outage] = report.faults, report.outages
        assert outage.refused is refused
        assert fault.target == url
        assert (fault.until_ms or 0) - fault.since_ms == pytest.approx(600_000, abs=30_000)
        assert outage.upstream == "api"
        gateway.worker.upstream_faults.close()
        assert await told(lambda report: not report.faults and not report.outages), "it knows nothing any more"


async def test_a_target_whose_health_checks_fail_is_told_with_what_they_were_answered(
    pair: StartPair, issuer: Upstream, told: Told
) -> None:
    issuer.answer = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    await pair(health={"path": "/health", "interval_seconds": 0.02, "unhealthy_after": 2})
    [fault] = (await told(lambda report: report.faults)).faults
    assert (fault.target, fault.state, fault.until_ms) == (issuer.url, UNHEALTHY, None)
    assert fault.why == "a health check was answered 500"


async def test_what_redis_does_not_take_is_told_again(
    pair: StartPair, acme: Organization, issuer: Upstream, told: Told, redis: Redis
) -> None:
    gateway = await pair(ejection=LONG)
    await redis.set(keys.UPSTREAM_FAULTS, "no stream")
    issuer.serve = ends
    for _ in range(4):
        assert (await gateway.get("/", acme)).status == 200
    await redis.delete(keys.UPSTREAM_FAULTS)
    assert await told(lambda report: report.faults)

"""Targets that fail are left out, and tried again; an upstream whose targets all fail is left alone."""

import asyncio
from typing import Any

import pytest

from gateway.settings.upstreams import Ejection
from gateway.upstream.ejection import TargetHealth, Use
from tests.gateway.rig import (
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    StartPair,
    Upstream,
    closed_port,
    request,
)

QUICK = {"consecutive_failures": 2, "seconds": 0.05, "seconds_max": 0.1}
LONG = {"consecutive_failures": 2, "seconds": 600, "seconds_max": 600}
PLENTY = 10_000_000  # of an allowance that a test asks of until something happens, however fast it asks


# The record of one target


def test_failures_in_a_row_eject_and_an_answer_between_them_does_not() -> None:
    health = TargetHealth(Ejection(consecutive_failures=3))
    assert [health.record_failure(0), health.record_failure(0)] == [False, False]
    health.record_answer()
    assert [health.record_failure(0), health.record_failure(0)] == [False, False]
    assert health.use(0) is Use.ANY
    assert health.record_failure(0)
    assert health.use(0) is Use.NONE


def test_each_ejection_is_twice_as_long_as_the_one_before_and_bounded() -> None:
    health, now, lengths = TargetHealth(Ejection(consecutive_failures=1, seconds=1, seconds_max=10)), 100.0, []
    for _ in range(200):
        assert health.record_failure(now)
        lengths.append(health.until - now)
        now = health.until
        assert health.use(now) is Use.TRIAL
        health.try_once(now)
    assert lengths[:6] == [1, 2, 4, 8, 10, 10]
    assert set(lengths[5:]) == {10}


def test_one_request_tries_an_ejected_target_and_its_answer_ends_the_ejection() -> None:
    health = TargetHealth(Ejection(consecutive_failures=1, seconds=1))
    health.record_failure(0)
    health.try_once(1)
    assert health.use(1) is Use.NONE, "one is enough"
    assert health.record_answer()
    assert health.use(1) is Use.ANY
    health.record_failure(5)
    assert health.seconds == 1, "what was long ago does not count"


def test_a_trial_that_is_never_heard_of_again_is_followed_by_another() -> None:
    health = TargetHealth(Ejection(consecutive_failures=1, seconds=1))
    health.record_failure(0)
    health.try_once(1)
    assert health.use(2) is Use.TRIAL


def test_failures_of_requests_that_were_under_way_do_not_make_an_ejection_longer() -> None:
    health = TargetHealth(Ejection(consecutive_failures=1, seconds=1))
    health.record_failure(0)
    for _ in range(100):
        assert not health.record_failure(0.5)
    assert health.until == 1


# Several targets


@pytest.fixture
def pair(start: StartGateway, upstream: Upstream, issuer: Upstream) -> StartPair:
    async def started(**settings: Any) -> Gateway:
        return await start(None, upstreams={"api": {"targets": [upstream.url, issuer.url], **settings}})

    return started


async def ends(peer: Peer) -> None:
    """Takes a request and ends the connection without a byte."""
    await peer.request()


async def silent(peer: Peer, _: bytes) -> None:
    await peer.gone()


async def test_a_target_that_refuses_connections_costs_no_client_anything(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    targets = [upstream.url, f"http://127.0.0.1:{closed_port()}"]
    gateway = await start(None, upstreams={"api": {"targets": targets, "ejection": LONG}})
    for _ in range(10):
        assert (await gateway.get("/", acme)).status == 200
    assert len(upstream.requests) == 10
    ejected = [entry for entry in gateway.logs if entry["event"] == "target ejected"]
    assert [entry["upstream"] for entry in ejected] == ["api[1]"]
    assert await acme.used() == 10


async def test_a_target_that_ends_connections_is_ejected_and_then_dialed_no_more(
    pair: StartPair, acme: Organization, issuer: Upstream
) -> None:
    gateway = await pair(ejection=LONG)
    issuer.serve = ends
    for _ in range(10):
        assert (await gateway.get("/", acme)).status == 200
    assert issuer.accepted == 2


async def test_a_target_that_falls_silent_is_ejected(pair: StartPair, acme: Organization, issuer: Upstream) -> None:
    gateway = await pair(ejection=LONG, head_timeout_seconds=0.1)
    issuer.script = silent
    statuses = [(await gateway.get("/", acme)).status for _ in range(10)]
    assert sorted(statuses) == [200] * 8 + [504] * 2


async def test_a_target_that_answers_again_is_used_again(
    pair: StartPair, organization: MakeOrganization, issuer: Upstream
) -> None:
    gateway, acme = await pair(ejection=QUICK), await organization("acme", PLENTY)
    issuer.serve = ends
    for _ in range(4):
        assert (await gateway.get("/", acme)).status == 200
    upstream = gateway.worker.upstreams["api"]
    assert upstream.failing
    issuer.serve = issuer._serve
    async with asyncio.timeout(60):
        while upstream.failing:
            assert (await gateway.get("/", acme)).status == 200
            await asyncio.sleep(0.002)
    assert issuer.requests


@pytest.mark.parametrize("settings", [{"head_timeout_seconds": 0.05}, {"total_timeout_seconds": 0.5}])
async def test_clients_that_send_half_a_request_eject_nothing(
    start: StartGateway, acme: Organization, upstream: Upstream, settings: dict[str, Any]
) -> None:
    gateway = await start(upstreams={"api": {"ejection": LONG, **settings}})
    half = request(acme.auth, b"POST", b"Content-Length: 5\r\n", b"hel")
    for _ in range(3):
        assert (await gateway.ask(half)).status == 504
    assert not gateway.worker.upstreams["api"].failing
    assert (await gateway.get("/", acme)).status == 200


async def test_answers_that_are_no_http_eject_nothing(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    """One broken endpoint must not close the others."""
    gateway = await start(upstreams={"api": {"ejection": LONG}})
    upstream.answer = b"\x00 junk\r\n\r\n"
    for _ in range(3):
        assert (await gateway.get("/", acme)).status == 502
    assert not gateway.worker.upstreams["api"].failing


# The circuit breaker


async def test_an_upstream_that_fails_altogether_is_left_alone_and_nothing_is_charged(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"ejection": LONG}})
    upstream.serve = ends
    client = await gateway.connect()
    for events in ("ts", "tsts"):
        assert (await client.ask(request(acme.auth))).status == 502
        assert await acme.settled(events)
    for method in (b"GET", b"POST"):
        answer = await client.ask(request(acme.auth, method))
        assert (answer.status, answer.problem["type"]) == (503, "urn:quotagate:problem:upstream-away")
        assert 590 <= int(answer["retry-after"] or 0) <= 600
    assert upstream.accepted == 2, "no connection was tried"
    assert len(await acme.events()) == 4, "and nothing was taken"


async def test_an_open_breaker_also_stands_before_what_is_exempt(start: StartGateway, upstream: Upstream) -> None:
    routes = [{"path": "/", "upstream": "api", "exempt": True}]
    gateway = await start(upstreams={"api": {"ejection": LONG}}, routes=routes)
    upstream.serve = ends
    statuses = [(await gateway.get("/")).status for _ in range(4)]
    assert statuses == [502, 502, 503, 503]
    assert upstream.accepted == 2


async def test_a_breaker_closes_when_one_request_is_answered(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    gateway, acme = await start(upstreams={"api": {"ejection": QUICK}}), await organization("acme", PLENTY)
    upstream.serve = ends
    for _ in range(2):
        assert (await gateway.get("/", acme)).status == 502
    upstream.serve = upstream._serve
    async with asyncio.timeout(60):
        while (await gateway.get("/", acme)).status != 200:  # noqa: ASYNC110 - the ejection's end calls nobody back
            await asyncio.sleep(0.002)
    for _ in range(10):
        assert (await gateway.get("/", acme)).status == 200


async def test_without_a_breaker_all_targets_are_used_when_none_is_left(
    pair: StartPair, acme: Organization, issuer: Upstream, upstream: Upstream
) -> None:
    gateway = await pair(ejection=LONG, circuit_breaker=False)
    upstream.serve = issuer.serve = ends
    for _ in range(4):
        assert (await gateway.get("/", acme)).status == 502
    upstream.serve, issuer.serve = upstream._serve, issuer._serve
    for _ in range(4):
        assert (await gateway.get("/", acme)).status == 200

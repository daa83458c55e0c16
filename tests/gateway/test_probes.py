"""Active health probes."""

import json
from typing import Any

import pytest

from gateway.settings.upstreams import Ejection
from gateway.upstream.ejection import TargetHealth
from tests.gateway.rig import Gateway, Organization, Peer, StartGateway, StartPair, Until, Upstream

HEALTH = {
    "path": "/healthz",
    "interval_seconds": 0.02,
    "timeout_seconds": 1,
    "healthy_after": 2,
    "unhealthy_after": 2,
}
ILL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def test_a_target_changes_after_so_many_probes_in_a_row() -> None:
    health = TargetHealth(Ejection())
    assert [health.record_probe(well, 2, 3) for well in (False, False, True, False, False)] == [False] * 5
    assert health.record_probe(False, 2, 3)
    assert health.unhealthy
    assert [health.record_probe(well, 2, 3) for well in (False, True, False, True, True)] == [False] * 4 + [True]
    assert not health.unhealthy


@pytest.fixture
def pair(start: StartGateway, upstream: Upstream, issuer: Upstream) -> StartPair:
    async def started(**settings: Any) -> Gateway:
        return await start(
            None, upstreams={"api": {"targets": [upstream.url, issuer.url], "health": HEALTH} | settings}
        )

    return started


def ill(target: Upstream, kind: str) -> None:
    async def script(peer: Peer, request: bytes) -> None:
        if not request.startswith(b"GET /healthz "):
            peer.send(target.answer)
        elif kind == "503":
            peer.send(ILL)
        elif kind == "silent":
            await peer.gone()
        elif kind == "an endless body":
            peer.send(b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 100000\r\n\r\n")
        else:
            peer.writer.transport.abort()

    target.script = script


def served(target: Upstream) -> int:
    return sum(not request.startswith(b"GET /healthz ") for request in target.requests)


@pytest.mark.parametrize("kind", ["503", "silent", "reset", "an endless body"])
async def test_a_target_whose_probes_fail_gets_no_requests_until_they_succeed(
    pair: StartPair, acme: Organization, upstream: Upstream, issuer: Upstream, until: Until, kind: str
) -> None:
    gateway = await pair()
    api = gateway.worker.upstreams["api"]
    ill(issuer, kind)
    await until(lambda: api.state == "degraded")
    before = served(issuer)
    for _ in range(4):
        assert (await gateway.get("/", acme)).status == 200
    assert served(issuer) == before
    issuer.script = issuer._play
    await until(lambda: api.state == "available")
    for _ in range(2):
        assert (await gateway.get("/", acme)).status == 200
    assert served(issuer) == before + 1


async def test_when_all_probes_fail_requests_are_sent_all_the_same(
    pair: StartPair, acme: Organization, upstream: Upstream, issuer: Upstream, until: Until
) -> None:
    """A wrong path of a probe is no outage."""
    gateway = await pair()
    ill(upstream, "503")
    ill(issuer, "503")
    await until(lambda: gateway.worker.upstreams["api"].state == "unavailable")
    for _ in range(2):
        assert (await gateway.get("/", acme)).status == 200
    assert (served(upstream), served(issuer)) == (1, 1)


async def test_readiness_names_upstreams_and_no_addresses(pair: StartPair, issuer: Upstream, until: Until) -> None:
    gateway = await pair()
    ill(issuer, "503")
    await until(lambda: gateway.worker.upstreams["api"].state == "degraded")
    answer = await gateway.get("/-/ready")
    assert answer.status == 200, "an upstream's illness is not the gateway's"
    assert json.loads(answer.body)["upstreams"] == {"api": "degraded"}
    assert b"127.0.0.1" not in answer.body


async def test_probes_end_with_the_worker(
    start: StartGateway, pair: StartPair, upstream: Upstream, issuer: Upstream, until: Until
) -> None:
    """The probes of another gateway, by another path, are the clock."""

    def probed(path: bytes) -> int:
        return sum(request.startswith(b"GET %b " % path) for request in (*upstream.requests, *issuer.requests))

    gateway = await pair()
    await until(lambda: probed(b"/healthz") > 0)
    assert gateway.worker.probes is not None
    await gateway.worker.probes.close()
    await start(None, upstreams={"api": {"targets": [issuer.url], "health": HEALTH | {"path": "/clock"}}})
    await until(lambda: probed(b"/clock") > 2)  # by then what was on its way has arrived
    before = probed(b"/healthz")
    await until(lambda: probed(b"/clock") > 10)
    assert probed(b"/healthz") == before

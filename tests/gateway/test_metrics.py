"""Metrics: what all workers together have counted, with labels that no client can multiply."""

import asyncio
import os
import signal
import time
from pathlib import Path

from devstack.token_mint import AUDIENCE, ISSUER
from gateway.process.metrics import MetricsPublisher, snapshot
from gateway.process.metrics_aggregator import MetricsAggregator
from gateway.process.metrics_of_machine import of_machine
from gateway.settings.root import GatewaySettings
from tests.authority import Authority
from tests.gateway.rig import (
    PROCESS_SECONDS,
    SECRET,
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
)


async def exposition(gateway: Gateway, directory: Path, alive: frozenset[int] = frozenset({os.getpid()})) -> str:
    MetricsPublisher(gateway.worker, directory).publish()
    return MetricsAggregator(directory).collect(alive)


async def test_decisions_and_answers_are_counted_by_route(
    start: StartGateway, acme: Organization, tmp_path: Path
) -> None:
    gateway = await start()
    for _ in range(3):
        await gateway.get("/a", acme)
    await gateway.get("/a")
    metrics = await exposition(gateway, tmp_path)
    assert 'quotagate_decisions_total{route="/",verdict="admitted"} 3.0\n' in metrics
    assert 'quotagate_decisions_total{route="/",verdict="token_missing"} 1.0\n' in metrics
    assert 'quotagate_responses_total{class="2xx",route="/"} 3.0\n' in metrics
    assert 'quotagate_responses_total{class="4xx",route="/"} 1.0\n' in metrics
    assert "quotagate_take_seconds_count 3.0\n" in metrics
    assert 'quotagate_upstream_seconds_count{route="/"} 3.0\n' in metrics
    assert "quotagate_redis_link_up 1.0\n" in metrics
    assert 'quotagate_upstream_connections{state="idle",upstream="api' in metrics


async def test_reports_refunds_and_shortfalls_are_counted(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, tmp_path: Path
) -> None:
    acme = await organization("acme", 60)
    upstream.answer = b"HTTP/1.1 500 No\r\nX-Units: 70\r\nContent-Length: 0\r\n\r\n"
    cost = {"reported": {"header": "X-Units"}, "estimate": 10, "max": 100}
    refund = {"on": ["server_error"], "cap_per_period": 1}
    rule = {"path": "/", "upstream": "api", "meters": {"api_calls": cost}, "refund": refund}
    gateway = await start(routes=[rule])
    for events in ("ts", "tsts"):
        await gateway.get("/a", acme)
        assert await acme.settled(events)
    metrics = await exposition(gateway, tmp_path)
    assert 'quotagate_usage_reports_total{outcome="told",route="/"} 2.0\n' in metrics
    assert 'quotagate_shortfall_units_total{meter="api_calls"} 10.0\n' in metrics
    assert "quotagate_charges_given_back_total 1.0\n" in metrics
    assert "quotagate_refunds_capped_total 1.0\n" in metrics


async def test_what_clients_send_makes_no_new_label(start: StartGateway, acme: Organization, tmp_path: Path) -> None:
    gateway = await start()

    async def labels() -> set[str]:
        await gateway.get("/x", acme)
        await gateway.get("/x")
        await gateway.ask(b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        lines = (await exposition(gateway, tmp_path)).splitlines()
        return {line.rpartition(" ")[0] for line in lines}

    before = await labels()
    for number in range(20):
        await gateway.get(f"/{number}?{number}", acme, b"X-Request-Id: id-%d\r\n" % number)
        await gateway.ask(b"GET /%d HTTP/1.1\r\nHost: h%d\r\n\r\n" % (number, number))
    assert await labels() == before


async def test_exchanges_under_way_and_connections_are_gauges(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer, _: bytes) -> None:
        asked.set()
        await answer.wait()
        peer.send(upstream.answer)

    upstream.script = slow
    gateway = await start()
    client = await gateway.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % acme.auth)
    await asked.wait()
    now = snapshot(gateway.worker)
    assert (now["clients"], now["in_flight"], list(now["connections"].values())) == (1, 1, [1])
    answer.set()
    await client.answer()
    now = snapshot(gateway.worker)
    assert (now["clients"], now["in_flight"]) == (1, 0)


async def test_counts_of_workers_that_ended_are_kept_and_their_gauges_are_not(
    start: StartGateway, acme: Organization, tmp_path: Path
) -> None:
    gateway = await start()
    await gateway.get("/a", acme)
    counted = 'quotagate_decisions_total{route="/",verdict="admitted"}'
    aggregator = MetricsAggregator(tmp_path)
    MetricsPublisher(gateway.worker, tmp_path).publish()
    assert "quotagate_workers 1.0\n" in aggregator.collect({os.getpid()})
    for _ in range(2):
        ended = aggregator.collect(set())
        assert f"{counted} 1.0\n" in ended
        assert "quotagate_workers 0.0\n" in ended
    MetricsPublisher(gateway.worker, tmp_path).publish()
    assert f"{counted} 2.0\n" in aggregator.collect({os.getpid()})


async def test_one_page_tells_of_all_workers_across_their_replacement(run: StartProcess, until: Until) -> None:
    gateway = await run(workers=2)
    counted = 'quotagate_decisions_total{route="/free",verdict="exempt"}'

    async def ask(count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET /free HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()

    async def eventually(name: str, value: float) -> None:
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(gateway.metrics)).get(name) != value:  # noqa: ASYNC110 - they are polled
                await asyncio.sleep(0.05)

    await eventually("quotagate_workers", 2)
    await ask(20)
    await eventually(counted, 20)
    gateway.workers()[0].send_signal(signal.SIGTERM)
    await until(lambda: gateway.logged("Started server process") == 3, PROCESS_SECONDS)
    await ask(10)
    await eventually(counted, 30)


def test_a_certificate_is_told_of_by_when_it_ends_and_one_that_cannot_be_read_by_0(authority: Authority) -> None:
    file = authority.issue("client.example", days=3)
    settings = GatewaySettings.model_validate(
        {
            "redis": {"url": "redis://127.0.0.1:1"},
            "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
            "upstreams": {"api": {"url": "https://127.0.0.1:1", "tls": {"cert_file": file}}},
            "routes": [{"path": "/", "upstream": "api"}],
        }
    )

    def told() -> float:
        [family, *_] = of_machine(settings)
        [sample] = family.samples
        assert sample.labels == {"file": str(file)}
        return float(sample.value)

    assert 2 * 86_400 < told() - time.time() < 3 * 86_400
    file.write_text("nothing")
    assert told() == 0

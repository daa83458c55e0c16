"""Metrics and logs of a gateway's processes go to a collector by OTLP, beside its spans. No request waits for it."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from common.exposition import Family
from gateway.observe.sent_logs import line_of
from gateway.process.supervisor_telemetry import SupervisorTelemetry
from gateway.settings.observing import Telemetry
from tests.gateway.rig import (
    PROCESS_SECONDS,
    Connect,
    Organization,
    Peer,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
)
from tests.gateway.test_spans import SAMPLED, TRACE, get
from tests.otlp_receiver import Collector, Line, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as each:
        yield each


def named(collector: Collector, message: str) -> list[Line]:
    return [line for line in list(collector.lines) if line.message == message]


def decisions(collector: Collector) -> dict[str, float]:
    """By route and verdict, of the last report."""
    points = [point for point in list(collector.points) if point.name == "quotagate_decisions_total"]
    latest = max((point.at_ns for point in points), default=0)
    return {f"{p.labels['route']} {p.labels['verdict']}": p.value for p in points if p.at_ns == latest}


async def test_a_gateways_processes_send_spans_metrics_and_both_logs(
    run: StartProcess,
    connect: Connect,
    acme: Organization,
    upstream: Upstream,
    collector: Collector,
    until: Until,
    tmp_path: Path,
) -> None:
    async def play(peer: Peer, request: bytes) -> None:
        if b" /gone " in request:
            await peer.close()
        else:
            peer.send(upstream.answer)

    upstream.script = play
    began_ns, log = time.time_ns(), tmp_path / "access.log"
    gateway = await run(
        telemetry={
            "endpoint": collector.url,
            "metrics": True,
            "metrics_seconds": 1,
            "logs": True,
            "access_log": True,
        },
        access_log={"path": str(log)},
        management={"port": None},
        routes=[{"path": "/", "upstream": "api"}, {"path": "/gone", "upstream": "api"}],
    )
    client = await connect(gateway.port)
    for auth, path, status in ((acme.auth, "/a", 200), (acme.auth, "/gone", 502), (b"", "/a", 401)):
        assert (await client.ask(get(auth, SAMPLED if auth else "", path))).status == status
    expected = {"/ admitted": 1, "/gone admitted": 1, "/ token_missing": 1}
    await until(lambda: decisions(collector) == expected, PROCESS_SECONDS)
    await until(lambda: len(collector.trace(TRACE)) == 6, PROCESS_SECONDS)
    gateway.signal(SIGTERM)
    assert gateway.wait() == 0
    assert decisions(collector) == expected, "what was counted is in the last report, too"
    are_as_prometheus_has_them(collector, began_ns)
    are_as_they_were_written(collector, [json.loads(text) for text in log.read_text().splitlines()])


def are_as_prometheus_has_them(collector: Collector, began_ns: int) -> None:
    points = {point.name: point for point in collector.points}
    names = ("decisions_total", "redis_link_up", "take_seconds")
    counter, gauge, takes = (points[f"quotagate_{name}"] for name in names)
    assert (counter.kind, gauge.kind, takes.kind) == ("sum", "gauge", "histogram")
    assert began_ns <= counter.began_ns < counter.at_ns <= time.time_ns()
    assert (sum(takes.counts), len(takes.counts)) == (2, len(takes.bounds) + 1)
    assert {point.service for point in collector.points} == {"quotagate-gateway"}


def are_as_they_were_written(collector: Collector, access_log: list[dict[str, Any]]) -> None:
    [listening] = named(collector, "listening")
    assert (listening.severity, listening.level, listening.attributes["plane"]) == (9, "INFO", "gateway")
    [failed] = named(collector, "upstream failed")
    answered = {span.attributes.get("http.response.status_code"): span.id for span in collector.trace(TRACE)}
    assert (failed.severity, failed.trace, failed.span) == (13, TRACE, answered[502])
    assert "trace_id" not in failed.attributes
    sent = {line.attributes["request_id"]: line for line in collector.lines if line.message.startswith("GET ")}
    assert {line["request_id"] for line in access_log} == set(sent)
    for line in access_log:
        assert sent[line["request_id"]].trace == line.get("trace_id", "")
        assert sent[line["request_id"]].attributes["status"] == line["status"]


def test_other_settings_change_what_is_sent_and_counters_go_on(collector: Collector) -> None:
    counter = Family("quotagate_a_total", "counter", "A.")
    telemetry = SupervisorTelemetry(lambda: [counter.one(5)])
    settings = Telemetry.model_validate({"endpoint": collector.url, "metrics": True})
    telemetry.begin(settings)
    telemetry.begin(settings)
    telemetry.begin(Telemetry.model_validate({**settings.model_dump(), "service": "anew"}))
    telemetry.close()
    assert [point.service for point in collector.points] == ["quotagate-gateway", "anew"]
    assert len({point.began_ns for point in collector.points}) == 1, "counters count since the process began"


async def test_a_collector_that_hangs_changes_nothing_for_requests_and_what_it_lost_is_counted(
    run: StartProcess, connect: Connect, acme: Organization, collector: Collector, until: Until
) -> None:
    collector.status = 400
    logs_hang = {"logs": {"endpoint": f"{collector.url}/hangs/v1/logs"}}
    telemetry = {"endpoint": collector.url, "metrics": True, "metrics_seconds": 1, "logs": True, "signals": logs_hang}
    gateway = await run(telemetry=telemetry)
    client = await connect(gateway.port)
    for _ in range(5):
        assert (await client.ask(get(acme.auth, SAMPLED))).status == 200

    def lost() -> dict[str, float]:
        counted = gateway.metrics()
        prefix = 'quotagate_telemetry_dropped_total{signal="'
        return {name.removeprefix(prefix)[:-2]: value for name, value in counted.items() if name.startswith(prefix)}

    async with asyncio.timeout(PROCESS_SECONDS):
        while (now := await asyncio.to_thread(lost)).get("traces") != 5 or not now.get("metrics"):  # noqa: ASYNC110 - they are polled
            await asyncio.sleep(0.05)
    assert set(now) == {"traces", "metrics", "logs"}
    collector.answers.clear()
    began = time.monotonic()
    for _ in range(50):
        assert (await client.ask(get(acme.auth, SAMPLED))).status == 200
    assert time.monotonic() - began < PROCESS_SECONDS / 2
    collector.answers.set()
    gateway.signal(SIGTERM)
    assert gateway.wait() == 0


def test_a_line_of_the_access_log_is_sent_with_its_own_time() -> None:
    line = b'{"time":"2026-11-30T06:15:21.717Z","method":"GET","path":"/a","status":200,"meters":{"api_calls": 1}}\n'
    sent = line_of(line)
    assert sent.time_ns == 1_796_019_321_717_000_000
    assert dict(sent.event) == {
        "event": "GET /a",
        "level": "info",
        "method": "GET",
        "path": "/a",
        "status": 200,
        "meters": {"api_calls": 1},
    }


@pytest.mark.parametrize("changes", [{"access_log": {"enabled": False}}, {"telemetry": {"endpoint": None}}])
async def test_an_access_log_that_is_off_cannot_be_sent(
    start: StartGateway, collector: Collector, changes: dict[str, Any]
) -> None:
    telemetry = {"endpoint": collector.url, "access_log": True}
    with pytest.raises(ValueError, match=r"needs access_log\.enabled, and an endpoint"):
        await start(**{**changes, "telemetry": {**telemetry, **changes.get("telemetry", {})}})

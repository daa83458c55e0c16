"""Requests that are recorded become spans, which a collector gets by OTLP; the upstream's work belongs to the trace."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from tests.gateway.rig import (
    Connect,
    MakeOrganization,
    Organization,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
    closed_port,
)
from tests.otlp_receiver import Collector, collecting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as each:
        yield each


def get(auth: bytes, traceparent: str = "", path: str = "/v1/things?secret=1") -> bytes:
    line = f"Traceparent: {traceparent}\r\n" if traceparent else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: order-7\r\n{line}".encode() + auth + b"\r\n"


def sent(request: bytes) -> list[str]:
    return [value.decode() for value in re.findall(rb"(?im)^traceparent: ([^\r]*)\r$", request)]


def told(collector: Collector, **settings: Any) -> dict[str, Any]:
    return {"endpoint": collector.url, **settings}


async def test_a_request_of_a_recorded_trace_has_spans_of_itself_its_take_and_its_upstream(
    start: StartGateway, acme: Organization, upstream: Upstream, collector: Collector, until: Until, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    headers, attributes = {"authorization": "Bearer key"}, {"deployment.environment.name": "test"}
    telemetry = told(collector, headers=headers, attributes=attributes)
    gateway = await start(telemetry=telemetry, access_log={"path": str(log)})
    client, began_ns = await gateway.connect(), time.time_ns()
    assert (await client.ask(get(acme.auth, SAMPLED))).status == 200
    [traceparent] = sent(upstream.requests[-1])
    await until(lambda: len(collector.spans) == 3)
    of_request, take, forwarded = collector.trace(TRACE)
    assert (of_request.parent, take.parent, forwarded.parent) == (PARENT, of_request.id, of_request.id)
    assert traceparent == f"00-{TRACE}-{forwarded.id}-01", "what the upstream does has the gateway's span as its parent"
    assert len({of_request.id, take.id, forwarded.id}) == 3
    assert [span.kind for span in (of_request, take, forwarded)] == ["server", "client", "client"]
    assert began_ns <= of_request.began_ns <= take.began_ns < take.ended_ns
    assert take.ended_ns <= forwarded.began_ns + 2000
    assert forwarded.began_ns < forwarded.ended_ns <= of_request.ended_ns <= time.time_ns()
    [line] = [json.loads(text) for text in log.read_text().splitlines()]
    assert (line["trace_id"], line["span_id"]) == (TRACE, of_request.id)
    assert of_request.name == "GET /"
    assert of_request.attributes == {
        "http.request.method": "GET",
        "url.path": "/v1/things",
        "http.route": "/",
        "http.response.status_code": 200,
        "http.request.body.size": 0,
        "quotagate.bytes_out": line["bytes_out"],
        "quotagate.request_id": line["request_id"],
        "quotagate.correlation": "order-7",
        "quotagate.org": "acme",
        "quotagate.verdict": "admitted",
        "quotagate.charged.api_calls": 1,
    }
    assert forwarded.attributes["quotagate.upstream"] == "api"
    assert collector.resources[0]["service.name"] == "quotagate-gateway"
    assert collector.resources[0]["deployment.environment.name"] == "test"
    assert collector.headers[0]["authorization"] == "Bearer key"
    assert not any(span.failed for span in collector.spans)


async def test_the_flag_of_a_client_decides_and_what_is_not_recorded_goes_on_unchanged(
    start: StartGateway, acme: Organization, upstream: Upstream, collector: Collector, until: Until
) -> None:
    gateway = await start(telemetry=told(collector), access_log={"enabled": False})
    client = await gateway.connect()
    for traceparent in (UNSAMPLED, "", SAMPLED, UNSAMPLED, "00-nonsense", SAMPLED, f"00-{TRACE}-{PARENT}-0a"):
        assert (await client.ask(get(acme.auth, traceparent))).status == 200
    of_upstream = [sent(request) for request in upstream.requests]
    assert [of_upstream[each] for each in (0, 1, 3, 6)] == [[UNSAMPLED], [], [UNSAMPLED], [f"00-{TRACE}-{PARENT}-0a"]]
    await until(lambda: len(collector.spans) == 6)
    spans = [span.id for span in collector.spans if span.kind == "client" and span.name == "GET"]
    assert [each for [each] in (of_upstream[2], of_upstream[5])] == [f"00-{TRACE}-{span}-01" for span in spans]


async def test_a_ratio_decides_on_requests_without_a_trace_one_by_one(
    start: StartGateway, acme: Organization, upstream: Upstream, collector: Collector, until: Until
) -> None:
    gateway = await start(telemetry=told(collector, ratio=0.5))
    client = await gateway.connect()
    for _ in range(60):
        assert (await client.ask(get(acme.auth))).status == 200
    traces = [sent(request) for request in upstream.requests]
    recorded = [each[0] for each in traces if each]
    assert 10 <= len(recorded) <= 50, "of 60 by a ratio of a half; else once in a million runs"
    await until(lambda: len(collector.spans) == 3 * len(recorded))
    roots = [span for span in collector.spans if span.kind == "server"]
    assert {span.parent for span in roots} == {""}
    assert len({span.trace for span in roots}) == len(recorded)
    assert {each.split("-")[1] for each in recorded} == {span.trace for span in roots}
    assert all(span.trace.endswith(span.attributes["quotagate.request_id"]) for span in roots)


async def test_where_clients_are_not_followed_the_ratio_decides_and_their_traces_go_on(
    start: StartGateway, acme: Organization, upstream: Upstream, collector: Collector, until: Until
) -> None:
    gateway = await start(telemetry=told(collector, ratio=0.0, follow_clients=False))
    client = await gateway.connect()
    await client.ask(get(acme.auth, SAMPLED))
    assert sent(upstream.requests[-1]) == [SAMPLED]
    every = await start(telemetry=told(collector, ratio=1.0, follow_clients=False))
    await (await every.connect()).ask(get(acme.auth, UNSAMPLED))
    await until(lambda: len(collector.spans) == 3)
    assert {span.trace for span in collector.spans} == {TRACE}
    assert {span.parent for span in collector.spans if span.kind == "server"} == {PARENT}


async def test_a_refusal_is_recorded_and_an_upstream_that_fails_is_an_error(
    start: StartGateway, organization: MakeOrganization, collector: Collector, until: Until
) -> None:
    gateway = await start(telemetry=told(collector))
    empty = await organization("empty", 1)
    for auth, status in ((empty.auth, 200), (empty.auth, 429), (b"", 401)):
        assert (await gateway.ask(get(auth, SAMPLED))).status == status
    await until(lambda: len([span for span in collector.spans if span.kind == "server"]) == 3)
    roots = sorted((span for span in collector.spans if span.kind == "server"), key=lambda span: span.began_ns)
    assert [span.attributes["quotagate.verdict"] for span in roots] == ["admitted", "exhausted", "token_missing"]
    children = [[s.name for s in collector.trace(TRACE) if s.parent == root.id] for root in roots]
    assert children == [["take", "GET"], ["take"], []]
    assert not any(span.failed for span in roots), "a refusal is no fault"
    some, nowhere = await organization("some", 1), f"http://127.0.0.1:{closed_port()}"
    failing = await start(nowhere, telemetry=told(collector))
    assert (await failing.ask(get(some.auth, SAMPLED))).status == 502
    await until(lambda: any(span.failed for span in collector.spans if span.kind == "server"))
    of_request = next(span for span in collector.spans if span.kind == "server" and span.failed)
    assert of_request.attributes["error.type"] == "502"
    assert next(s for s in collector.spans if s.parent == of_request.id and s.name == "GET").failed


async def test_a_collector_that_refuses_or_hangs_keeps_no_request(
    start: StartGateway, acme: Organization, collector: Collector, until: Until
) -> None:
    collector.status = 400
    gateway = await start(telemetry=told(collector))
    client = await gateway.connect()
    for _ in range(3):
        assert (await client.ask(get(acme.auth, SAMPLED))).status == 200
    spans = gateway.worker.spans
    assert spans is not None
    await until(lambda: spans.dropped == 3)
    assert not gateway.worker.traces.recording.under_way, "what is over is forgotten"  # type: ignore[union-attr]  # telemetry is on


def test_without_an_endpoint_nothing_that_exports_is_imported() -> None:
    code = (
        "import sys, gateway.process.lifespan, gateway.client.client_connection;"
        "parts = ('httpx', 'common.otlp.export', 'gateway.observe.spans', 'gateway.observe.sent_logs');"
        "sys.exit(any(name.startswith(parts) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


async def test_processes_export_what_is_left_when_they_stop(
    run: StartProcess, connect: Connect, acme: Organization, collector: Collector
) -> None:
    gateway = await run(telemetry=told(collector))
    assert (await (await connect(gateway.port)).ask(get(acme.auth, SAMPLED))).status == 200
    gateway.signal(SIGTERM)
    assert gateway.wait() == 0
    assert [span.name for span in collector.trace(TRACE)] == ["GET /", "take", "GET"]

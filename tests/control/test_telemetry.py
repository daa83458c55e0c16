"""Metrics and logs of a control plane go to a collector by OTLP, beside its spans."""

import signal
import time
from pathlib import Path
from uuid import uuid4

import yaml

from control.settings.control_plane import Settings
from tests.control.running import started
from tests.otlp_receiver import Collector, collecting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PACKAGED = Path(__file__).parents[2] / "config" / "control.yaml"


def configured(directory: Path, collector: Collector) -> Path:
    settings = yaml.safe_load(PACKAGED.read_text())
    settings["telemetry"] = {"endpoint": collector.url, "metrics": True, "metrics_seconds": 1, "logs": True}
    file = directory / "control.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def test_a_control_plane_sends_spans_metrics_and_its_log_and_a_collector_that_hangs_keeps_no_request(
    settings: Settings, tmp_path: Path
) -> None:
    org = f"org-{uuid4().hex[:8]}"
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "order-7"}
    with collecting() as collector:
        with started(settings, tmp_path / "control.log", config=configured(tmp_path, collector)) as (process, client):

            def until(name: str, holds: object = None) -> None:
                deadline = time.monotonic() + 60
                while not any(point.name == name for point in list(collector.points)):
                    assert time.monotonic() < deadline, name
                    time.sleep(0.05)

            assert client.put(f"/v1/organizations/{org}", json={"name": org}, headers=headers).status_code == 201
            until("quotagate_control_lag_seconds")
            collector.answers.clear()
            for name in ("a", "b"):
                path = f"/v1/organizations/{org}-{name}"
                assert client.put(path, json={"name": name}, headers=headers).status_code == 201
            collector.answers.set()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        kinds = {point.name: point.kind for point in collector.points}
        assert kinds["quotagate_control_lag_seconds"] == "gauge"
        assert kinds["quotagate_control_responses_total"] == "sum"
        assert kinds["quotagate_control_request_seconds"] == "histogram"
        assert {point.service for point in collector.points} == {"quotagate-control"}
        lost = [p for p in collector.points if p.name == "quotagate_control_telemetry_dropped_total"]
        assert {point.labels["signal"] for point in lost} == {"traces", "metrics", "logs"}
        requests = [line for line in collector.lines if line.message == "request" and line.trace == TRACE]
        assert len(requests) == 3
        spans = {span.id for span in collector.trace(TRACE)}
        assert all(line.span in spans for line in requests), "a line names the span that it is of"
        assert {line.attributes["correlation_id"] for line in requests} == {"order-7"}
        assert {(line.severity, line.attributes["plane"]) for line in requests} == {(9, "control")}

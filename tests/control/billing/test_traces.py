"""A webhook, what follows from it and its publication are one trace, and so are a request of the API and its own."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from control import tracing
from control.settings.control_plane import Settings
from tests.control.billing.shop import Shop
from tests.gateway.rig import until
from tests.otlp_receiver import Collector, Received, collecting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as each:
        yield each


@pytest.fixture
def ratio() -> float:
    return 1.0


@pytest.fixture
def settings(settings: Settings, collector: Collector, ratio: float) -> Settings:
    telemetry = {"endpoint": collector.url, "ratio": ratio, "attributes": {"region": "test"}}
    return Settings.model_validate({**settings.model_dump(), "telemetry": telemetry})


def ancestry(collector: Collector, span: Received) -> list[str]:
    """The names of a span and of those above it."""
    names, by_id = [span.name], {each.id: each for each in collector.trace(span.trace)}
    while span.parent in by_id:
        span = by_id[span.parent]
        names.append(span.name)
    return names


async def test_a_webhook_its_converging_and_its_publication_are_one_trace(shop: Shop, collector: Collector) -> None:
    org = await shop.signed_up("starter")

    def published() -> list[Received]:
        spans = list(collector.spans)
        return [s for s in spans if s.name == "publish" and s.attributes["quotagate.org"] == org]

    def joined() -> bool:
        return any("converge" in ancestry(collector, span) for span in published())

    await until(joined)
    publish = next(span for span in published() if "converge" in ancestry(collector, span))
    way = ["publish", "converge", "process webhooks", "POST /api/webhooks/stripe"]
    await until(lambda: ancestry(collector, publish) == way)
    trace = collector.trace(publish.trace)
    received, processed = (next(s for s in trace if s.name == name) for name in (way[3], way[2]))
    assert (received.kind, processed.kind, received.service) == ("server", "consumer", "quotagate-control")
    assert received.attributes["http.response.status_code"] == 200
    assert processed.began_ns >= received.began_ns
    looked = [span for span in trace if span.name == "look at customer"]
    assert {span.parent for span in looked} <= {span.id for span in trace if span.name == "process webhooks"}
    assert looked
    assert publish.attributes["quotagate.version"] >= 1
    assert not any(span.failed for span in trace)


@pytest.mark.parametrize("ratio", [0.0])
async def test_a_request_of_a_recorded_trace_is_part_of_it_with_what_it_publishes_and_its_log(
    shop: Shop, collector: Collector
) -> None:
    await shop.admin.put("/v1/organizations/traced", json={"name": "Traced"})
    body = {"plan": "starter", "status": "active"}
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        for flag in ("00", "01"):
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flag}"}
            answer = await shop.admin.put("/v1/entitlements/traced", json=body, headers=headers)
            assert answer.status_code in (200, 201), answer.text
    await until(lambda: len(collector.spans) >= 2)
    request, publish = collector.trace(TRACE)
    assert (request.name, request.parent) == ("PUT /v1/entitlements/{org}", PARENT)
    assert (publish.name, publish.parent) == ("publish", request.id)
    assert request.attributes["quotagate.correlation"] == answer.headers["x-request-id"]
    of_requests: list[Any] = [line for line in lines if line["event"] == "request"]
    assert [line.get("trace_id") for line in of_requests] == [None, TRACE]
    assert of_requests[1]["span_id"] == request.id
    assert {span.trace for span in collector.spans} == {TRACE}, "by a ratio of 0 nothing else is recorded"


@pytest.mark.parametrize("ratio", [0.0])
async def test_events_that_one_look_deals_with_are_links_of_its_span(shop: Shop, collector: Collector) -> None:
    other = "5" * 32
    parents = (f"00-{TRACE}-{PARENT}-01", None, f"00-{other}-{PARENT}-01", "00-nonsense", f"00-{'6' * 32}-{PARENT}-00")
    with tracing.span("process webhooks", tracing.CONSUMER, parents=parents, entry=True) as span:
        assert span is not None
        assert (tracing.traceparent() or "").startswith(f"00-{TRACE}-")
    with tracing.span("nothing", parents=parents[4:], entry=True) as span:
        assert (span, tracing.traceparent()) == (None, None)
    with pytest.raises(KeyError), tracing.span("failed", parents=parents[:1]):
        json.loads("{}")["absent"]
    await until(lambda: len(collector.spans) == 2)
    processed, failed = collector.spans
    assert processed.links == (other, "6" * 32)
    assert (processed.failed, failed.failed) == (False, True)

"""What is written for OTLP by hand is what OpenTelemetry's SDK writes: its own messages read both."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace.span import NonRecordingSpan

from common.exposition import Family
from common.otlp.metrics import Report, Starts, encode_report
from common.otlp.records import LogLine, encode_line
from common.otlp.spans import CLIENT, CONSUMER, INTERNAL, SERVER, FinishedSpan, encode_span
from common.otlp.wire import Origin, Value

RESOURCE: Mapping[str, Value] = {"service.name": "quotagate-test", "service.version": "1.2"}
ORIGIN, SDK_RESOURCE, SCOPE = Origin(RESOURCE, "1.2"), Resource(RESOURCE), InstrumentationScope("quotagate", "1.2")
NS = 1_700_000_000_000_000_000
EXAMPLES = settings(max_examples=60)

ids, times = st.integers(1, 2**64 - 1), st.integers(0, 2**63)
values = st.one_of(
    st.text(max_size=200), st.booleans(), st.integers(-(2**63) + 1, 2**63 - 1), st.floats(allow_nan=False)
)
named = st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=6)
spans = st.builds(
    FinishedSpan,
    st.text(max_size=30),
    st.sampled_from((INTERNAL, SERVER, CLIENT, CONSUMER)),
    st.integers(1, 2**128 - 1),
    ids,
    st.one_of(st.just(0), ids),
    st.booleans(),
    times,
    times,
    named,
    st.one_of(st.none(), st.text(min_size=1, max_size=200)),
    st.lists(st.tuples(st.integers(1, 2**128 - 1), ids), max_size=3).map(tuple),
)


def context(trace_id: int, span_id: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, remote, TraceFlags(TraceFlags.SAMPLED))


def of_sdk(span: FinishedSpan) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        context=context(span.trace_id, span.span_id),
        parent=context(span.trace_id, span.parent_id, remote=span.remote) if span.parent_id else None,
        resource=SDK_RESOURCE,
        attributes=span.attributes,
        links=[Link(context(*link, remote=True)) for link in span.links],
        kind=SpanKind[span.kind],
        status=Status() if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=span.began_ns,
        end_time=span.ended_ns,
        instrumentation_scope=SCOPE,
    )


@EXAMPLES
@given(st.lists(spans, min_size=1, max_size=3))
def test_spans_are_written_as_the_sdk_writes_them(some: Sequence[FinishedSpan]) -> None:
    written = ExportTraceServiceRequest.FromString(ORIGIN.request(map(encode_span, some)))
    assert written == encode_spans([of_sdk(span) for span in some])


def test_a_text_that_is_longer_than_any_table_of_lengths_is_whole() -> None:
    span = FinishedSpan("n" * 300, SERVER, 1, 2, 0, False, 0, 0, {"long": "x" * 70_000, "a \ud800 b": "\udfff"})
    [read] = ExportTraceServiceRequest.FromString(ORIGIN.request([encode_span(span)])).resource_spans[0].scope_spans
    [written] = read.spans
    assert (len(written.name), len(written.attributes[0].value.string_value)) == (300, 70_000)
    assert (written.attributes[1].key, written.attributes[1].value.string_value) == ("a ? b", "?")


@EXAMPLES
@given(
    times,
    st.sampled_from(("debug", "info", "warning", "error", "critical")),
    st.text(max_size=300),
    st.dictionaries(st.text(st.characters(categories=["L"]), min_size=10, max_size=20), values, max_size=5),
    st.one_of(st.none(), st.tuples(st.integers(1, 2**128 - 1), ids)),
)
def test_lines_of_the_log_are_written_as_the_sdk_writes_them(
    time_ns: int, level: str, message: str, said: dict[str, Any], trace: tuple[int, int] | None
) -> None:
    event = {"event": message, "level": level, "timestamp": "2026-11-30", "_record": None, **said}
    around = None
    if trace is not None:
        event |= {"trace_id": f"{trace[0]:032x}", "span_id": f"{trace[1]:016x}"}
        around = set_span_in_context(NonRecordingSpan(SpanContext(*trace, False, TraceFlags(0))))
    numbers = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
    record = LogRecord(
        timestamp=time_ns,
        observed_timestamp=time_ns,
        context=around,
        severity_text=level.upper(),
        severity_number=SeverityNumber(numbers[level]),
        body=message,
        attributes=said,
    )
    written = ExportLogsServiceRequest.FromString(ORIGIN.request([encode_line(LogLine(time_ns, event))]))
    assert written == encode_logs([ReadableLogRecord(record, SDK_RESOURCE, SCOPE)])


def test_an_exception_has_the_names_of_the_conventions_and_what_is_no_number_or_text_is_shown() -> None:
    frames = [{"filename": "a.py", "lineno": 7, "name": "go"}]
    raised = [
        {"exc_type": "ValueError", "exc_value": "no", "frames": frames},
        {"exc_type": "OSError", "exc_value": "0"},
    ]
    event = {"event": "failed", "level": "error", "exception": raised, "path": {"a": [1, None]}, "kind": ValueError}
    request = ExportLogsServiceRequest.FromString(ORIGIN.request([encode_line(LogLine(NS, event))]))
    [record] = request.resource_logs[0].scope_logs[0].log_records
    said = {each.key: each.value for each in record.attributes}
    assert said["exception.type"].string_value == "ValueError"
    assert said["exception.message"].string_value == "no"
    assert said["exception.stacktrace"].string_value == 'File "a.py", line 7, in go\nValueError: no\nOSError: 0'
    [member] = said["path"].kvlist_value.values
    assert (member.key, [each.int_value for each in member.value.array_value.values]) == ("a", [1, 0])
    assert said["kind"].string_value == "<class 'ValueError'>"


def number(value: float, start_ns: int | None, **labels: str) -> NumberDataPoint:
    return NumberDataPoint(labels, start_ns, NS, value, [])  # type: ignore[arg-type]  # the SDK leaves it out of a gauge, too


def test_metrics_are_written_as_the_sdk_writes_them_with_prometheus_names() -> None:
    decisions = Family("quotagate_decisions_total", "counter", "Decisions.", ("route", "verdict"))
    seconds = Family("quotagate_take_seconds", "histogram", "From here to there.", ("route",))
    in_flight = Family("quotagate_in_flight", "gauge", "Under way.")
    metrics = [
        decisions.of({("/", "admitted"): 7, ("/", "exhausted"): 2}),
        seconds.bucketed(
            {("/",): ([("0.1", 2), ("0.5", 2), ("+Inf", 3)], 1.5), ("/x",): ([("0.1", 0), ("+Inf", 1)], 9)}
        ),
        in_flight.one(3),
        Family("quotagate_empty", "gauge", "Of nothing.").of({}),
    ]

    def histogram(bounds: Sequence[float], counts: Sequence[int], total: float, route: str) -> HistogramDataPoint:
        absent: Any = None
        labels = {"route": route}
        return HistogramDataPoint(labels, NS - 5, NS, sum(counts), total, counts, bounds, absent, absent, [])

    cumulative = AggregationTemporality.CUMULATIVE
    verdicts = (number(7.0, NS - 5, route="/", verdict="admitted"), number(2.0, NS - 5, route="/", verdict="exhausted"))
    takes = (histogram([0.1, 0.5], [2, 0, 1], 1.5, "/"), histogram([0.1], [0, 1], 9.0, "/x"))
    expected = [
        Metric("quotagate_decisions_total", "Decisions.", "", Sum(verdicts, cumulative, True)),
        Metric("quotagate_take_seconds", "From here to there.", "", Histogram(takes, cumulative)),
        Metric("quotagate_in_flight", "Under way.", "", Gauge([number(3.0, None)])),
    ]
    written = ExportMetricsServiceRequest.FromString(ORIGIN.request(encode_report(Report(NS, metrics), Starts(NS - 5))))
    data = MetricsData([ResourceMetrics(SDK_RESOURCE, [ScopeMetrics(SCOPE, expected, "")], "")])
    assert written == encode_metrics(data)


def test_a_counter_that_went_back_has_begun_anew_at_the_report_before() -> None:
    counter, starts, begun = Family("quotagate_a_total", "counter", "A."), Starts(10), []
    for time_ns, value in ((20, 5.0), (30, 6.0), (40, 1.0), (50, 2.0)):
        [metric] = encode_report(Report(time_ns, [counter.one(value)]), starts)
        request = ExportMetricsServiceRequest.FromString(ORIGIN.request([metric]))
        [point] = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
        begun.append(point.start_time_unix_nano)
    assert begun == [10, 10, 30, 30]

"""A collector: takes spans, metrics and logs by OTLP over HTTP, and reads them by OpenTelemetry's own messages."""

import gzip
import ssl
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Received:
    """A span. Ids are hex, of a parent "" where there is none."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    failed: bool
    links: tuple[str, ...]
    """Traces."""


@dataclass(frozen=True, slots=True)
class Point:
    """Of a metric: a number, or of a histogram the sum and the counts."""

    service: str
    name: str
    kind: str
    labels: dict[str, str]
    value: float
    began_ns: int
    """0 for a gauge."""
    at_ns: int
    counts: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """Of a log. Ids are hex, and "" where there are none."""

    service: str
    at_ns: int
    severity: int
    level: str
    message: str
    trace: str
    span: str
    attributes: dict[str, Any]


@dataclass(slots=True)
class Collector:
    url: str = ""
    status: int = 200
    """What it answers."""
    statuses: list[int] = field(default_factory=list)
    """What it answers before that."""
    answers: Event = field(default_factory=Event)
    """While it is cleared, it hangs."""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of each request."""
    spans: list[Received] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody may send it anything."""
        self.status = 401
        try:
            yield
        finally:
            self.status = 200

    def trace(self, trace: str) -> list[Received]:
        """Its spans, in the order in which they began."""
        return sorted((s for s in list(self.spans) if s.trace == trace), key=lambda s: (s.began_ns, -s.ended_ns))


@contextmanager
def collecting(certificate: Path | None = None) -> Iterator[Collector]:
    """`certificate`: by HTTPS, with this one."""
    collector, lock = Collector(), Lock()
    collector.answers.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            match self.headers["Content-Encoding"]:
                case "gzip":
                    body = gzip.decompress(body)
                case "deflate":
                    body = zlib.decompress(body)
            collector.answers.wait()
            with lock:
                read = _READERS.get(self.path.rpartition("/")[2])
                status = collector.statuses.pop(0) if collector.statuses else collector.status
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.paths.append(self.path)
                if status == 200 and read is not None:
                    read(collector, body)
            self.send_response(404 if read is None else status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        collector.url = collector.url.replace("http", "https")
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.answers.set()
        server.shutdown()
        server.server_close()
        thread.join()


def read_spans(collector: Collector, body: bytes) -> None:
    """Those of a request."""
    request = ExportTraceServiceRequest.FromString(body)
    for of_resource in request.resource_spans:
        resource = _values(of_resource.resource.attributes)
        collector.resources.append(resource)
        for of_scope in of_resource.scope_spans:
            collector.spans.extend(_received(resource, span) for span in of_scope.spans)


def _received(resource: dict[str, Any], span: Any) -> Received:
    return Received(
        resource["service.name"],
        span.name,
        span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _values(span.attributes),
        span.status.code == 2,
        tuple(link.trace_id.hex() for link in span.links),
    )


def _read_metrics(collector: Collector, body: bytes) -> None:
    for of_resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        resource = _values(of_resource.resource.attributes)
        collector.resources.append(resource)
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                collector.points.extend(_points(resource, metric))


def _points(resource: dict[str, Any], metric: Any) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    if kind != "gauge":
        assert data.aggregation_temporality == 2, "cumulative"
    if kind == "sum":
        assert data.is_monotonic
    for point in data.data_points:
        yield Point(
            resource["service.name"],
            metric.name,
            kind,
            _values(point.attributes),
            point.sum if kind == "histogram" else point.as_double,
            point.start_time_unix_nano,
            point.time_unix_nano,
            tuple(point.bucket_counts) if kind == "histogram" else (),
            tuple(point.explicit_bounds) if kind == "histogram" else (),
        )


def _read_logs(collector: Collector, body: bytes) -> None:
    for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        resource = _values(of_resource.resource.attributes)
        collector.resources.append(resource)
        for of_scope in of_resource.scope_logs:
            collector.lines.extend(
                Line(
                    resource["service.name"],
                    record.time_unix_nano,
                    record.severity_number,
                    record.severity_text,
                    record.body.string_value,
                    record.trace_id.hex(),
                    record.span_id.hex(),
                    _values(record.attributes),
                )
                for record in of_scope.log_records
            )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}


_READERS: dict[str, Callable[[Collector, bytes], None]] = {
    "traces": read_spans,
    "metrics": _read_metrics,
    "logs": _read_logs,
}

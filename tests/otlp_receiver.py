"""A collector: takes spans by OTLP over HTTP, and reads them by OpenTelemetry's own messages."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

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


@dataclass(slots=True)
class Collector:
    url: str = ""
    status: int = 200
    """What it answers."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of each request."""
    spans: list[Received] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)

    def trace(self, trace: str) -> list[Received]:
        """Its spans, in the order in which they began."""
        return sorted((s for s in list(self.spans) if s.trace == trace), key=lambda s: (s.began_ns, -s.ended_ns))


@contextmanager
def collecting() -> Iterator[Collector]:
    collector, lock = Collector(), Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            with lock:
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                if collector.status == 200 and self.path == "/v1/traces":
                    _read(collector, body)
            self.send_response(collector.status if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _read(collector: Collector, body: bytes) -> None:
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


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}

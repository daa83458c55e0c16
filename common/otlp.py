"""Spans on their way to a collector: OTLP over HTTP, by the exporter of OpenTelemetry's SDK, in a thread of its own.

Whoever has spans hands over facts, and the thread makes spans of them, so that no request waits for it. The SDK is an
optional extra, and nothing of it is imported unless an endpoint is set.
"""

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Event, Thread
from typing import Annotated, Final, Generic, NamedTuple, Protocol, TypeVar

import structlog
from pydantic import AfterValidator, Field, SecretStr

from common.settings_file import SettingsModel
from common.urls import split_url

log = structlog.get_logger()

PENDING_MAX: Final = 20_000  # facts that wait for a slow collector; what comes beyond is dropped, and counted
EXPORTED_AT_ONCE: Final = 512  # facts
EXPORT_SECONDS: Final = 10.0  # for one request to the collector, with its repetitions
LINGER_SECONDS: Final = 0.5  # what comes in that time goes in one request
CLOSE_SECONDS: Final = 3.0
INTERNAL, SERVER, CLIENT, CONSUMER = "INTERNAL", "SERVER", "CLIENT", "CONSUMER"
MISSING: Final = "the extra is not installed: pip install 'quotagate[telemetry]'"


def _installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _url(text: str) -> str:
    split_url(text, ("http", "https"))
    if not _installed():
        raise ValueError(f"cannot be used: {MISSING}")
    return text.rstrip("/")


class Collector(SettingsModel):
    """Where spans go by OTLP over HTTP. It needs the extra `telemetry`."""

    endpoint: Annotated[str, AfterValidator(_url)] | None = None
    """Of the collector, without a signal's path: https://otlp.example.com, http://127.0.0.1:4318. null: nowhere."""
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], SecretStr] = Field(default_factory=dict)
    """Of each request to it, such as its key."""
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share that is recorded of what has no parent: of 100 requests, 0.01 records one."""
    follow_clients: bool = True
    """Whether a client's flag decides. A client that is not yours can have all of its requests recorded; with false the
    ratio decides on each, and those that are recorded belong to the client's trace."""
    service: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """service.name; null: quotagate-gateway, quotagate-control."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """Of the resource, such as deployment.environment.name."""


Value = str | int | float | bool


class FinishedSpan(NamedTuple):
    """One span as it is exported. Ids are numbers."""

    name: str
    kind: str
    trace_id: int
    span_id: int
    parent_id: int
    """0: it has none."""
    remote: bool
    """The parent is another process' span."""
    began_ns: int
    """Since the epoch, like `ended_ns`."""
    ended_ns: int
    attributes: Mapping[str, Value]
    error: str | None = None
    """Why it failed."""
    links: tuple[tuple[int, int], ...] = ()
    """Trace and span of what it follows from, beside its parent."""


Fact = TypeVar("Fact", contravariant=True)


class Rendering(Protocol[Fact]):
    def __call__(self, fact: Fact, /) -> Iterable[FinishedSpan]:
        """The spans that a fact is. In the exporter's thread."""


class SpanExport(Generic[Fact]):
    """Of one process. Its thread begins with the first facts."""

    def __init__(self, settings: Collector, service: str, render: Rendering[Fact]) -> None:
        """Raises ImportError where the extra is not installed."""
        self._export = _exporting(settings, service)
        self._render = render
        self._queue: SimpleQueue[Sequence[Fact] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._closing = Event()
        # Each is counted by one thread only.
        self._queued = self._done = self._refused = self._failed = 0
        self._warned = False

    @property
    def dropped(self) -> int:
        """Facts whose spans no collector got."""
        return self._refused + self._failed

    def put(self, facts: Sequence[Fact]) -> None:
        """Hands facts over."""
        if self._queued - self._done + len(facts) > PENDING_MAX:
            self._refused += len(facts)
            if not self._warned:
                self._warned = True
                log.warning("spans are dropped: the collector does not take them", waiting=self._queued - self._done)
            return
        self._warned = False
        self._queued += len(facts)
        self._queue.put(facts)
        if self._thread is None:
            self._thread = Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Exports what waits; a collector that hangs keeps no process from ending."""
        if self._thread is not None:
            self._closing.set()
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            batches = [self._queue.get()]
            self._closing.wait(LINGER_SECONDS)
            while not self._queue.empty():
                batches.append(self._queue.get())
            ended = None in batches
            facts = [fact for batch in batches for fact in batch or ()]
            for start in range(0, len(facts), EXPORTED_AT_ONCE):
                some = facts[start : start + EXPORTED_AT_ONCE]
                if not self._exported(some):
                    self._failed += len(some)
                self._done += len(some)

    def _exported(self, facts: Sequence[Fact]) -> bool:
        """The exporter logs why it could not."""
        try:
            return self._export([span for fact in facts for span in self._render(fact)])
        except Exception:
            log.exception("spans could not be exported")
            return False


def _exporting(settings: Collector, service: str) -> Callable[[Sequence[FinishedSpan]], bool]:
    """What sends spans to the collector; whether it has taken them."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

    release = version("quotagate")
    resource = Resource(
        {
            "service.name": settings.service or service,
            "service.version": release,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            **settings.attributes,
        }
    )
    scope, flags, succeeded = InstrumentationScope("quotagate", release), TraceFlags(TraceFlags.SAMPLED), Status()
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.endpoint}/v1/traces",
        headers={name: value.get_secret_value() for name, value in settings.headers.items()},
        timeout=EXPORT_SECONDS,
    )

    def context(trace_id: int, span_id: int, *, remote: bool) -> SpanContext:
        return SpanContext(trace_id, span_id, remote, flags)

    def readable(span: FinishedSpan) -> ReadableSpan:
        parent = context(span.trace_id, span.parent_id, remote=span.remote) if span.parent_id else None
        return ReadableSpan(
            span.name,
            context=context(span.trace_id, span.span_id, remote=False),
            parent=parent,
            resource=resource,
            attributes=span.attributes,
            links=[Link(context(*link, remote=True)) for link in span.links],
            kind=SpanKind[span.kind],
            status=succeeded if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=scope,
        )

    def export(spans: Sequence[FinishedSpan]) -> bool:
        return exporter.export([readable(span) for span in spans]) is SpanExportResult.SUCCESS

    return export

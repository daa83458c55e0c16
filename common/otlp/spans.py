"""A span as it is handed over, and as it is written: opentelemetry/proto/trace/v1/trace.proto. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from common.otlp.wire import FIXED64, Value, attributes, sized, text

INTERNAL, SERVER, CLIENT, CONSUMER = "INTERNAL", "SERVER", "CLIENT", "CONSUMER"
_KINDS: Final = {INTERNAL: b"\x30\x01", SERVER: b"\x30\x02", CLIENT: b"\x30\x03", CONSUMER: b"\x30\x05"}
# Flags, of which the bits 8 and 9 say that it is known whether the parent is another process', and that it is.
_LOCAL, _REMOTE = b"\x85\x01\x00\x01\x00\x00", b"\x85\x01\x00\x03\x00\x00"
_LINK_FLAGS: Final = b"\x35\x00\x03\x00\x00"
_ERROR: Final = b"\x18\x02"
_NO_STATUS: Final = b"\x7a\x00"


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


def encode_span(span: FinishedSpan) -> bytes:
    parent_id, error = span.parent_id, span.error
    return b"\x0a\x10%b\x12\x08%b%b%b\x2a%b%b\x39%b\x41%b%b%b%b" % (
        span.trace_id.to_bytes(16, "big"),
        span.span_id.to_bytes(8, "big"),
        b"\x22\x08" + parent_id.to_bytes(8, "big") if parent_id else b"",
        _REMOTE if parent_id and span.remote else _LOCAL,
        text(span.name),
        _KINDS[span.kind],
        FIXED64(span.began_ns),
        FIXED64(span.ended_ns),
        attributes(b"\x4a", span.attributes),
        b"".join([_link(*link) for link in span.links]) if span.links else b"",
        _NO_STATUS if error is None else b"\x7a" + sized(b"\x12" + text(error) + _ERROR),
    )


def _link(trace_id: int, span_id: int) -> bytes:
    ids = b"\x0a\x10%b\x12\x08%b" % (trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"))
    return b"\x6a" + sized(ids + _LINK_FLAGS)

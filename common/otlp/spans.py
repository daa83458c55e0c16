"""A span as it is handed over, and as it is written: opentelemetry/proto/trace/v1/trace.proto. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from common.otlp.wire import FIXED64, Value, attributes, integer, sized, text

INTERNAL, SERVER, CLIENT, CONSUMER = "INTERNAL", "SERVER", "CLIENT", "CONSUMER"
_KINDS: Final = {INTERNAL: b"\x30\x01", SERVER: b"\x30\x02", CLIENT: b"\x30\x03", CONSUMER: b"\x30\x05"}
# Flags, of which the bits 8 and 9 say that it is known whether the parent is another process', and that it is.
_LOCAL, _REMOTE = b"\x85\x01\x00\x01\x00\x00", b"\x85\x01\x00\x03\x00\x00"
_LINK_FLAGS: Final = b"\x35\x00\x03\x00\x00"
_ERROR: Final = b"\x18\x02"
_NO_STATUS: Final = b"\x7a\x00"
ATTRIBUTE: Final = b"\x4a"


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


def common_part(name: str, kind: str, values: Mapping[str, Value], error: str | None, *, remote: bool) -> bytes:
    """What spans have in common, so that it can be written once: all but ids, times and attributes of their own.
    `remote`: they have a parent, which is another process' span."""
    return b"\x2a%b%b%b%b%b" % (
        text(name),
        _KINDS[kind],
        _REMOTE if remote else _LOCAL,
        attributes(ATTRIBUTE, values),
        _NO_STATUS if error is None else b"\x7a" + sized(b"\x12" + text(error) + _ERROR),
    )


def span_message(
    trace_id: bytes, span_id: bytes, parent_id: bytes, began_ns: int, ended_ns: int, own: bytes, common: bytes
) -> bytes:
    """A span. `own`: its own attributes and links; `common`: by `common_part`. Ids are 16 and 8 bytes, or none for no
    parent."""
    return b"\x0a\x10%b\x12\x08%b%b\x39%b\x41%b%b%b" % (
        trace_id,
        span_id,
        b"\x22\x08" + parent_id if parent_id else b"",
        FIXED64(began_ns),
        FIXED64(ended_ns),
        own,
        common,
    )


def text_attribute(name_key: bytes, value: bytes) -> bytes:
    """`name_key`: by `wire.key`; `value`: in UTF-8."""
    return ATTRIBUTE + sized(name_key + sized(b"\x0a" + sized(value)))


def number_attribute(name_key: bytes, value: int) -> bytes:
    return ATTRIBUTE + sized(name_key + sized(integer(value)))


def encode_span(span: FinishedSpan) -> bytes:
    parent_id = span.parent_id
    return span_message(
        span.trace_id.to_bytes(16, "big"),
        span.span_id.to_bytes(8, "big"),
        parent_id.to_bytes(8, "big") if parent_id else b"",
        span.began_ns,
        span.ended_ns,
        b"".join([_link(*link) for link in span.links]) if span.links else b"",
        common_part(span.name, span.kind, span.attributes, span.error, remote=span.remote and parent_id != 0),
    )


def _link(trace_id: int, span_id: int) -> bytes:
    ids = b"\x0a\x10%b\x12\x08%b" % (trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"))
    return b"\x6a" + sized(ids + _LINK_FLAGS)

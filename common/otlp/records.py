"""A line of the log as it is handed over, and as it is written: opentelemetry/proto/logs/v1/logs.proto. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from common.otlp.wire import FIXED64, any_value, attributes, sized, text

_SEVERITIES: Final = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_APART: Final = frozenset(("event", "level", "timestamp", "trace_id", "span_id", "exception"))
"""What has a field of its own, or other names."""
_HEX: Final = frozenset("0123456789abcdef")


class LogLine(NamedTuple):
    time_ns: int
    """Since the epoch."""
    event: Mapping[str, Any]
    """As structlog has it before it is written: `event` is the message, and what begins with an underscore is
    structlog's own."""


def encode_line(line: LogLine) -> bytes:
    event = line.event
    level = str(event.get("level", "info"))
    time = FIXED64(line.time_ns)
    return b"\x09%b\x10%c\x1a%b\x2a%b%b%b%b\x59%b" % (
        time,
        _SEVERITIES.get(level, 9),
        text(level.upper()),
        sized(any_value(str(event.get("event", "")))),
        attributes(b"\x32", dict(_said(event))),
        _identity(b"\x4a\x10", event.get("trace_id"), 16),
        _identity(b"\x52\x08", event.get("span_id"), 8),
        time,
    )


def _said(event: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in event.items():
        if name not in _APART and not name.startswith("_"):
            yield name, value
    if raised := event.get("exception"):
        yield from _exception(raised)


def _exception(raised: Any) -> Iterator[tuple[str, object]]:
    """By the names of the conventions; structlog has the outermost exception first."""
    if not isinstance(raised, list):
        yield "exception.stacktrace", str(raised)
        return
    yield "exception.type", str(raised[0].get("exc_type", ""))
    yield "exception.message", str(raised[0].get("exc_value", ""))
    yield "exception.stacktrace", "\n".join(line for each in raised for line in _trace(each))


def _trace(raised: Mapping[str, Any]) -> Iterator[str]:
    for frame in raised.get("frames", ()):
        yield f'File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}'
    yield f"{raised.get('exc_type')}: {raised.get('exc_value')}"


def _identity(tag: bytes, given: object, size: int) -> bytes:
    """An id that is written in hexadecimal; nothing where it is none."""
    if not isinstance(given, str) or len(given) != 2 * size or not _HEX.issuperset(given):
        return b""
    return tag + bytes.fromhex(given)

"""W3C Trace Context: a client's trace goes on as it is, and where the operator wants it, one is begun. Pure.

The gateway makes no spans, so it passes `traceparent` and `tracestate` on unchanged. A trace that it begins has the
request's id in its trace id, so that logs and traces name each other.
"""

import os
import re
from typing import Final

_VALID: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?[ \t]*"
)

_HEX: Final = b"0123456789abcdef"
_BYTES: Final = 55  # of all that version 00 has
_NO_TRACE, _NO_PARENT = b"0" * 32, b"0" * 16


def trace_id(fields: list[bytes]) -> bytes | None:
    """Of header lines (`Name: value` CRLF); None unless there is exactly one valid traceparent (section 3.2.2)."""
    values = [line.partition(b":")[2] for line in fields if _name(line) == b"traceparent"]
    return trace_id_of(values[0].strip()) if len(values) == 1 else None


def trace_id_of(traceparent: bytes) -> bytes | None:
    """Of the field's value; None unless it is valid."""
    if len(traceparent) == _BYTES and traceparent.startswith(b"00-") and traceparent.translate(None, _HEX) == b"---":
        parts = traceparent.split(b"-")
        if len(parts[1]) == 32 and len(parts[2]) == 16 and parts[1] != _NO_TRACE and parts[2] != _NO_PARENT:
            return parts[1]
    match = _VALID.fullmatch(traceparent)
    if match is None or (match[1] == b"00" and match[3] is not None):  # only later versions may say more
        return None
    return match[2]


def without_trace(fields: list[bytes]) -> list[bytes]:
    """What belongs to a traceparent that cannot be read is not passed on with another."""
    return [line for line in fields if _name(line) not in (b"traceparent", b"tracestate")]


def _name(line: bytes) -> bytes:
    return line[:12].lower().partition(b":")[0]


class Traces:
    """The traces that one worker begins. Request ids are unique over all workers, so their traces are."""

    def __init__(self, *, sampled: bool) -> None:
        self.id_prefix = os.urandom(6).hex().encode()
        self.line_start = b"traceparent: 00-" + self.id_prefix
        """Up to the request's id, which is the rest of the trace id: 20 hex digits."""
        # One for all: it need be unique in its trace only, and may not be zero.
        parent = int.from_bytes(os.urandom(8)) | 1
        self.line_end = b"-%016x-%02x\r\n" % (parent, sampled)

"""W3C Trace Context: a client's trace goes on, and where the operator wants it, one is begun. Pure.

A trace that the gateway begins has the request's id in its trace id, so that logs and traces name each other. Where
nothing is recorded the gateway makes no spans, and passes `traceparent` and `tracestate` on unchanged. A request that
is recorded has a span for itself and one for the exchange with the upstream, which is the parent of what happens there.
"""

import os
import re
from typing import Final, Protocol

_VALID: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?[ \t]*"
)

_HEX: Final = b"0123456789abcdef"
EVERY: Final = 1 << 32
_BYTES: Final = 55  # of all that version 00 has
_ODD: Final = frozenset((b"1", b"3", b"5", b"7", b"9", b"b", b"d", b"f"))
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
    """What the requests of a head have to do with traces, beyond the traceparent that they came with."""

    def line(self, request_id: bytes) -> bytes:
        """The traceparent that goes upstream: a header line, or nothing."""
        raise NotImplementedError

    def members(self, request_id: bytes, *, forwarded: bool) -> bytes:
        """Of the request's line in the access log."""
        raise NotImplementedError

    def recorded(self, request_id: bytes) -> bool:
        """Whether it becomes spans."""
        return False


class BegunTraces(Traces):
    """Those that one worker begins. Request ids are unique over all workers, so their traces are."""

    def __init__(self, *, sampled: bool) -> None:
        self.id_prefix = os.urandom(6).hex().encode()
        self.line_start = b"traceparent: 00-" + self.id_prefix
        """Up to the request's id, which is the rest of the trace id: 20 hex digits."""
        # One for all: it need be unique in its trace only, and may not be zero.
        parent = int.from_bytes(os.urandom(8)) | 1
        self.line_end = b"-%016x-%02x\r\n" % (parent, sampled)

    def line(self, request_id: bytes) -> bytes:
        return b"%b%b%b" % (self.line_start, request_id, self.line_end)

    def members(self, request_id: bytes, *, forwarded: bool) -> bytes:
        return b',"trace_id":"%b%b"' % (self.id_prefix, request_id) if forwarded else b""


class TakeTimes(Protocol):
    """When the newest takes that are answered were sent and answered, in monotonic seconds."""

    @property
    def answered_sent_at(self) -> float: ...
    @property
    def answered_at(self) -> float: ...


class Recording:
    """Which requests of one worker are recorded, and the ids of their spans. An id ends with the request's count, so
    none comes twice."""

    def __init__(self, takes: TakeTimes, ratio: float, *, told: bool) -> None:
        """`told`: upstreams are told of requests that are not recorded, too."""
        self.takes = takes
        self.bound = round(ratio * EVERY)
        self.told = told
        self.trace_prefix = os.urandom(6).hex().encode()
        server, take, upstream = sorted({os.urandom(3).hex().encode() for _ in range(64)} - {b"000000"})[:3]
        self.server, self.take, self.upstream = server, take, upstream
        """Six digits each."""
        self.taken: dict[bytes, tuple[float, float]] = {}
        """The takes of requests that went on, until those are over: sent and answered, in monotonic seconds."""

    def span_id(self, kind: bytes, request_id: bytes) -> bytes:
        return kind + request_id[10:]

    def note(self, request_id: bytes) -> None:
        """It goes on now, at the first time because its take was answered."""
        if request_id not in self.taken:
            self.taken[request_id] = (self.takes.answered_sent_at, self.takes.answered_at)


class RecordedTraces(Traces):
    """Of a head without a trace, or of one whose trace goes on with spans of the gateway's own."""

    def __init__(self, recording: Recording, traceparent: bytes | None, bound: int) -> None:
        """`traceparent`: valid. `bound`: of so many requests in 4,294,967,296 spans are made."""
        self.recording = recording
        self.bound = bound
        self.traceparent = traceparent
        self.trace_id = b"" if traceparent is None else traceparent[3:35]
        self.parent_id = b"" if traceparent is None else traceparent[36:52]

    def recorded(self, request_id: bytes) -> bool:
        return hash(request_id) % EVERY < self.bound

    def trace_id_for(self, request_id: bytes) -> bytes:
        return self.trace_id or self.recording.trace_prefix + request_id

    def line(self, request_id: bytes) -> bytes:
        recording = self.recording
        if not self.recorded(request_id):
            if self.traceparent is not None:
                return b"traceparent: %b\r\n" % self.traceparent
            if not recording.told:
                return b""
            return b"traceparent: 00-%b%b-%b-00\r\n" % (
                recording.trace_prefix,
                request_id,
                recording.span_id(recording.upstream, request_id),
            )
        recording.note(request_id)
        parent = recording.span_id(recording.upstream, request_id)
        return b"traceparent: 00-%b-%b-01\r\n" % (self.trace_id_for(request_id), parent)

    def members(self, request_id: bytes, *, forwarded: bool) -> bytes:
        recording = self.recording
        if not self.recorded(request_id):
            begun = forwarded and recording.told and self.traceparent is None
            return b',"trace_id":"%b%b"' % (recording.trace_prefix, request_id) if begun else b""
        span = b',"span_id":"%b"' % recording.span_id(recording.server, request_id)
        if self.traceparent is not None:
            return span  # the head's members have its trace
        return b',"trace_id":"%b%b"%b' % (recording.trace_prefix, request_id, span)


class TraceRules:
    """What becomes of the traces of clients, and of requests without one."""

    def applied(self, traceparent: bytes | None, fields: list[bytes]) -> tuple[Traces | None, list[bytes]]:
        """Of a head that goes upstream: None where its fields say it all, and those fields. `traceparent`: as it came,
        nothing valid where it came twice."""
        raise NotImplementedError

    def found(self, traceparent: bytes | None) -> Traces | None:
        """Of a head that went nowhere."""
        return None


class Begin(TraceRules):
    """A trace is begun for whoever brings none, and nothing is recorded."""

    def __init__(self, *, sampled: bool) -> None:
        self._traces = BegunTraces(sampled=sampled)

    def applied(self, traceparent: bytes | None, fields: list[bytes]) -> tuple[Traces | None, list[bytes]]:
        return (self._traces, without_trace(fields)) if trace_id(fields) is None else (None, fields)


class Record(TraceRules):
    """Requests are recorded: those that the client's flag says, or a share of all."""

    def __init__(self, recording: Recording, *, follow_clients: bool) -> None:
        self.recording = recording
        self._follow = follow_clients
        self._begun = RecordedTraces(recording, None, recording.bound)

    def applied(self, traceparent: bytes | None, fields: list[bytes]) -> tuple[Traces | None, list[bytes]]:
        traces = self.found(traceparent)
        if traces is None:
            return None, fields
        if traces is self._begun:
            return traces, without_trace(fields) if b"trace" in b"".join(fields).lower() else fields
        return traces, [line for line in fields if _name(line) != b"traceparent"]

    def found(self, traceparent: bytes | None) -> Traces | None:
        if traceparent is None or trace_id_of(traceparent) is None:
            return self._begun if self.recording.bound or self.recording.told else None
        if not self._follow:
            return RecordedTraces(self.recording, traceparent, self.recording.bound) if self.recording.bound else None
        # The flags' last bit: Trace Context section 3.2.2.5.
        return RecordedTraces(self.recording, traceparent, EVERY) if traceparent[54:55] in _ODD else None

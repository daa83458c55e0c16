"""W3C Trace Context: a client's trace goes on, and where the operator wants it, one is begun. Pure.

A trace that the gateway begins has the request's id in its trace id, so that logs and traces name each other. Where
nothing is recorded the gateway makes no spans, and passes `traceparent` and `tracestate` on unchanged. A request that
is recorded has a span for itself and one for the exchange with the upstream, which is the parent of what happens there.

Most requests are not recorded, so what is done for each is no more than to see that. Only the fields of one that is
recorded are looked through for its trace.
"""

import os
import re
from typing import Final, NamedTuple, Protocol

_VALID: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?[ \t]*"
)

_HEX: Final = b"0123456789abcdef"
HASHES: Final = 1 << 64
LOWEST_HASH: Final = -HASHES // 2
EVERY: Final = HASHES // 2
"""A bound above all hashes."""
_BYTES: Final = 55  # of all that version 00 has
_DASH: Final = 0x2D
_ODD: Final = frozenset((b"1", b"3", b"5", b"7", b"9", b"b", b"d", b"f"))
_NO_TRACE, _NO_PARENT = b"0" * 32, b"0" * 16


def trace_id(fields: list[bytes]) -> bytes | None:
    """Of header lines (`Name: value` CRLF); None unless there is exactly one valid traceparent (section 3.2.2)."""
    values = [line.partition(b":")[2] for line in fields if _name(line) == b"traceparent"]
    return trace_id_of(values[0].strip()) if len(values) == 1 else None


def trace_id_of(traceparent: bytes) -> bytes | None:
    """Of the field's value; None unless it is valid."""
    if len(traceparent) == _BYTES and traceparent.startswith(b"00-") and traceparent.translate(None, _HEX) == b"---":
        trace = traceparent[3:35]
        if traceparent[35] == _DASH and traceparent[52] == _DASH:
            return trace if trace != _NO_TRACE and traceparent[36:52] != _NO_PARENT else None
    match = _VALID.fullmatch(traceparent)
    if match is None or (match[1] == b"00" and match[3] is not None):  # only later versions may say more
        return None
    return match[2]


def without_trace(fields: list[bytes]) -> list[bytes]:
    """What belongs to a traceparent that cannot be read is not passed on with another."""
    return [line for line in fields if _name(line) not in (b"traceparent", b"tracestate")]


def _name(line: bytes) -> bytes:
    return line[:12].lower().partition(b":")[0]


class BegunTraces:
    """Those that one worker begins. Request ids are unique over all workers, so their traces are."""

    def __init__(self, *, sampled: bool) -> None:
        self.id_prefix = os.urandom(6).hex().encode()
        self.line_start = b"traceparent: 00-" + self.id_prefix
        """Up to the request's id, which is the rest of the trace id: 20 hex digits."""
        # One for all: it need be unique in its trace only, and may not be zero.
        parent = int.from_bytes(os.urandom(8)) | 1
        self.line_end = b"-%016x-%02x\r\n" % (parent, sampled)


class TakeTimes(Protocol):
    """When the newest takes that are answered were sent and answered, in monotonic seconds."""

    @property
    def answered_sent_at(self) -> float: ...
    @property
    def answered_at(self) -> float: ...


class UnderWay(NamedTuple):
    """A recorded request that went on."""

    trace_id: bytes
    sent_at: float
    """Its take was sent, in monotonic seconds, and answered."""
    answered_at: float


class Recording:
    """Which requests of one worker are recorded, and the ids of their spans. An id ends with the request's count, so
    none comes twice."""

    def __init__(self, takes: TakeTimes, ratio: float) -> None:
        self.takes = takes
        self.bound = LOWEST_HASH + round(ratio * HASHES)
        """Requests whose ids' hashes are below it are recorded."""
        self.trace_prefix = os.urandom(6).hex().encode()
        server, take, upstream = sorted({os.urandom(3).hex().encode() for _ in range(64)} - {b"000000"})[:3]
        self.server, self.take, self.upstream = server, take, upstream
        """Six digits each."""
        self.under_way: dict[bytes, UnderWay] = {}
        """By their ids, until they are over."""

    def span_id(self, kind: bytes, request_id: bytes) -> bytes:
        return kind + request_id[10:]

    def trace_of(self, request_id: bytes, traceparent: bytes | None) -> tuple[bytes, bytes]:
        """The ids of a recorded request's trace and of the span above its own, which is empty where there is none."""
        if traceparent is None or (trace := trace_id_of(traceparent)) is None:
            return self.trace_prefix + request_id, b""
        return trace, traceparent[36:52]

    def note(self, request_id: bytes, trace: bytes) -> None:
        """It goes on now, at the first time because its take was answered."""
        if request_id not in self.under_way:
            self.under_way[request_id] = UnderWay(trace, self.takes.answered_sent_at, self.takes.answered_at)


class Traces:
    """What the requests of a head have to do with traces, beyond the traceparent that they came with. One object is for
    many heads, since most of them have a traceparent of their own."""

    def __init__(self, begun: BegunTraces | None, recording: Recording | None = None, bound: int = LOWEST_HASH) -> None:
        """`begun`: the traces of requests that are not recorded, where those have none. `bound`: requests whose ids'
        hashes are below it become spans."""
        self._begun = begun
        self._recording = recording
        self._bound = bound

    def concerns(self, request_id: bytes) -> bool:
        """Whether there is more to do for this request than for others of its head."""
        return self._begun is not None or hash(request_id) < self._bound

    def recorded(self, request_id: bytes) -> bool:
        """Whether it becomes spans."""
        return hash(request_id) < self._bound

    def sent(self, fields: bytes, request_id: bytes, traceparent: bytes | None) -> bytes:
        """The header lines that go upstream: `fields`, and the traceparent that the request has of its own."""
        begun, recording = self._begun, self._recording
        if recording is None or not self.recorded(request_id):
            return fields if begun is None else b"%b%b%b%b" % (fields, begun.line_start, request_id, begun.line_end)
        trace, parent = recording.trace_of(request_id, traceparent)
        recording.note(request_id, trace)
        # A tracestate goes on with the trace that it belongs to.
        replaced = (b"traceparent",) if parent else (b"traceparent", b"tracestate")
        others = b"".join([line for line in fields.splitlines(True) if _name(line) not in replaced])
        span = recording.span_id(recording.upstream, request_id)
        return b"%btraceparent: 00-%b-%b-01\r\n" % (others, trace, span)

    def members(self, request_id: bytes, traceparent: bytes | None, *, forwarded: bool) -> bytes:
        """Of the request's line in the access log, beside the trace id of a valid traceparent."""
        begun, recording = self._begun, self._recording
        if recording is None or not self.recorded(request_id):
            return b',"trace_id":"%b%b"' % (begun.id_prefix, request_id) if forwarded and begun is not None else b""
        trace, parent = recording.trace_of(request_id, traceparent)
        span = b',"span_id":"%b"' % recording.span_id(recording.server, request_id)
        return span if parent else b',"trace_id":"%b"%b' % (trace, span)  # the head's members have a client's trace


class TraceRules:
    """What becomes of the traces of clients, and of requests without one. `trace`: the id of the client's, None where
    none is valid; `traceparent`: as it came, nothing valid where it came twice."""

    def applied(
        self, trace: bytes | None, traceparent: bytes | None, fields: list[bytes]
    ) -> tuple[Traces | None, list[bytes]]:
        """Of a head that goes upstream: None where its fields say it all, and those fields."""
        raise NotImplementedError

    def found(self, trace: bytes | None, traceparent: bytes | None) -> Traces | None:
        """Of a head that went nowhere."""
        return None


class Begin(TraceRules):
    """A trace is begun for whoever brings none, and nothing is recorded."""

    def __init__(self, *, sampled: bool) -> None:
        self._traces = Traces(BegunTraces(sampled=sampled))

    def applied(
        self, trace: bytes | None, traceparent: bytes | None, fields: list[bytes]
    ) -> tuple[Traces | None, list[bytes]]:
        return (self._traces, without_trace(fields)) if trace_id(fields) is None else (None, fields)


class Record(TraceRules):
    """Requests are recorded: those that the client's flag says, or a share of all."""

    def __init__(self, recording: Recording, *, follow_clients: bool, begin: bool) -> None:
        """`begin`: upstreams get a traceparent of requests that are not recorded, too."""
        self.recording = recording
        self._follow = follow_clients
        self._begin = begin
        self._all = Traces(None, recording, EVERY)
        self._some = Traces(None, recording, recording.bound) if recording.bound > LOWEST_HASH else None
        self._untraced = Traces(BegunTraces(sampled=False), recording, recording.bound) if begin else self._some
        """Those of requests without a trace."""

    def applied(
        self, trace: bytes | None, traceparent: bytes | None, fields: list[bytes]
    ) -> tuple[Traces | None, list[bytes]]:
        traces = self.found(trace, traceparent)
        return traces, without_trace(fields) if self._begin and traces is self._untraced else fields

    def found(self, trace: bytes | None, traceparent: bytes | None) -> Traces | None:
        if trace is None or traceparent is None:
            return self._untraced
        if not self._follow:
            return self._some
        # The flags' last bit: Trace Context section 3.2.2.5.
        return self._all if traceparent[54:55] in _ODD else None

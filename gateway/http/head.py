"""What one head says, parsed once: clients and upstreams repeat themselves.

On a kept-alive connection the header section of one request is most often byte for byte that of the request before;
only the request line differs. A section that llhttp has taken once is recognized by comparing bytes, and the request
needs no parser, no look-up of field names and no check of its token's text. Answers repeat within the second of their
Date in the same way. What is recognized is equal, so it cannot be read differently.
"""

import re
from dataclasses import dataclass

from gateway.http.trace import Traces, trace_id_of
from identity.claims import Claims

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""Of requests that are recognized or read by their lines; the parser knows more."""
REQUEST_LINE = re.compile(rb"(" + b"|".join(sorted(METHODS)) + rb") ([!-~]+) HTTP/1\.1")
SECTION_BYTES_MAX = 4096  # a longer one is parsed each time
ANSWERS_MAX = 256  # of one upstream, in each worker


class RequestHead:
    """The header section of a request. Filled field by field, then read only."""

    __slots__ = (
        "authorization",
        "carried",
        "carried_by",
        "chunked",
        "claims",
        "content_length",
        "dropped_bytes",
        "dropped_fields",
        "expects_continue",
        "fields",
        "forwarded",
        "forwarded_hosts",
        "hosts",
        "idempotency_key",
        "is_11",
        "keep_alive",
        "log_fields",
        "logged_for",
        "nominated",
        "origin",
        "request_id",
        "requested_method",
        "sent_as",
        "sent_for",
        "sent_whole",
        "takes_trailers",
        "trace_id",
        "trace_is_read",
        "traceparent",
        "traces",
        "trailer_bytes",
        "trailer_fields",
        "trailers",
        "transfer_codings",
        "upgrade",
        "upstream_fields",
        "verified_in",
    )

    def __init__(self) -> None:
        self.fields: list[bytes] = []  # header lines that go upstream as they came
        self.hosts: list[bytes] = []
        self.authorization: bytes | None = None
        self.content_length: int | None = None
        self.chunked = False
        self.transfer_codings = 0
        self.nominated: tuple[bytes, ...] = ()
        self.origin: bytes | None = None
        self.requested_method: bytes | None = None
        self.request_id: bytes | None = None  # the client's X-Request-Id
        self.idempotency_key: bytes | None = None  # as it came; nothing that is a key where it came twice
        self.traceparent: bytes | None = None  # as it came; none that can be read where it came twice
        self.trace_id: bytes | None = None  # once it is read
        self.trace_is_read = False
        self.expects_continue = False
        self.forwarded: list[tuple[bytes, bytes]] = []  # of a trusted proxy: name in lower case, value
        self.takes_trailers = False
        self.upgrade: tuple[bytes, ...] = ()  # the protocols that are asked for, in lower case
        self.trailers: list[bytes] = []  # lines of a chunked body's trailer section that go on
        self.trailer_fields = self.trailer_bytes = 0  # of all of them
        self.forwarded_hosts: tuple[bytes, ...] = ()  # X-Forwarded-Host, for forward-auth only
        self.keep_alive = self.is_11 = True
        self.dropped_fields = self.dropped_bytes = 0  # of the head, what is not in `fields`
        # Whom `authorization` speaks for, while `verified_in` is the verifier's epoch.
        self.claims: Claims | None = None
        self.verified_in = -1
        # Tokens that stand elsewhere, by the route's sources `carried_by`: in fields of their own, and in cookies.
        self.carried: tuple[tuple[bytes, ...], tuple[bytes, ...]] | None = None
        self.carried_by: object = None
        # Header lines as the upstream gets them, of whom it is told `sent_for`, on routes that send them as `sent_as`.
        self.upstream_fields: bytes | None = None
        self.traces: Traces | None = None  # if its requests may be recorded, or begin traces
        self.sent_for: object = None
        self.sent_whole = False  # nothing but X-Request-Id is behind those lines, nor before them
        self.sent_as: object = None
        # JSON members of the access log, with `logged_for` among them.
        self.log_fields: bytes | None = None
        self.logged_for: bytes | None = None

    def drop(self, name: bytes, value: bytes) -> None:
        """Counts a field that is not in `fields`."""
        self.dropped_fields += 1
        self.dropped_bytes += len(name) + len(value) + 4

    def add_traceparent(self, value: bytes) -> None:
        self.traceparent = value if self.traceparent is None else b""

    def client_trace(self) -> bytes | None:
        """The id of the client's trace; None without one traceparent that is valid. It is read once for a head."""
        if not self.trace_is_read and self.traceparent is not None:
            self.trace_id = trace_id_of(self.traceparent)
            self.trace_is_read = True
        return self.trace_id

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    @property
    def repeatable(self) -> bool:
        """Whether an equal section means an equal request: no body follows, and the connection goes on."""
        return (
            self.keep_alive
            and self.is_11
            and self.content_length is None
            and not self.transfer_codings
            and len(self.hosts) == 1
            and self.requested_method is None  # what a preflight asks for is not in its request line
        )


@dataclass(slots=True)
class AnswerHead:
    """The head of an upstream's complete, sized answer on a connection that goes on."""

    status: int
    reason: bytes
    fields: bytes
    raw: bytes
    """As the upstream wrote it, to the blank line."""
    whole_bytes: int
    """Of the answer, with its body."""
    start: bytes
    """As the client gets it, but for what the gateway adds."""
    dated: bool
    """Whether the upstream wrote a Date."""
    idle_seconds: float | None
    """For how long its connection may be used again after it; None where the answer says nothing of that."""

"""What one head says, parsed once: clients and upstreams repeat themselves.

On a kept-alive connection the header section of one request is most often byte for byte that of the request before;
only the request line differs. A section that llhttp has taken once is recognized by comparing bytes, and the request
needs no parser, no look-up of field names and no check of its token's text. Answers repeat within the second of their
Date in the same way. What is recognized is equal, so it cannot be read differently.
"""

import re
from dataclasses import dataclass

from quota.claims import Claims

REQUEST_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([!-~]+) HTTP/1\.1")
SECTION_BYTES_MAX = 4096  # a longer one is parsed each time
ANSWERS_MAX = 256  # of one upstream, in each worker


class RequestHead:
    """The header section of a request. Filled field by field, then read only."""

    # What most requests never set is set on the class: a head that is not repeated is made for one request.
    authorization: bytes | None = None
    content_length: int | None = None
    chunked = False
    transfer_codings = 0
    nominated: tuple[bytes, ...] = ()
    origin: bytes | None = None
    requested_method: bytes | None = None
    request_id: bytes | None = None
    """The client's X-Request-Id."""
    expects_continue = False
    keep_alive = True
    is_11 = True
    dropped_fields = 0
    dropped_bytes = 0
    """Of the head, what is not in `fields`."""
    claims: Claims | None = None
    """Whom `authorization` speaks for, while `verified_in` is the verifier's epoch."""
    verified_in = -1
    upstream_fields: bytes | None = None
    """Header lines as the upstream gets them, for `sent_for`."""
    sent_for: str | None = None
    log_fields: bytes | None = None
    """JSON members of the access log, for `logged_org`."""
    logged_org: str | None = None

    def __init__(self) -> None:
        self.fields: list[bytes] = []
        """Header lines that go upstream as they came."""
        self.hosts: list[bytes] = []

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    @property
    def repeatable(self) -> bool:
        """Whether an equal section means an equal request: no body follows, and the connection goes on."""
        return self.keep_alive and self.is_11 and self.content_length is None and not self.transfer_codings


@dataclass(slots=True)
class AnswerHead:
    """The head of an upstream's complete, sized answer on a connection that goes on."""

    status: int
    reason: bytes
    fields: bytes
    body_bytes: int

"""How the gateway refuses: which refusal follows from what, and how one is written. Pure."""

from gateway.decision.refusals import RefusalAnswer, RefusalText
from gateway.http.cors import Cors
from gateway.http.head import RequestHead
from gateway.routing.destinations import Unrouted
from gateway.settings.metering import Outcome
from gateway.upstream.connection.failures import Overloaded, TimedOut, Tripped, Unreachable, UpstreamFailure
from quota import problems

RETRY_SOON = b"Retry-After: 1\r\n"


def of_head(head: RequestHead, method: bytes) -> RefusalAnswer | None:
    """What of RFC 9112 the parser lets through and a proxy must not. The connection is closed after it, since the two
    sides may disagree on where this request ends."""
    if len(head.hosts) > 1 or (not head.hosts and head.is_11):
        return RefusalAnswer(problems.BAD_REQUEST, "There must be exactly one Host field.")  # section 3.2
    if head.transfer_codings > 1 or (head.transfer_codings and not head.chunked):  # section 6.1
        return RefusalAnswer(problems.NOT_IMPLEMENTED, "The only transfer coding understood is chunked.")
    if head.chunked and (head.content_length is not None or not head.is_11):  # sections 6.1, 6.3
        return RefusalAnswer(problems.BAD_REQUEST, "Transfer-Encoding excludes Content-Length, and needs HTTP/1.1.")
    if method == b"TRACE":
        return RefusalAnswer(problems.NOT_IMPLEMENTED, "TRACE would show the client what a proxy added.")
    return None


def of_unrouted(destination: Unrouted) -> RefusalAnswer:
    if destination.allow is not None:
        allow = b"Allow: %b\r\n" % destination.allow
        return RefusalAnswer(problems.METHOD_NOT_ALLOWED, "The path exists for other methods only.", allow)
    return RefusalAnswer(problems.NO_ROUTE, "No route of this gateway holds the path.")


def of_long_body(limit: int) -> RefusalAnswer:
    return RefusalAnswer(problems.PAYLOAD_TOO_LARGE, f"The request body exceeds the limit of {limit} bytes.")


def of_stop() -> RefusalAnswer:
    return RefusalAnswer(problems.OVERLOADED, "The gateway stops; try again.", RETRY_SOON)


def outcome_of(failure: UpstreamFailure, *, resent: bool) -> Outcome:
    """Of a request that has no answer, for the route's rules on refunds."""
    if isinstance(failure, TimedOut):
        return "timeout"
    if isinstance(failure, (Tripped, Overloaded, Unreachable)) and not resent:
        return "connect_failure"
    return "invalid_answer"


def of_failure(failure: UpstreamFailure, *, charged: bool) -> RefusalAnswer:
    """Of the same, but for an open circuit breaker. `charged`: something may stay charged."""
    end = "." if charged else "; nothing was charged."
    if isinstance(failure, TimedOut):
        return RefusalAnswer(problems.UPSTREAM_TIMEOUT, f"The upstream did not answer in time{end}")
    if isinstance(failure, Overloaded):
        return RefusalAnswer(problems.OVERLOADED, f"Too many requests wait for the upstream{end}", RETRY_SOON)
    if isinstance(failure, Unreachable):
        return RefusalAnswer(problems.UPSTREAM_UNREACHABLE, f"The upstream cannot be reached{end}")
    return RefusalAnswer(problems.UPSTREAM_INVALID, f"The upstream gave no valid answer{end}")


def fields_and_body(refusal: RefusalAnswer, request_id: bytes, cors: Cors, origin: bytes | None) -> tuple[bytes, bytes]:
    """`request_id`: as the X-Request-Id of the answer has it."""
    body = problems.body(refusal.problem, refusal.detail, request_id.decode(), refusal.extensions)
    return b"Content-Type: application/problem+json\r\n%b%b" % (refusal.fields, readable_by(cors, origin)), body


def readable_by(cors: Cors, origin: bytes | None) -> bytes:
    """The lines that let a page of that origin read the refusal."""
    return cors.unasked if origin is None else cors.lines(origin)


def prepared(text: RefusalText, date_field: bytes, cors_lines: bytes, request_id: bytes) -> bytes:
    """The whole answer, of a refusal whose text was made before. `cors_lines`: those of `readable_by`."""
    return b"%b%bContent-Length: %d\r\n%b%bX-Request-Id: %b\r\n\r\n%b%b%b" % (
        text.start,
        date_field,
        len(text.body_before) + len(request_id) + len(text.body_after),
        text.fields,
        cors_lines,
        request_id,
        text.body_before,
        request_id,
        text.body_after,
    )

"""A recorded request as it is when it is over, and its spans as they are written. Pure.

Most of a span is that of many others: names, kind, verdict, status. It is written once, and each span adds its ids, its
times and what it says of its own request. Three spans of FinishedSpan took three times as long.
"""

from binascii import unhexlify
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from common.otlp.spans import CLIENT, SERVER, common_part, number_attribute, span_message, text_attribute
from common.otlp.wire import Value, key
from gateway.http.trace import Recording
from gateway.observe.record import CLIENT_LEFT, SHADOW

PARTS_MAX: Final = 1024  # routes, methods, verdicts and statuses as they occur together

_PATH: Final = key("url.path")
_BODY_SIZE: Final = key("http.request.body.size")
_BYTES_OUT: Final = key("quotagate.bytes_out")
_REQUEST_ID: Final = key("quotagate.request_id")
_ORG: Final = key("quotagate.org")
_API_KEY: Final = key("quotagate.key")
_CORRELATION: Final = key("quotagate.correlation")
_FIRST_BYTE_US: Final = key("quotagate.upstream.first_byte_us")


class Take(NamedTuple):
    """Monotonic seconds."""

    sent_at: float
    answered_at: float


class RecordedRequest(NamedTuple):
    """What is known of one when it is over. Times are monotonic nanoseconds, 0 for never."""

    id: bytes
    trace_id: bytes
    parent_id: bytes
    """Of the client's span; empty where there is none."""
    method: bytes
    path: bytes
    route: str | None
    upstream: str | None
    org: str | None
    key: str | None
    correlation: bytes | None
    verdict: bytes
    status: int
    aborted: bool
    charges: Mapping[str, int]
    bytes_in: int
    bytes_out: int
    began_ns: int
    forwarded_ns: int
    headed_ns: int
    ended_ns: int
    resent: bool
    take: Take | None


def encoded(request: RecordedRequest, recording: Recording, clock_ns: int) -> list[bytes]:
    """Its spans. `clock_ns`: from monotonic time to that since the epoch."""
    request_id, verdict, status = request.id, request.verdict, request.status
    trace_id = unhexlify(request.trace_id)
    span_id = unhexlify(recording.span_id(recording.server, request_id))
    began_ns, ended_ns = request.began_ns + clock_ns, request.ended_ns + clock_ns
    method = request.method.decode("latin-1")
    remote = bool(request.parent_id)
    spans = [
        span_message(
            trace_id,
            span_id,
            unhexlify(request.parent_id),
            began_ns,
            ended_ns,
            _of_its_own(request),
            _request_part(method, request.route, verdict, status, request.aborted, remote),
        )
    ]
    if (take := request.take) is not None:
        spans.append(
            span_message(
                trace_id,
                unhexlify(recording.span_id(recording.take, request_id)),
                span_id,
                max(int(take.sent_at * 1e9) + clock_ns, began_ns),
                int(take.answered_at * 1e9) + clock_ns,
                b"",
                _take_part(verdict),
            )
        )
    if request.forwarded_ns:
        headed_ns = request.headed_ns
        first_byte_us = (headed_ns - request.forwarded_ns) // 1000
        spans.append(
            span_message(
                trace_id,
                unhexlify(recording.span_id(recording.upstream, request_id)),
                span_id,
                request.forwarded_ns + clock_ns,
                ended_ns,
                number_attribute(_FIRST_BYTE_US, first_byte_us) if headed_ns else b"",
                _exchange_part(method, request.upstream or "", status, headed_ns != 0, request.resent),
            )
        )
    return spans


def _of_its_own(request: RecordedRequest) -> bytes:
    """What no other request need have."""
    path, correlation, charges = request.path, request.correlation, request.charges
    parts = [
        text_attribute(_PATH, path if path.isascii() else path.decode("utf-8", "backslashreplace").encode()),
        number_attribute(_BODY_SIZE, request.bytes_in),
        number_attribute(_BYTES_OUT, request.bytes_out),
        text_attribute(_REQUEST_ID, request.id),
    ]
    if request.org is not None:
        parts.append(text_attribute(_ORG, request.org.encode("utf-8", "replace")))
    if request.key is not None:
        parts.append(text_attribute(_API_KEY, request.key.encode("utf-8", "replace")))
    if correlation is not None:
        parts.append(text_attribute(_CORRELATION, correlation.decode("latin-1").encode()))
    for meter, units in charges.items():
        parts.append(number_attribute(key(f"quotagate.charged.{meter}"), units))
    return b"".join(parts)


@lru_cache(PARTS_MAX)
def _request_part(method: str, route: str | None, verdict: bytes, status: int, aborted: bool, remote: bool) -> bytes:
    attributes: dict[str, Value] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "quotagate.verdict": verdict.removeprefix(SHADOW).decode(),
    }
    if route is not None:
        attributes["http.route"] = route
    if verdict.startswith(SHADOW):
        attributes["quotagate.shadow"] = True
    if aborted:
        attributes["quotagate.aborted"] = True
    failed = status >= 500
    if failed:
        attributes["error.type"] = str(status)
    name = method if route is None else f"{method} {route}"
    return common_part(name, SERVER, attributes, f"answered with {status}" if failed else None, remote=remote)


@lru_cache(PARTS_MAX)
def _take_part(verdict: bytes) -> bytes:
    attributes: dict[str, Value] = {
        "db.system.name": "redis",
        "db.operation.name": "take",
        "quotagate.verdict": verdict.decode(),
    }
    return common_part("take", CLIENT, attributes, None, remote=False)


@lru_cache(PARTS_MAX)
def _exchange_part(method: str, upstream: str, status: int, headed: bool, resent: bool) -> bytes:
    attributes: dict[str, Value] = {"http.request.method": method, "quotagate.upstream": upstream}
    if headed:
        attributes["http.response.status_code"] = status
    if resent:
        attributes["http.request.resend_count"] = 1
    error = None if headed or status == CLIENT_LEFT else "there was no answer"
    if status >= 500 and headed:
        error = f"the upstream answered with {status}"
    return common_part(method, CLIENT, attributes, error, remote=False)

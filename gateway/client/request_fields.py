"""What each field of a request says, kept in its head. Pure."""

from gateway.http import headers
from gateway.http.head import RequestHead


def read_special_field(head: RequestHead, kind: int, name: bytes, value: bytes, trusted: bool) -> None:
    """A field that means something to the gateway. `kind`: what `classify_request` says of the name. `trusted`:
    whether what this peer says of its clients is believed."""
    if kind == headers.CONTENT_LENGTH:
        head.content_length = int(value)  # llhttp let digits through, once
        return
    if kind == headers.CONNECTION:  # the most frequent
        head.drop(name, value)
        head.nominated += headers.connection_tokens(value)
        return
    if kind in (headers.EXPECT, headers.ORIGIN, headers.ACCESS_CONTROL_REQUEST_METHOD, headers.IDEMPOTENCY_KEY):
        head.fields.append(b"%b: %b\r\n" % (name, value))
    else:
        head.drop(name, value)
    if kind == headers.TRANSFER_ENCODING:
        head.transfer_codings += 1
        head.chunked = value.lower() == b"chunked"
    elif kind == headers.EXPECT:
        head.expects_continue = value.lower() == b"100-continue"
    elif kind == headers.ORIGIN:
        head.origin = value
    elif kind == headers.ACCESS_CONTROL_REQUEST_METHOD:
        head.requested_method = value
    elif kind == headers.IDEMPOTENCY_KEY:
        head.idempotency_key = value.strip(b" \t") if head.idempotency_key is None else b""
    elif kind == headers.REQUEST_ID:
        head.request_id = headers.correlation_id(value)
    elif kind == headers.FORWARDED:
        if trusted:
            head.forwarded.append((name.lower(), value))
        if name.lower() == b"x-forwarded-host":
            head.forwarded_hosts += (value,)
    elif kind == headers.UPGRADE:
        head.upgrade += headers.connection_tokens(value)
    elif kind == headers.TE:
        head.takes_trailers = head.takes_trailers or headers.accepts_trailers(value)


def read_trailer(head: RequestHead, name: bytes, value: bytes) -> None:
    """A field behind a chunked body. Most are dropped, and all are counted."""
    head.trailer_fields += 1
    head.trailer_bytes += len(name) + len(value) + 4
    if headers.trailer_goes_on(name, head.nominated):
        head.trailers.append(b"%b: %b\r\n" % (name, value))


def is_too_large(head: RequestHead, target: bytes, bytes_max: int, fields_max: int) -> bool:
    if len(head.fields) + len(head.hosts) + head.dropped_fields > fields_max:
        return True
    return len(target) + head.dropped_bytes + sum(map(len, head.fields + head.hosts)) > bytes_max

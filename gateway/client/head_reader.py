"""Whole request heads, read line by line and without a call for each field.

Clients put something new into every head (a path, a trace, a length), and repeat its other lines. What a line means is
remembered by its bytes, for all connections of a worker. Lines that go upstream go as they came.

llhttp stays the judge: a head that is not understood here to its last byte is left to it. What is read here means the
same there (tests/gateway/test_head_reader.py).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.client.request_fields import read_special_field
from gateway.http import headers
from gateway.http.head import METHODS, RequestHead
from gateway.http.headers import classify_request
from gateway.http.lines import GOES_ON, VISIBLE, FieldLines

_VERSION: Final = b"HTTP/1.1\r\n"
_ACCEPTED: Final = frozenset(
    (
        headers.HOST,
        headers.AUTHORIZATION,
        headers.FORWARDED,
        headers.ORIGIN,
        headers.REQUEST_ID,
        headers.IDEMPOTENCY_KEY,
        headers.TRACEPARENT,
    )
)
"""Further kinds of fields that are read here. The others change how a message is read."""


class ReadHead(NamedTuple):
    method: bytes
    target: bytes
    head: RequestHead


class HeadReader:
    """One for all connections of a worker."""

    __slots__ = ("lines",)

    def __init__(self, secret_fields: Iterable[bytes] = ()) -> None:
        """`secret_fields`: the names of further fields that carry tokens, in lower case."""
        self.lines = FieldLines(classify_request, _ACCEPTED, secret_fields)

    def read(self, data: bytes, at: int, end: int, fields_max: int, trusted: bool) -> ReadHead | None:
        """The head whose lines are `data[at:end]`, without the empty one. None: the parser is to judge it, as it does
        any with more fields than `fields_max`. `trusted`: whether what this peer says of its clients is believed."""
        lines = data[at:end].splitlines(True)
        words = lines[0].split(b" ")
        if len(words) != 3 or len(lines) > fields_max + 1:
            return None
        method, target, version = words
        if version != _VERSION or method not in METHODS:
            return None
        if not target.startswith(b"/") or target.translate(None, VISIBLE):
            return None
        head = RequestHead()
        fields, known = head.fields, self.lines.known
        del lines[0]
        for line in lines:
            meaning = known.get(line) or self.lines.read(line)
            if meaning is GOES_ON:
                fields.append(line)
                continue
            if meaning is None:
                return None
            kind, name, value = meaning
            if kind == headers.HOST:
                head.hosts.append(value)
            elif kind == headers.AUTHORIZATION:
                if head.authorization is not None:
                    return None
                head.authorization = value
                fields.append(line)
            elif kind == headers.TRACEPARENT:
                head.add_traceparent(value)
                fields.append(line)
            elif kind == headers.CONTENT_LENGTH:
                if head.content_length is not None:
                    return None
                head.content_length = int(value)
            else:
                read_special_field(head, kind, name, value, trusted)
        return ReadHead(method, target, head) if len(head.hosts) == 1 else None

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

REMEMBERED_MAX: Final = 4096
REMEMBERED_OF_NAME_MAX: Final = 128  # a field that has more values than that has a new one each time
REMEMBERED_BYTES_MAX: Final = 512
SECRETS: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"))
"""Fields that are not remembered, since a token does not stay in memory."""

VISIBLE: Final = bytes(range(0x21, 0x7F))
_BLANK: Final = 0x20
_VALUE: Final = b"\t " + VISIBLE + bytes(range(0x80, 0x100))
_SIZES: Final = frozenset(b"0123456789")
_SIZE_DIGITS_MAX: Final = 15
_VERSION: Final = b"HTTP/1.1\r\n"
_ACCEPTED: Final = frozenset(
    (
        headers.DROP,
        headers.HOST,
        headers.AUTHORIZATION,
        headers.CONTENT_LENGTH,
        headers.CONNECTION,
        headers.FORWARDED,
        headers.ORIGIN,
        headers.REQUEST_ID,
        headers.IDEMPOTENCY_KEY,
        headers.TRACEPARENT,
    )
)
"""Kinds of fields that are read here beside those that only go on. The others change how a message is read."""


class FieldLine(NamedTuple):
    """What one line says."""

    kind: int
    name: bytes
    value: bytes


_GOES_ON: Final = FieldLine(headers.FORWARD, b"", b"")
"""The meaning of all lines that only go on."""


class ReadHead(NamedTuple):
    method: bytes
    target: bytes
    head: RequestHead


class HeadReader:
    """One for all connections of a worker."""

    __slots__ = ("_count_by_name", "_remembered", "_secrets")

    def __init__(self, secret_fields: Iterable[bytes] = ()) -> None:
        """`secret_fields`: the names of further fields that carry tokens, in lower case."""
        self._secrets = SECRETS.union(secret_fields)
        self._remembered: dict[bytes, FieldLine] = {}
        self._count_by_name: dict[bytes, int] = {}

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
        fields, remembered = head.fields, self._remembered
        del lines[0]
        for line in lines:
            meaning = remembered.get(line) or self._meaning(line)
            if meaning is _GOES_ON:
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

    def _meaning(self, line: bytes) -> FieldLine | None:
        """Of a line that is not remembered. None: it is not understood."""
        name, _, value = line.partition(b": ")
        # What is left is the end of the line, and the value has no blanks around it.
        if value.translate(None, _VALUE) != b"\r\n" or value[0] <= _BLANK or value[-3] <= _BLANK:
            return None
        kind = classify_request(name)
        if kind == headers.FORWARD:
            meaning = _GOES_ON
        else:
            value = value[:-2]
            if kind not in _ACCEPTED or not _is_plain(kind, name, value):
                return None
            meaning = FieldLine(kind, name, value)
        if kind != headers.AUTHORIZATION and len(line) <= REMEMBERED_BYTES_MAX:
            count = self._count_by_name.get(name, 0)
            if count < REMEMBERED_OF_NAME_MAX and name.lower() not in self._secrets:
                self._remember(line, name, meaning, count)
        return meaning

    def _remember(self, line: bytes, name: bytes, meaning: FieldLine, count: int) -> None:
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
            self._count_by_name.clear()
            count = 0
        self._remembered[line] = meaning
        self._count_by_name[name] = count + 1


def _is_plain(kind: int, name: bytes, value: bytes) -> bool:
    """Whether the field leaves the framing and the connection as they are."""
    if kind == headers.CONTENT_LENGTH:
        return len(value) <= _SIZE_DIGITS_MAX and _SIZES.issuperset(value)
    if kind == headers.CONNECTION:
        return value.lower() == b"keep-alive"
    return kind != headers.DROP or name.lower() != b"proxy-connection"  # which llhttp takes for Connection

"""OTLP on the wire: Protocol Buffers as its messages have them, and the request that they travel in. Pure.

Field numbers are those of opentelemetry-proto 1, whose own classes read in tests what is written here. A tag is a
field's number and the form of its value in one byte: number * 8 + 0 for a varint, 1 for eight bytes, 2 for what has a
length.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

SIZES_MAX: Final = 4096  # lengths that are written once and for all
NAMES_MAX: Final = 1024  # the code's, so they are few
INT64_MAX: Final = (1 << 63) - 1

FIXED64: Final = Struct("<Q").pack
"""Of a time in nanoseconds since the epoch, or of a count."""
DOUBLE: Final = Struct("<d").pack

Value = str | int | float | bool


def varint(number: int) -> bytes:
    """Of a number that is not negative."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


_SIZES: Final = [varint(size) for size in range(SIZES_MAX)]


def sized(data: bytes) -> bytes:
    """With its length before it."""
    size = len(data)
    return (_SIZES[size] if size < SIZES_MAX else varint(size)) + data


def text(words: str) -> bytes:
    """A text with its length. What is no text in UTF-8 is replaced, or a collector would refuse the whole request."""
    return sized(words.encode("utf-8", "replace"))


def integer(value: int) -> bytes:
    """An AnyValue of a number; what has no room in 64 bits is a text."""
    if 0 <= value < SIZES_MAX:
        return b"\x18" + _SIZES[value]
    if not -INT64_MAX <= value <= INT64_MAX:
        return b"\x0a" + text(str(value))
    return b"\x18" + varint(value if value >= 0 else value + (1 << 64))


def any_value(value: object) -> bytes:
    """An AnyValue. What is neither text, number nor a list or mapping of them is written as Python shows it."""
    if isinstance(value, str):
        return b"\x0a" + text(value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, float):
        return b"\x21" + DOUBLE(value)
    if value is None:
        return b""
    if isinstance(value, Mapping):
        return b"\x32" + sized(attributes(b"\x0a", {str(key): each for key, each in value.items()}))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return b"\x2a" + sized(b"".join([b"\x0a" + sized(any_value(each)) for each in value]))
    return b"\x0a" + text(str(value))


@lru_cache(NAMES_MAX)
def key(name: str) -> bytes:
    """Of a KeyValue, up to its value's length."""
    return b"\x0a" + text(name) + b"\x12"


def attribute(name: str, value: object) -> bytes:
    """A KeyValue."""
    return key(name) + sized(any_value(value))


def attributes(tag: bytes, values: Mapping[str, object]) -> bytes:
    """Those of a message, whose field for them has this tag."""
    return b"".join([tag + sized(attribute(name, value)) for name, value in values.items()])


class Origin:
    """Who sends it all: the resource, and the scope that has the name and release of this software."""

    def __init__(self, resource: Mapping[str, Value], release: str) -> None:
        self._resource = b"\x0a" + sized(attributes(b"\x0a", resource))
        self._scope = b"\x0a" + sized(b"\x0a" + text("quotagate") + b"\x12" + text(release))

    def request(self, items: Iterable[bytes]) -> bytes:
        """The body of a request: spans, metrics or log records. The three have the same form."""
        scoped = self._scope + b"".join([b"\x12" + sized(item) for item in items])
        return b"\x0a" + sized(self._resource + b"\x12" + sized(scoped))

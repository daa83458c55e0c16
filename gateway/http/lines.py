"""Header lines whose meaning is remembered by their bytes: clients and upstreams repeat most of them. Pure."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from gateway.http import headers

REMEMBERED_MAX: Final = 4096
REMEMBERED_OF_NAME_MAX: Final = 128  # a field that has more values than that has a new one each time
REMEMBERED_BYTES_MAX: Final = 512
SECRETS: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"set-cookie", b"x-api-key"))
"""Fields that are not remembered, since a token does not stay in memory."""

VISIBLE: Final = bytes(range(0x21, 0x7F))
VALUE: Final = b"\t " + VISIBLE + bytes(range(0x80, 0x100))
"""The octets of a field's value and of a reason phrase (RFC 9110 section 5.5)."""
_BLANK: Final = 0x20
_SIZES: Final = frozenset(b"0123456789")
_SIZE_DIGITS_MAX: Final = 15


class FieldLine(NamedTuple):
    """What one line says."""

    kind: int
    name: bytes
    value: bytes


GOES_ON: Final = FieldLine(headers.FORWARD, b"", b"")
"""The meaning of all lines that only go on."""


class FieldLines:
    __slots__ = ("_accepted", "_classify", "_count_by_name", "_secrets", "known")

    def __init__(
        self,
        classify: Callable[[bytes], int],
        accepted: frozenset[int],
        secrets: Iterable[bytes] = (),
    ) -> None:
        """`accepted`: kinds of fields that are read by their lines, beside those that only go on and those whose value
        leaves framing and connection as they are. `secrets`: names, in lower case, of further fields with tokens."""
        self._classify = classify
        self._accepted = accepted
        self._secrets = SECRETS.union(secrets)
        self.known: dict[bytes, FieldLine] = {}
        """By a line with its end."""
        self._count_by_name: dict[bytes, int] = {}

    def read(self, line: bytes) -> FieldLine | None:
        """The meaning of a line, which is not in `known`. None: it is the parser's."""
        name, _, value = line.partition(b": ")
        # What is left is the end of the line, and the value has no blanks around it.
        if value.translate(None, VALUE) != b"\r\n" or value[0] <= _BLANK or value[-3] <= _BLANK:
            return None
        kind = self._classify(name)
        if kind == headers.FORWARD:
            meaning = GOES_ON
        else:
            value = value[:-2]
            if kind not in self._accepted and not _is_plain(kind, name, value):
                return None
            meaning = FieldLine(kind, name, value)
        if len(line) <= REMEMBERED_BYTES_MAX:
            count = self._count_by_name.get(name, 0)
            if count < REMEMBERED_OF_NAME_MAX and name.lower() not in self._secrets:
                self._remember(line, name, meaning, count)
        return meaning

    def _remember(self, line: bytes, name: bytes, meaning: FieldLine, count: int) -> None:
        if len(self.known) >= REMEMBERED_MAX:
            self.known.clear()
            self._count_by_name.clear()
            count = 0
        self.known[line] = meaning
        self._count_by_name[name] = count + 1


def _is_plain(kind: int, name: bytes, value: bytes) -> bool:
    """Whether the field leaves the framing and the connection as they are."""
    if kind == headers.CONTENT_LENGTH:
        return len(value) <= _SIZE_DIGITS_MAX and _SIZES.issuperset(value)
    if kind == headers.CONNECTION:
        return value.lower() == b"keep-alive"
    return kind == headers.DROP and name.lower() != b"proxy-connection"  # which llhttp takes for Connection

"""Where the requests of one connection begin, and what a request line is. Pure.

llhttp reads more than RFC 9112 section 3 allows and keeps it to itself: two blanks, `RTSP/1.0`, `ICE/1.0`. Nor does it
say where in a read a request ended. So reads are handed to it in parts, none of which holds bytes of two requests, and
a request line is judged here before the parser has its end. A head ends at the first empty line, a sized body after
its bytes, and a chunked one at an empty line, too; empty lines within a chunked body only make another part.
"""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.exchange import Exchange

REQUEST_LINE: Final = re.compile(rb"[A-Z-]+ [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
"""Methods and versions are llhttp's to know: one that is not spoken has an answer of its own."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*+")  # before a request line they are ignored: RFC 9112 section 2.2
_END: Final = b"\r\n\r\n"


class BadRequestLine(Exception):
    """The first line of a request is none of HTTP/1.x."""


class Boundaries:
    __slots__ = ("_line", "_tail", "expected", "line_passed")

    def __init__(self) -> None:
        self.line_passed = False
        self.expected = False
        """Whether the part may begin a request. One that begins elsewhere was not judged."""
        self._line = bytearray()  # of an unfinished request line
        self._tail = b""  # the last bytes of the read before, where an end may have begun

    @property
    def begun(self) -> bool:
        """Whether some of a request line was read, and not all."""
        return bool(self._line)

    def next_part(self, data: bytes, at: int, receiving: "Exchange | None") -> int:
        """The end of the part of `data` that starts at `at`. Raises BadRequestLine."""
        if not self.line_passed:
            self.expected = True
            self._pass_line(data, at)
            if not self.line_passed:
                self._tail = (self._tail + data[max(at, len(data) - 3) :])[-3:]
                return len(data)
        elif receiving is not None and receiving.head_complete and not receiving.head.chunked:
            rest = (receiving.head.content_length or 0) - receiving.body_bytes
            return min(len(data), at + rest) if rest > 0 else len(data)
        if at == 0 and self._tail:
            began = len(self._tail)
            over = (self._tail + data[:3]).find(_END)
            if over >= 0:
                self._tail = b""
                return over + 4 - began
        end = data.find(_END, at)
        if end >= 0:
            self._tail = b""
            return end + 4
        self._tail = (self._tail + data[max(at, len(data) - 3) :])[-3:]
        return len(data)

    def request_ended(self) -> None:
        self.line_passed = self.expected = False
        self._tail = b""

    def _pass_line(self, data: bytes, at: int) -> None:
        while not self.line_passed:
            if not self._line:
                at = _EMPTY_LINES.match(data, at).end()  # type: ignore[union-attr] # it matches nothing, too
            end = data.find(b"\n", at) + 1
            if not end:
                self._line += data[at:]
                return
            line = self._line + data[at:end] if self._line else data[at:end]
            self._line.clear()
            at = end
            if REQUEST_LINE.fullmatch(line):
                self.line_passed = True
            elif line != b"\r\n":
                raise BadRequestLine

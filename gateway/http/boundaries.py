"""Where the messages of one connection begin, and what their first lines are. Pure.

llhttp reads more than RFC 9112 section 3 allows and keeps it to itself: two blanks, `RTSP/1.0`, `ICE/1.0`. Nor does it
say where in a read a request ended. So reads are handed to it in parts, none of which holds bytes of two requests, and
a request line is judged here before the parser has its end. A head ends at the first empty line, a sized body after
its bytes, and a chunked one at an empty line, too; empty lines within a chunked body only make another part.

A method that llhttp does not know is withheld from it, so that the line can be judged as a whole. Of an upstream's
answers llhttp takes `RTSP/1.1 200` and `HTTP/2.0 200`; there it is the first bytes that are judged.
"""

import re
from typing import Final, Protocol

from gateway.http.head import RequestHead

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN.pattern + rb") [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
"""Versions are llhttp's to know: one that is not spoken has an answer of its own."""
METHODS: Final = frozenset(
    b"GET HEAD POST PUT PATCH DELETE OPTIONS CONNECT TRACE "
    b"ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE "
    b"QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
"""Those that llhttp takes with HTTP/1.x."""
_PASSED: Final = METHODS | {b"PRI"}  # the beginning of HTTP/2 (RFC 9113 section 3.4), which llhttp refuses as such
_BEGINNINGS: Final = frozenset(method[:end] for method in _PASSED for end in range(1, len(method) + 1))
_EMPTY_LINES: Final = re.compile(rb"(?>(?:\r\n)*)")  # before a request line they are ignored: RFC 9112 section 2.2
_END: Final = b"\r\n\r\n"


class BadRequestLine(Exception):
    """The first line of a request is none of HTTP/1.x."""


class UnknownMethod(Exception):
    """A request line is well formed, and its method is none that goes through llhttp."""


class Receiving(Protocol):
    """The request that the connection is reading."""

    @property
    def head(self) -> RequestHead: ...
    @property
    def head_complete(self) -> bool: ...
    @property
    def body_bytes(self) -> int:
        """Read of its body."""
        ...


class Boundaries:
    __slots__ = ("_line", "_tail", "expected", "line_passed", "withholding")

    def __init__(self) -> None:
        self.line_passed = False
        self.expected = False
        """Whether the part may begin a request. One that begins elsewhere was not judged."""
        self.withholding = False
        """Whether the part must not be parsed: it is of a request line whose method the parser does not know."""
        self._line = bytearray()  # of an unfinished request line
        self._tail = b""  # the last bytes of the read before, where an end may have begun

    @property
    def between(self) -> bool:
        """Whether nothing of a request was read since the last one ended."""
        return not (self.line_passed or self._line or self._tail)

    @property
    def begun(self) -> bool:
        """Whether some of a request line was read, and not all."""
        return bool(self._line)

    @property
    def line_bytes(self) -> int:
        """Read of an unfinished request line."""
        return len(self._line)

    def next_part(self, data: bytes, at: int, receiving: Receiving | None) -> int:
        """The end of the part of `data` that starts at `at`. Raises BadRequestLine and UnknownMethod."""
        if not self.line_passed:
            self.expected = True
            self._pass_line(data, at)
            if not self.line_passed:
                self._tail = (self._tail + data[max(at, len(data) - 3) :])[-3:]
                return len(data)
        elif receiving is not None and receiving.head_complete and not receiving.head.chunked:
            missing = (receiving.head.content_length or 0) - receiving.body_bytes
            return min(len(data), at + missing) if missing > 0 else len(data)
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
                method, blank, _ = bytes(self._line).partition(b" ")
                understood = method in (_PASSED if blank else _BEGINNINGS)
                self.withholding = not understood and _TOKEN.fullmatch(method) is not None
                return
            line = self._line + data[at:end] if self._line else data[at:end]
            self._line.clear()
            at = end
            if match := REQUEST_LINE.fullmatch(line):
                if match[1] not in _PASSED:
                    raise UnknownMethod
                self.line_passed = True
            elif line != b"\r\n":
                raise BadRequestLine


class BadStatusLine(Exception):
    """What an upstream says does not begin like an answer of HTTP/1.x."""


HTTP_1: Final = b"HTTP/1."
_LINE_ENDS: Final = re.compile(rb"[\r\n]*+")  # llhttp takes them before a status line


class Openings:
    """Where the answers to one request begin: interim ones, and the final one."""

    __slots__ = ("_begun", "_tail")

    def __init__(self) -> None:
        self._begun = b""  # the first bytes of the answer, as many as are judged
        self._tail = b""  # the last bytes of the read before, where an end may have begun

    def next_part(self, data: bytes, at: int) -> int:
        """The end of the part of `data` that starts at `at`; none holds bytes of two heads. Raises BadStatusLine."""
        wanted = len(HTTP_1) - len(self._begun)
        if wanted:
            start = at if self._begun else _LINE_ENDS.match(data, at).end()  # type: ignore[union-attr] # as above
            self._begun += data[start : start + wanted]
            if not HTTP_1.startswith(self._begun):
                raise BadStatusLine
        end, over = -1, (self._tail + data[:3]).find(_END) if at == 0 and self._tail else -1
        if over >= 0:
            end = over + 4 - len(self._tail)
        elif (blank_line := data.find(_END, at)) >= 0:
            end = blank_line + 4
        if end < 0:
            self._tail = (self._tail + data[max(at, len(data) - 3) :])[-3:]
            return len(data)
        self._begun = self._tail = b""
        return end

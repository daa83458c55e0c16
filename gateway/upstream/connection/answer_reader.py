"""Heads of whole answers, read line by line and without a call for each field, as `head_reader.py` reads requests.

Upstreams put something new into every head, too: a Date, a length, an id. llhttp stays the judge: an answer that is not
whole in one read, has no length, or is not understood here to the last byte of its head, is left to it.
"""

from typing import Final

from gateway.http import headers
from gateway.http.cors import exposing
from gateway.http.head import SECTION_BYTES_MAX, AnswerHead
from gateway.http.headers import classify_response, promised_idle_seconds
from gateway.http.lines import GOES_ON, VALUE, FieldLines
from gateway.upstream.connection.reuse import usable_seconds

STATUS_LINES_MAX: Final = 256
_WITHOUT_BODY: Final = (204, 304)
_ACCEPTED: Final = frozenset((headers.DATE, headers.ALLOW_ORIGIN, headers.KEEP_ALIVE))
"""Further kinds of fields that are read here. The others change how an answer is read, or hang on the request."""


class AnswerReader:
    """One for all connections to a target."""

    __slots__ = ("_idle_seconds", "_lines", "_status_lines", "_tick_seconds")

    def __init__(self, idle_seconds: float, tick_seconds: float) -> None:
        """`idle_seconds`: for how long a connection may be unused if the upstream says nothing of it."""
        self._idle_seconds = idle_seconds
        self._tick_seconds = tick_seconds
        self._lines = FieldLines(classify_response, _ACCEPTED)
        self._status_lines: dict[bytes, tuple[int, bytes]] = {}

    def read(self, data: bytes) -> AnswerHead | None:
        """The head of the answer that is all of `data`. None: the parser is to judge it."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or end > SECTION_BYTES_MAX:
            return None
        lines = data[: end - 2].splitlines(True)
        status_line = self._status_lines.get(lines[0]) or self._read_status_line(lines[0])
        if status_line is None:
            return None
        status, reason = status_line
        fields: list[bytes] = []
        length, promised = -1, None
        dated = with_cors = False
        known = self._lines.known
        del lines[0]
        for line in lines:
            meaning = known.get(line) or self._lines.read(line)
            if meaning is GOES_ON:
                fields.append(line)
                continue
            if meaning is None:
                return None
            kind, _, value = meaning
            if kind == headers.DATE:
                dated = True
                fields.append(line)
            elif kind == headers.CONTENT_LENGTH:
                if length >= 0:
                    return None
                length = int(value)
                fields.append(line)
            elif kind == headers.ALLOW_ORIGIN:
                with_cors = True
                fields.append(line)
            elif kind == headers.KEEP_ALIVE:
                seconds = promised_idle_seconds(value)
                promised = promised if seconds is None else seconds
        if length != len(data) - end:
            return None
        block = b"".join(exposing(fields) if with_cors else fields)
        idle_seconds = None if promised is None else self.idle_seconds(promised)
        start = b"HTTP/1.1 %d %b\r\n%b" % (status, reason, block)
        return AnswerHead(status, reason, block, data[:end], len(data), start, dated, idle_seconds)

    def idle_seconds(self, promised: int) -> float:
        """For how long a connection is used again that the upstream says it keeps for so long. The gateway ends it
        first, or a request would meet its end."""
        return min(self._idle_seconds, usable_seconds(promised, self._tick_seconds))

    def _read_status_line(self, line: bytes) -> tuple[int, bytes] | None:
        if not (line.startswith(b"HTTP/1.1 ") and line[12:13] == b" " and line.endswith(b"\r\n")):
            return None
        digits, reason = line[9:12], line[13:].removesuffix(b"\r\n")
        if not digits.isdigit():
            return None
        status = int(digits)
        if not 200 <= status < 600 or status in _WITHOUT_BODY:
            return None
        if not reason or reason.strip(b" \t") != reason or reason.translate(None, VALUE):
            return None
        if len(self._status_lines) >= STATUS_LINES_MAX:
            self._status_lines.clear()
        self._status_lines[line] = status, reason
        return status, reason

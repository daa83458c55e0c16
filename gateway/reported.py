"""What an upstream reports that a request used: read from its answer while that passes, in constant memory.

The answer goes on as it came, the report included. What cannot be read or believed changes nothing: the estimate stays.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Final, Protocol

from gateway.cost_settings import ReportedCost, ReportedHeader, ReportedTrailer
from gateway.json_path import JsonPath

DECODED_BYTES_MAX: Final = 4 * 1024 * 1024  # of one read of a compressed body: a bomb must not hold up the worker
_DIGITS: Final = re.compile(rb"[0-9]{1,15}")
_LINES: Final = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/json-seq")

TOLD, MISSING, MALFORMED, ABOVE_MAX, UNREADABLE = "told", "missing", "malformed", "above_max", "unreadable"


class Reader(Protocol):
    def feed(self, data: bytes) -> None: ...


class _Lines:
    """One JSON text a line."""

    def __init__(self, found: JsonPath) -> None:
        self._found = found

    def feed(self, data: bytes) -> None:
        first, *others = data.split(b"\n")  # JSON has no bare line feed in strings
        self._found.feed(first)
        for line in others:
            self._found.end_document()
            self._found.feed(line)


class _Events:
    """Server-sent events (WHATWG HTML, section 9.2): one JSON text an event, in its `data` lines."""

    def __init__(self, found: JsonPath) -> None:
        self._found = found
        self._name = b""  # of the line's field, as far as it was read
        self._is_data: bool | None = None  # None: not known yet
        self._after_cr = False

    def feed(self, data: bytes) -> None:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = data.split(b"\n")
        self._line(first)
        for part in others:
            self._end_line()
            self._line(part)

    def _line(self, part: bytes) -> None:
        if self._is_data is None:
            start = self._name + part[:5]
            if len(start) < 5 and b"data:".startswith(start):
                self._name = start
                return
            self._is_data = start.startswith(b"data:")
            part = part[5 - len(self._name) :]
        if self._is_data:
            self._found.feed(part)

    def _end_line(self) -> None:
        if self._is_data:
            self._found.feed(b"\n")
        elif self._is_data is None and not self._name:
            self._found.end_document()
        self._name, self._is_data = b"", None


class Report:
    """Of one answer. The upstream's connection tells it what comes."""

    __slots__ = ("_inflate", "_paths", "_readers", "_sources", "_texts", "_unreadable")

    def __init__(self, sources: Sequence[tuple[str, ReportedCost]]) -> None:
        self._sources = sources
        self._texts: dict[str, list[bytes]] = {}
        self._paths: dict[str, JsonPath] = {}
        self._readers: list[Reader] = []
        self._inflate: zlib._Decompress | None = None
        self._unreadable = False

    def on_head(self, fields: Sequence[bytes]) -> None:
        """`fields`: the answer's header lines."""
        named: dict[bytes, list[bytes]] = {}
        for line in fields:
            name, _, value = line.partition(b":")
            named.setdefault(name.lower(), []).append(value.strip())
        for meter, cost in self._sources:
            source = cost.reported
            if isinstance(source, ReportedHeader):
                self._texts[meter] = named.get(source.header.lower().encode(), [])
            elif not isinstance(source, ReportedTrailer):
                self._paths[meter] = JsonPath(source.path)
        if self._paths:
            self._read_body(named.get(b"content-type", []), named.get(b"content-encoding", []))

    def _read_body(self, kinds: list[bytes], codings: list[bytes]) -> None:
        kind = kinds[0].partition(b";")[0].strip().lower() if len(kinds) == 1 else b""
        if kind == b"text/event-stream":
            self._readers = [_Events(path) for path in self._paths.values()]
        elif kind in _LINES:
            self._readers = [_Lines(path) for path in self._paths.values()]
        elif kind == b"application/json" or kind.endswith(b"+json"):
            self._readers = list(self._paths.values())
        else:
            self._unreadable = True
        coding = b",".join(codings).lower()
        if coding in (b"gzip", b"x-gzip", b"deflate"):
            self._inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)  # gzip or zlib, by its first bytes
        elif coding not in (b"", b"identity"):
            self._give_up()

    def _give_up(self) -> None:
        self._unreadable, self._readers, self._inflate = True, [], None

    def on_body(self, data: bytes) -> None:
        readers = self._readers
        if not readers:
            return
        if self._inflate is not None:
            try:
                data = self._inflate.decompress(data, DECODED_BYTES_MAX)
            except zlib.error:
                self._give_up()
                return
            if self._inflate.unconsumed_tail:
                self._give_up()
                return
        for reader in readers:
            reader.feed(data)

    def on_trailer(self, name: bytes, value: bytes) -> None:
        for meter, cost in self._sources:
            source = cost.reported
            if isinstance(source, ReportedTrailer) and source.trailer.lower().encode() == name.lower():
                self._texts.setdefault(meter, []).append(value.strip())

    def units(self) -> tuple[dict[str, int], dict[str, str]]:
        """The units of the meters that were told credibly; and of each meter, how its report was."""
        units: dict[str, int] = {}
        outcomes: dict[str, str] = {}
        for meter, cost in self._sources:
            path = self._paths.get(meter)
            if path is not None and self._unreadable:
                outcomes[meter] = UNREADABLE
                continue
            texts = self._texts.get(meter, []) if path is None else [path.value] if path.value is not None else []
            if not texts:
                outcomes[meter] = MISSING
            elif len(texts) > 1 or not _DIGITS.fullmatch(texts[0]):
                outcomes[meter] = MALFORMED
            elif (told := int(texts[0])) > cost.max:
                outcomes[meter] = ABOVE_MAX
            else:
                outcomes[meter], units[meter] = TOLD, told
        return units, outcomes

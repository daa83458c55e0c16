"""What an upstream reports that a request used: read from its answer while that passes, in constant memory.

The answer goes on as it came, the report included. What cannot be read or believed changes nothing: the estimate stays,
or what was delivered is charged, where the route says so.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.http.codings import Decoder, Undecodable
from gateway.metering.json_path import JsonPaths, PathTree
from gateway.settings.metering import (
    Delivered,
    ReportedCost,
    ReportedHeader,
    ReportedJson,
    ReportedTrailer,
)

_DIGITS: Final = re.compile(rb"[0-9]{1,15}")
_LINES: Final = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/json-seq")

REPORTED, MISSING, MALFORMED, ABOVE_MAX, UNREADABLE = "told", "missing", "malformed", "above_max", "unreadable"


class _Reader(Protocol):
    def feed(self, data: bytes) -> None: ...

    @property
    def events(self) -> int:
        """What a consumer of the answer was given so far, one by one."""


class _Text:
    """One JSON text."""

    def __init__(self, paths: JsonPaths) -> None:
        self._paths = paths
        self.events = 0

    def feed(self, data: bytes) -> None:
        self.events = 1
        self._paths.feed(data)


class _Lines:
    """One JSON text a line."""

    def __init__(self, paths: JsonPaths) -> None:
        self._paths = paths
        self._ended = 0
        self._begun = False  # this line has something in it

    @property
    def events(self) -> int:
        return self._ended + self._begun

    def feed(self, data: bytes) -> None:
        first, *others = data.split(b"\n")  # JSON has no bare line feed in strings
        self._line(first)
        for line in others:
            self._paths.end_document()
            self._ended += self._begun
            self._begun = False
            self._line(line)

    def _line(self, part: bytes) -> None:
        self._paths.feed(part)
        self._begun = self._begun or not (not part or part.isspace())


class _Events:
    """Server-sent events (WHATWG HTML, section 9.2): one JSON text an event, in its `data` lines."""

    def __init__(self, paths: JsonPaths) -> None:
        self._paths = paths
        self._name = b""  # of the line's field, as far as it was read
        self._is_data: bool | None = None  # None: not known yet
        self._after_cr = False
        self._has_data = False  # this event
        self.events = 0
        """Those that have data and are complete."""

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
            self._paths.feed(part)

    def _end_line(self) -> None:
        if self._is_data:
            self._paths.feed(b"\n")
            self._has_data = True
        elif self._is_data is None and not self._name:
            self._paths.end_document()
            self.events += self._has_data
            self._has_data = False
        self._name, self._is_data = b"", None


class Reading:
    """What a route's costs want to know of each answer. Made once for the route."""

    def __init__(self, costs: Sequence[tuple[str, ReportedCost]]) -> None:
        self.costs = costs
        self.headers: dict[str, bytes] = {}
        """Field names in lower case, by meter."""
        self.trailers: dict[str, bytes] = {}
        self.terms: dict[str, list[list[int]]] = {}
        """What is added up, each a list of paths of which the first that was reported counts, by meter."""
        paths: dict[str, int] = {}
        for meter, cost in costs:
            source = cost.reported
            if isinstance(source, ReportedHeader):
                self.headers[meter] = source.header.lower().encode()
            elif isinstance(source, ReportedTrailer):
                self.trailers[meter] = source.trailer.lower().encode()
            else:
                self.terms[meter] = [[paths.setdefault(path, len(paths)) for path in term] for term in source.terms]
        self.tree = PathTree(list(paths))
        self.counts = any(isinstance(cost.unreported, Delivered) for _, cost in costs)


@dataclass(frozen=True, slots=True)
class Needs:
    """What must come of an answer for a route's costs, which its request has to see to."""

    body: bool = False
    """In codings that are known here."""
    trailers: bool = False


NOTHING: Final = Needs()


def needs_of(costs: Iterable[object]) -> Needs:
    """The same object for all routes that need nothing."""
    reported = [cost for cost in costs if isinstance(cost, ReportedCost)]
    counted = any(isinstance(cost.unreported, Delivered) for cost in reported)
    body = counted or any(isinstance(cost.reported, ReportedJson) for cost in reported)
    trailers = any(isinstance(cost.reported, ReportedTrailer) for cost in reported)
    return Needs(body, trailers) if body or trailers else NOTHING


class UsageReport:
    """Of one answer. The upstream's connection tells it what comes."""

    __slots__ = (
        "_byte_count",
        "_decoder",
        "_json",
        "_reader",
        "_reading",
        "_reads",
        "_texts",
        "_undecodable",
    )

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._texts: dict[str, list[bytes]] = {}
        self._json = JsonPaths(reading.tree)
        self._reads = False  # the body
        self._reader: _Reader | None = None  # of a kind of body that is known
        self._decoder: Decoder | None = None
        self._undecodable = False
        self._byte_count = 0  # decoded

    def on_head(self, fields: Sequence[bytes]) -> None:
        """`fields`: the answer's header lines."""
        named: dict[bytes, list[bytes]] = {}
        for line in fields:
            name, _, value = line.partition(b":")
            named.setdefault(name.lower(), []).append(value.strip())
        reading = self._reading
        for meter, name in reading.headers.items():
            self._texts[meter] = named.get(name, [])
        if reading.terms or reading.counts:
            self._read_body(named.get(b"content-type", []), named.get(b"content-encoding", []))

    def _read_body(self, kinds: list[bytes], codings: list[bytes]) -> None:
        kind = kinds[0].partition(b";")[0].strip().lower() if len(kinds) == 1 else b""
        if kind == b"text/event-stream":
            self._reader = _Events(self._json)
        elif kind in _LINES:
            self._reader = _Lines(self._json)
        elif kind == b"application/json" or kind.endswith(b"+json"):
            self._reader = _Text(self._json)
        self._reads = self._reader is not None or self._reading.counts
        if codings and self._reads:
            try:
                decoder = Decoder(codings)
            except Undecodable:
                self._give_up()
            else:
                self._decoder = decoder if decoder.is_needed else None

    def _give_up(self) -> None:
        self._undecodable, self._reads, self._reader, self._decoder = True, False, None, None

    def on_read(self) -> None:
        """A further read of the upstream begins, with a budget of its own for what it decodes to."""
        if self._decoder is not None:
            self._decoder.refill()

    def on_body(self, data: bytes) -> None:
        if not self._reads:
            return
        if self._decoder is None:
            self._take(data)
            return
        try:
            for part in self._decoder.decode(data):
                self._take(part)
        except Undecodable:
            self._give_up()

    def _take(self, data: bytes) -> None:
        self._byte_count += len(data)
        if self._reader is not None:
            self._reader.feed(data)

    def on_trailer(self, name: bytes, value: bytes) -> None:
        for meter, wanted in self._reading.trailers.items():
            if wanted == name.lower():
                self._texts.setdefault(meter, []).append(value.strip())

    def units(self) -> tuple[dict[str, int], dict[str, str]]:
        """The units of the meters whose report is credible, or that are counted by what was delivered. Also how the
        report of each meter was."""
        units: dict[str, int] = {}
        outcomes: dict[str, str] = {}
        for meter, cost in self._reading.costs:
            answer = self._reported(meter)
            if isinstance(answer, int) and answer <= cost.max:
                outcomes[meter], units[meter] = REPORTED, answer
                continue
            outcomes[meter] = ABOVE_MAX if isinstance(answer, int) else answer
            if isinstance(cost.unreported, Delivered) and (count := self._delivered(cost.unreported)) is not None:
                units[meter] = min(cost.unreported.units_for(count), cost.max)
        return units, outcomes

    def _reported(self, meter: str) -> int | str:
        """What the answer says, or what is wrong with it."""
        terms = self._reading.terms.get(meter)
        if terms is None:
            texts = self._texts.get(meter, [])
        elif self._reader is None:
            return UNREADABLE
        else:
            texts = []
            for paths in terms:
                first = next((text for path in paths if (text := self._json.value(path)) is not None), None)
                if first is None:
                    return MISSING
                texts.append(first)
        if not texts:
            return MISSING
        if (terms is None and len(texts) > 1) or not all(_DIGITS.fullmatch(text) for text in texts):
            return MALFORMED
        return sum(map(int, texts))

    def _delivered(self, by: Delivered) -> int | None:
        """Events or bytes; None where they cannot be counted."""
        if self._undecodable:
            return None
        if by.per == "byte":
            return self._byte_count
        return None if self._reader is None else self._reader.events

"""Spans of the control plane: what follows from a request, or from what a service finds to do, is one trace.

`span` is all that others use. Where nothing is exported, or what is under way is not recorded, it does nothing. What is
committed in a recorded trace takes its `traceparent` along (`control/db.py`), so that whoever goes on with the row, in
this process or in another, goes on with the trace.
"""

import random
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import time_ns
from typing import Final

from structlog.contextvars import bound_contextvars

from common.otlp.export import Export
from common.otlp.settings import Collector
from common.otlp.spans import CLIENT, CONSUMER, INTERNAL, SERVER, FinishedSpan, encode_span
from common.otlp.wire import Value

__all__ = ["CLIENT", "CONSUMER", "INTERNAL", "SERVER", "Span", "exporting", "span", "traceparent"]

SERVICE: Final = "quotagate-control"
"""service.name, unless the settings say another."""
LINKS_MAX: Final = 32
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])")
_LATER: Final = re.compile(
    r"(?!00|ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])(?:-.*)?"
)


@dataclass(slots=True)
class Span:
    """One that is under way."""

    name: str
    kind: str
    trace_id: int
    parent_id: int
    remote: bool
    links: tuple[tuple[int, int], ...]
    attributes: dict[str, Value]
    span_id: int = field(default_factory=lambda: secrets.randbits(64) | 1)
    began_ns: int = field(default_factory=time_ns)
    error: str | None = None

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


@dataclass(frozen=True, slots=True)
class _Parent:
    trace_id: int
    span_id: int
    sampled: bool


_current: ContextVar[Span | None] = ContextVar("span", default=None)


class _Process:
    """Where spans of this process go."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None


class Tracer:
    def __init__(self, settings: Collector) -> None:
        self._ratio = settings.ratio
        self._follow = settings.follow_clients
        self._export: Export[FinishedSpan] = Export(settings, "traces", SERVICE, lambda span: (encode_span(span),))

    def begin(
        self, name: str, kind: str, parents: Sequence[str | None], attributes: dict[str, Value], *, entry: bool
    ) -> Span | None:
        """None where it is not recorded. `parents`: traceparents; the first that can be read is the parent, the others
        are links."""
        known = [parent for each in parents if each and (parent := _read(each))]
        if known:
            parent = known[0]
            if not (parent.sampled if self._follow else self._chosen()):
                return None
            links = tuple((other.trace_id, other.span_id) for other in known[1 : LINKS_MAX + 1])
            return Span(name, kind, parent.trace_id, parent.span_id, True, links, attributes)
        if (current := _current.get()) is not None:
            return Span(name, kind, current.trace_id, current.span_id, False, (), attributes)
        return (
            Span(name, kind, secrets.randbits(128) | 1, 0, False, (), attributes) if entry and self._chosen() else None
        )

    def _chosen(self) -> bool:
        return random.random() < self._ratio  # noqa: S311 - no secret

    def end(self, span: Span) -> None:
        self._export.put(
            (
                FinishedSpan(
                    span.name,
                    span.kind,
                    span.trace_id,
                    span.span_id,
                    span.parent_id,
                    span.remote,
                    span.began_ns,
                    time_ns(),
                    span.attributes,
                    span.error,
                    span.links,
                ),
            )
        )

    def close(self) -> None:
        self._export.close()


_process: Final = _Process()


def is_on() -> bool:
    return _process.tracer is not None


@contextmanager
def exporting(settings: Collector) -> Iterator[None]:
    """While it lasts, spans of this process go to the collector, if one is set."""
    if not settings.records:
        yield
        return
    tracer = _process.tracer = Tracer(settings)
    try:
        yield
    finally:
        _process.tracer = None
        tracer.close()


@contextmanager
def span(
    name: str,
    kind: str = INTERNAL,
    *,
    parents: Sequence[str | None] = (),
    entry: bool = False,
    **attributes: Value | None,
) -> Iterator[Span | None]:
    """A span while it lasts; None where nothing is recorded. `parents`: traceparents that it follows from. `entry`: a
    trace may begin here. An attribute's name has underscores for dots; None leaves it out."""
    tracer = _process.tracer
    if tracer is None:
        yield None
        return
    said = {key.replace("__", "."): value for key, value in attributes.items() if value is not None}
    made = tracer.begin(name, kind, parents, said, entry=entry)
    if made is None:
        yield None
        return
    token = _current.set(made)
    try:
        with bound_contextvars(trace_id=f"{made.trace_id:032x}", span_id=f"{made.span_id:016x}"):
            yield made
    except Exception as e:
        made.error = type(e).__name__
        raise
    finally:
        _current.reset(token)
        tracer.end(made)


def traceparent() -> str | None:
    """Of the span that is under way, for who goes on later; None where nothing is recorded."""
    return None if (current := _current.get()) is None else current.traceparent


def _read(text: str) -> _Parent | None:
    match = _TRACEPARENT.fullmatch(text) or _LATER.fullmatch(text)
    return None if match is None else _Parent(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1))

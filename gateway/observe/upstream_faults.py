"""Targets that this worker leaves out go to Redis, for the control plane's incidents: at once when one changes, then
once a second. While all is well nothing is sent, and nobody looks.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import time
from typing import Any, Final, NamedTuple, Protocol

from quota import keys
from quota.calls.encoded import command
from quota.upstream_faults import (
    EJECTED,
    FAULTS_MAX,
    FIELD,
    REPORTS_MAX,
    SILENT_SECONDS,
    UNHEALTHY,
    WHY_MAX,
    Fault,
    Outage,
    Report,
    encode,
)

SOONEST_SECONDS: Final = 0.2
"""Between two reports, however often targets change."""
_TRIMMED: Final = ("MAXLEN", "~", str(REPORTS_MAX))


class Sender(Protocol):
    """The link to Redis."""

    def call(self, data: bytes, callback: Callable[[Any], None], /) -> None: ...


class _Health(Protocol):
    @property
    def ejections(self) -> int: ...
    @property
    def until(self) -> float: ...
    @property
    def unhealthy(self) -> bool: ...
    @property
    def why(self) -> str: ...


class _Endpoint(Protocol):
    @property
    def url(self) -> str: ...


class _Target(Protocol):
    @property
    def health(self) -> _Health: ...
    @property
    def endpoint(self) -> _Endpoint: ...


class _Settings(Protocol):
    @property
    def circuit_breaker(self) -> bool: ...


class WatchedUpstream(Protocol):
    on_change: Callable[[], None]
    """Called when a target fails, or is well again."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> _Settings: ...
    @property
    def targets(self) -> Sequence[_Target]: ...


class _Dates(NamedTuple):
    """Of one fault."""

    since_ms: int
    until: float
    """Loop time."""
    until_ms: int


class UpstreamFaultLog:
    """Of one worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sender: Sender, upstreams: Iterable[WatchedUpstream], seconds: float
    ) -> None:
        """`seconds`: between two reports while nothing changes."""
        self._loop = loop
        self._sender = sender
        self._upstreams = list(upstreams)
        self._seconds = seconds
        self._source = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._known: dict[str, _Dates] = {}
        """By upstream, or upstream and target."""
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._sent_at = 0.0
        self._told = False
        """The last report named a fault."""
        self._closed = False
        for upstream in self._upstreams:
            upstream.on_change = self._on_change

    def _on_change(self) -> None:
        if not self._soon and not self._closed:
            self._soon = True
            self._send_in(max(0.0, self._sent_at + SOONEST_SECONDS - self._loop.time()))

    def _send_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        self._timer, self._soon, self._sent_at = None, False, self._loop.time()
        faults, outages = self._look()
        if faults:
            self._send_in(self._seconds)
        elif not self._told:
            return
        self._send(faults, outages)

    def _send(self, faults: Sequence[Fault], outages: Sequence[Outage]) -> None:
        report = Report(self._source, socket.gethostname(), faults, outages)
        self._told = bool(faults)

        def on_reply(reply: Any) -> None:
            if isinstance(reply, Exception) and self._timer is None and not self._closed:
                self._told = True  # that all is well is said again
                self._send_in(self._seconds)

        self._sender.call(command("XADD", keys.UPSTREAM_FAULTS, *_TRIMMED, "*", FIELD, encode(report)), on_reply)
        expiry_ms = str(int(SILENT_SECONDS * 1000))
        self._sender.call(command("PEXPIRE", keys.UPSTREAM_FAULTS, expiry_ms), lambda _: None)

    def _look(self) -> tuple[list[Fault], list[Outage]]:
        known, self._known = self._known, {}
        faults: list[Fault] = []
        outages: list[Outage] = []
        for upstream in self._upstreams:
            failing = [target for target in upstream.targets if target.health.ejections or target.health.unhealthy]
            for target in failing:
                health, url = target.health, target.endpoint.url
                state = EJECTED if health.ejections else UNHEALTHY
                since_ms, until_ms = self._dated(known, f"{upstream.name} {url}", health.until)
                faults.append(
                    Fault(
                        upstream.name,
                        url,
                        state,
                        since_ms,
                        until_ms if health.ejections else None,
                        health.why[:WHY_MAX],
                    )
                )
            if failing and all(target.health.ejections for target in upstream.targets):
                since_ms, _ = self._dated(known, upstream.name, 0)
                outages.append(Outage(upstream.name, since_ms, upstream.settings.circuit_breaker))
        return faults[:FAULTS_MAX], outages[:FAULTS_MAX]

    def _dated(self, known: Mapping[str, _Dates], name: str, until: float) -> tuple[int, int]:
        """Since when, and until when, by the clock, as it was computed for the reports before."""
        dates = known.get(name)
        if dates is None or dates.until != until:
            now_ms = int(time() * 1000)
            until_ms = now_ms + int((until - self._loop.time()) * 1000)
            dates = _Dates(now_ms if dates is None else dates.since_ms, until, until_ms)
        self._known[name] = dates
        return dates.since_ms, dates.until_ms

    def close(self) -> None:
        """What this worker knows grows old: it gets no more requests. A second time changes nothing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._told:
            self._send((), ())

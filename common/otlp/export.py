"""A queue and a thread that sends what is in it. Who hands something over never waits.

Facts are handed over, and the thread makes of them what is sent.
"""

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final, Generic, TypeVar

import structlog

from common.otlp.counts import counted
from common.otlp.sender import Refused, Sender
from common.otlp.settings import Collector, Signal
from common.otlp.wire import Origin

log = structlog.get_logger()

PENDING_MAX: Final = 20_000  # facts that wait for a slow collector; what comes beyond is dropped, and counted
EXPORTED_AT_ONCE: Final = 512  # facts
LINGER_SECONDS: Final = 0.5  # what comes in that time goes in one request
CLOSE_SECONDS: Final = 3.0

Fact = TypeVar("Fact")


class Export(Generic[Fact]):
    """Of one signal of a process. Its thread begins with the first facts."""

    def __init__(
        self,
        settings: Collector,
        signal: Signal,
        service: str,
        encode: Callable[[Fact], Iterable[bytes]],
        pending_max: int = PENDING_MAX,
    ) -> None:
        """`encode`: the spans, metrics or log records that a fact is; the thread calls it. Raises SettingsError."""
        release = version("quotagate")
        resource = {
            "service.name": settings.service or service,
            "service.version": release,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            **settings.attributes,
        }
        self.signal = signal
        self._closing = Event()
        self._sender = Sender(settings, signal, self._closing)
        self._origin = Origin(resource, release)
        self._encode = encode
        self._pending_max = pending_max
        self._queue: SimpleQueue[Sequence[Fact] | None] = SimpleQueue()
        self._thread: Thread | None = None
        # Each is counted by one thread only.
        self._queued = self._done = self._refused = self._failed = 0
        self._overflows = self._fails = False
        counted(self)

    @property
    def dropped(self) -> int:
        """Facts that no collector got."""
        return self._refused + self._failed

    def put(self, facts: Sequence[Fact]) -> None:
        """Hands facts over."""
        waiting = self._queued - self._done
        if waiting + len(facts) > self._pending_max:
            self._refused += len(facts)
            if not self._overflows:
                self._overflows = True
                log.warning(
                    "telemetry is dropped: too much waits for the collector", signal=self.signal, waiting=waiting
                )
            return
        self._overflows = False
        self._queued += len(facts)
        self._queue.put(facts)
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"telemetry-{self.signal}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Sends what waits; a collector that hangs keeps no process from ending."""
        if self._thread is not None:
            self._closing.set()
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)

    # The thread

    def _run(self) -> None:
        ended = False
        while not ended:
            batches = [self._queue.get()]
            self._closing.wait(LINGER_SECONDS)
            while not self._queue.empty():
                batches.append(self._queue.get())
            ended = None in batches
            facts = [fact for batch in batches for fact in batch or ()]
            for start in range(0, len(facts), EXPORTED_AT_ONCE):
                some = facts[start : start + EXPORTED_AT_ONCE]
                self._export(some)
                self._done += len(some)
        self._sender.close()

    def _export(self, facts: Sequence[Fact]) -> None:
        try:
            self._sender.send(self._origin.request([item for fact in facts for item in self._encode(fact)]))
        except Refused as e:
            self._failed += len(facts)
            if not self._fails:
                log.warning("telemetry is dropped: the collector does not take it", signal=self.signal, reason=str(e))
            self._fails = True
        except Exception:
            self._failed += len(facts)
            if not self._fails:
                log.exception("telemetry is dropped: it cannot be written", signal=self.signal)
            self._fails = True
        else:
            if self._fails:
                log.warning("the collector takes telemetry again", signal=self.signal, dropped=self.dropped)
            self._fails = False

"""What a worker has counted, written to a file of its own once a second (docs/decisions/0007-metrics.md)."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from common.otlp.counts import dropped
from gateway.client.client_connection import ClientConnection
from gateway.exchange.absent import Absent
from gateway.process.worker_counts import WorkerCounts
from gateway.upstream.connection.upstream_connection import UpstreamConnection

if TYPE_CHECKING:
    from gateway.process.worker import Worker

log = structlog.get_logger()

PUBLISH_SECONDS = 1.0
REWRITE_SECONDS = 3600.0  # of what has not changed: many systems remove from /tmp what has been there for days


def snapshot(worker: "Worker") -> WorkerCounts:
    """What a worker has counted, and how it is now."""
    clients = in_flight = 0
    entrance = worker.entrance
    connections: Counter[str] = Counter()
    for timed in worker.deadlines:
        if isinstance(timed, ClientConnection):
            clients += 1
            in_flight += timed.in_flight
        elif isinstance(timed, Absent):
            in_flight += timed.in_flight
        elif isinstance(timed, UpstreamConnection):
            connections[f"{timed.pool.name} {'idle' if timed.exchange is None else 'busy'}"] += 1
    return {
        "exchanges": [(t.route, t.verdict, t.status, t.count) for t in worker.recorder.tallies()],
        "upstream": worker.recorder.latency_by_route,
        "take": worker.link.take_latency,
        "batches": worker.link.batches,
        "breaks": worker.link.breaks,
        "dropped": worker.access_log.dropped if worker.access_log is not None else 0,
        "clients": clients,
        "in_flight": in_flight,
        "connections": connections,
        "link_up": int(worker.link.open),
        "open_settlements": worker.settlements.open,
        "given_back": worker.settlements.given_back,
        "capped": worker.settlements.capped,
        "shortfall": worker.settlements.shortfall,
        "reports": [(*key, count) for key, count in worker.recorder.reports.items()],
        "looks": [(*key, count) for key, count in worker.looks.outcomes.items()],
        "stale": worker.looks.stale,
        "refusals_skipped": worker.refused.skipped,
        "refusals_lost": worker.refused.lost,
        "receipts_lost": worker.link.receipts.lost[0],
        "unwritten_seconds": worker.link.receipts.unwritten_seconds(monotonic()),
        "journal_open": worker.degraded.open if worker.degraded is not None else 0,
        "replayed": worker.degraded.replayed if worker.degraded is not None else 0,
        "key_set_age": worker.issuers.age_seconds,
        "turned": {} if entrance is None else {why.value: count for why, count in entrance.turned.items()},
        "telemetry_dropped": dropped(),
    }


class MetricsPublisher:
    """Writes a worker's snapshot where the supervisor finds it."""

    def __init__(self, worker: "Worker", directory: Path) -> None:
        self._worker = worker
        self._file = directory / f"{os.getpid()}.json"
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._published = ""
        self._written_at = 0.0

    def start(self) -> None:
        self._timer = self._worker.loop.call_later(PUBLISH_SECONDS, self.start)
        self.publish()

    def publish(self) -> None:
        written, text = self._file.with_suffix(".new"), json.dumps(snapshot(self._worker))
        if text == self._published and monotonic() - self._written_at < REWRITE_SECONDS:
            return
        try:
            written.write_text(text)
            written.replace(self._file)
        except OSError as e:
            if not self._failed:
                log.error("metrics not written", reason=e.strerror)
            self._failed = True
        else:
            self._failed = False
            self._published, self._written_at = text, monotonic()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self.publish()

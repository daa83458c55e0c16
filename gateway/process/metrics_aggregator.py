"""Metrics over all workers (docs/decisions/0007-metrics.md).

The supervisor adds the workers' files up when it is asked, and keeps what workers that have ended had counted.
"""

import json
from collections.abc import Collection
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from common.otlp.counts import dropped
from gateway.process.worker_counts import Counts, WorkerCounts, sum_of
from gateway.settings.root import GatewaySettings

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class MetricsAggregator:
    """The sum over all workers, for the supervisor."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ended: list[Counts] = []
        self._reading = Lock()

    def collect(self, alive: Collection[int], settings: GatewaySettings | None = None) -> str:
        """The exposition of `metrics`."""
        # Only now: a gateway that starts need not wait for what writes metrics.
        from common.exposition import exposition

        return exposition(self.metrics(alive, settings))

    def metrics(self, alive: Collection[int], settings: GatewaySettings | None = None) -> "list[Metric]":
        """By any thread. What workers not among these process ids had counted is kept; their gauges are not.
        `settings`: with what is around the workers, by these."""
        from gateway.process.metric_families import families, telemetry_dropped
        from gateway.process.metrics_of_machine import of_machine

        with self._reading:
            living = self._living(alive)
            counted = sum_of([*self._ended, *living])
        own = {} if settings is None else dropped()
        machine = [] if settings is None else of_machine(settings)
        return [*families(counted, living), telemetry_dropped(counted, own), *machine]

    def _living(self, alive: Collection[int]) -> list[WorkerCounts]:
        living: list[WorkerCounts] = []
        for file in sorted(self._directory.glob("*.json")):
            counts: WorkerCounts = json.loads(file.read_text())
            if int(file.stem) in alive:
                living.append(counts)
            else:
                file.unlink()
                self._ended = [sum_of([*self._ended, counts])]
        return living

"""Metrics over all workers (docs/decisions/0007-metrics.md).

The supervisor adds the workers' files up when it is asked, and keeps what workers that have ended had counted.
"""

import json
from collections.abc import Collection
from pathlib import Path

from gateway.process.worker_counts import Counts, WorkerCounts, sum_of
from gateway.settings.root import GatewaySettings


class MetricsAggregator:
    """The sum over all workers, for the supervisor."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ended: list[Counts] = []

    def collect(self, alive: Collection[int], settings: GatewaySettings | None = None) -> str:
        """The exposition. What workers not among these process ids had counted is kept; their gauges are not.
        `settings`: with what is around the workers, by these."""
        # Only now: a gateway that starts need not wait for what writes metrics.
        from common.exposition import exposition
        from gateway.process.metric_families import families
        from gateway.process.metrics_of_machine import of_machine

        living: list[WorkerCounts] = []
        for file in sorted(self._directory.glob("*.json")):
            counts: WorkerCounts = json.loads(file.read_text())
            if int(file.stem) in alive:
                living.append(counts)
            else:
                file.unlink()
                self._ended = [sum_of([*self._ended, counts])]
        machine = [] if settings is None else of_machine(settings)
        return exposition([*families(sum_of([*self._ended, *living]), living), *machine])

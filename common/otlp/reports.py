"""A process' metrics on their way to the collector."""

from collections.abc import Sequence
from time import time_ns
from typing import Final

from prometheus_client.core import Metric

from common.otlp.export import Export
from common.otlp.metrics import Report, Starts, encode_report
from common.otlp.settings import Collector

REPORTS_MAX: Final = 10  # that wait; the next one says as much as those before it


class MetricsExport:
    """What is handed over is sent as all metrics of this moment."""

    def __init__(self, settings: Collector, service: str, began_ns: int) -> None:
        """`began_ns`: since when counters count, since the epoch. Raises SettingsError."""
        starts = Starts(began_ns)

        def encode(report: Report) -> Sequence[bytes]:
            return encode_report(report, starts)

        self._export: Export[Report] = Export(settings, "metrics", service, encode, REPORTS_MAX)

    def put(self, metrics: Sequence[Metric]) -> None:
        self._export.put((Report(time_ns(), metrics),))

    def close(self) -> None:
        self._export.close()

"""What the supervisor sends to a collector: the metrics of all workers, and its own log. Workers send their spans and
their logs themselves.
"""

import threading
from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING, Final

import structlog

from gateway.settings.observing import SERVICE, Telemetry

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from common.otlp.lines import LogExport
    from common.otlp.reports import MetricsExport

log = structlog.get_logger()

LAST_SECONDS: Final = 4.0  # for the last report, of a supervisor that ends


class SupervisorTelemetry:
    def __init__(self, collect: "Callable[[], list[Metric]]") -> None:
        """`collect`: all metrics, as a scrape would have them. A thread calls it."""
        self._collect = collect
        self._began_ns = time_ns()
        self._settings: Telemetry | None = None
        self._logs: LogExport | None = None
        self._reporter: threading.Thread | None = None
        self._closing = threading.Event()

    def begin(self, settings: Telemetry) -> None:
        """From now on by these settings, also if others were there before. Raises SettingsError."""
        if settings == self._settings:
            return
        self.close()
        self._settings = settings
        # Imported only where something is sent: a gateway that starts should not wait for it.
        if settings.logs:
            from common.otlp.lines import LogExport

            self._logs = LogExport(settings, SERVICE)
        if settings.metrics:
            from common.otlp.reports import MetricsExport

            self._closing = threading.Event()
            export, seconds = MetricsExport(settings, SERVICE, self._began_ns), settings.metrics_seconds
            self._reporter = threading.Thread(
                target=self._report, args=(export, seconds, self._closing), daemon=True, name="metrics-reports"
            )
            self._reporter.start()

    def close(self) -> None:
        """With a last report, and what waits of the log. A collector that hangs keeps the supervisor for seconds."""
        if self._reporter is not None:
            self._closing.set()
            self._reporter.join(LAST_SECONDS)
            self._reporter = None
        if self._logs is not None:
            self._logs.close()
            self._logs = None
        self._settings = None

    def _report(self, export: "MetricsExport", seconds: float, closing: threading.Event) -> None:
        ended = False
        while not ended:
            ended = closing.wait(seconds)
            try:
                export.put(self._collect())
            except Exception:  # such as a file that somebody has removed
                log.exception("metrics not reported")
        export.close()

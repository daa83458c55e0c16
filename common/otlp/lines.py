"""Lines of a process' log on their way to the collector."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import time_ns

from common import telemetry
from common.otlp.export import Export
from common.otlp.records import LogLine, encode_line
from common.otlp.settings import Collector


class LogExport:
    """From now on, until it is closed, each line of the log is sent, too."""

    def __init__(self, settings: Collector, service: str) -> None:
        """Raises SettingsError."""
        self._export: Export[LogLine] = Export(settings, "logs", service, lambda line: (encode_line(line),))
        telemetry.follow(self._on_line)

    def _on_line(self, event: telemetry.Line) -> None:
        self._export.put((LogLine(time_ns(), dict(event)),))

    def close(self) -> None:
        telemetry.unfollow(self._on_line)
        self._export.close()


@contextmanager
def logs_sent(settings: Collector, service: str) -> Iterator[None]:
    """While it lasts, lines of the log are sent, if the settings say so. Raises SettingsError."""
    if not settings.logs:
        yield
        return
    export = LogExport(settings, service)
    try:
        yield
    finally:
        export.close()

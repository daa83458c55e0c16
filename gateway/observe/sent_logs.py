"""Logs of a worker on their way to a collector: its own lines, and those of the access log."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from common.otlp.export import Export
from common.otlp.lines import LogExport
from common.otlp.records import LogLine, encode_line
from gateway.settings.observing import SERVICE, Telemetry

NS_OF_MS: Final = 1_000_000


class SentLogs:
    """Of one worker."""

    def __init__(self, settings: Telemetry) -> None:
        """Raises SettingsError."""
        self._lines = LogExport(settings, SERVICE) if settings.logs else None
        self._access: Export[bytes] | None = None
        self.follower: Callable[[Sequence[bytes]], None] | None = None
        """What lines of the access log are handed to, if they are sent."""
        if settings.access_log:
            self._access = Export(settings, "logs", SERVICE, lambda line: (encode_line(line_of(line)),))
            self.follower = self._access.put

    def close(self) -> None:
        for export in (self._lines, self._access):
            if export is not None:
                export.close()


def line_of(line: bytes) -> LogLine:
    """A line of the access log: what was asked is the message."""
    members: dict[str, Any] = json.loads(line)
    time = datetime.fromisoformat(members.pop("time"))
    event = {"event": f"{members['method']} {members['path']}", "level": "info", **members}
    return LogLine(round(time.timestamp() * 1000) * NS_OF_MS, event)

"""All metrics go to a collector now and then, as a scrape would have them. Only where the settings ask for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import time_ns

from common.otlp.reports import MetricsExport
from common.otlp.settings import Collector
from control import tracing
from control.http.context import Context
from control.metrics import reading


class MetricsReports:
    """A background service."""

    name = "metrics-reports"

    def __init__(self, ctx: Context, export: MetricsExport, seconds: float) -> None:
        self._ctx = ctx
        self._export = export
        self._seconds = seconds

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            self._export.put(await reading.read(self._ctx))


@contextmanager
def reporting(settings: Collector, ctx: Context) -> Iterator[None]:
    """While it lasts, metrics are reported, if the settings say so. Raises SettingsError."""
    if not settings.metrics:
        yield
        return
    export = MetricsExport(settings, tracing.SERVICE, time_ns())
    ctx.background.add(MetricsReports(ctx, export, settings.metrics_seconds))
    try:
        yield
    finally:
        export.close()

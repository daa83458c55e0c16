"""The ASGI app that uvicorn runs in a worker's process. It serves nothing itself: its lifespan makes the worker, which
every client's connection finds in the lifespan's state."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.process.metrics import MetricsPublisher
from gateway.process.worker import Worker
from gateway.settings.root import GatewaySettings

Message = dict[str, Any]


class Lifespan:
    """A worker from its start to its close. uvicorn reports what it raises, and ends."""

    def __init__(self, settings: GatewaySettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        await receive()
        loop = asyncio.get_running_loop()
        worker = Worker(self._settings, loop, self._directory)
        if worker.access_log is not None:
            loop.add_signal_handler(signal.SIGHUP, worker.access_log.reopen)
        else:
            loop.add_signal_handler(signal.SIGHUP, lambda: None)  # of a terminal that closes: SIGTERM is what ends us
        await worker.start()
        # What is there now stays: the collector need not walk it again, which would hold every request up for so long.
        gc.collect()
        gc.freeze()
        gc.enable()  # it has rested since the process began (`loading.py`)
        publisher = MetricsPublisher(worker, self._directory)
        if self._settings.counts_are_read:
            publisher.start()
        scope["state"]["worker"] = worker
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await worker.close()
        finally:
            publisher.close()  # with what was counted at the end
        await send({"type": "lifespan.shutdown.complete"})

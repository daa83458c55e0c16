"""Workers that were replaced, or that end with the gateway: they go on with what is under way until their time is
over."""

import os
import signal
import time
from collections.abc import Callable
from enum import Enum

import structlog
from uvicorn.supervisors.multiprocess import Process

from gateway.process.worker_process import END_SILENT, RETIRE

log = structlog.get_logger()

END_SECONDS = 15.0  # beyond `stop_seconds`: the last writes and settlements of a worker have their own, shorter ends


class RetiringState(Enum):
    GOING_ON = "it finishes what is under way"
    STOPPING = "it got SIGTERM, and has `stop_seconds` left"


class RetiringWorker:
    __slots__ = ("_kill_at", "_stop_at", "_stop_seconds", "process", "reload", "state")

    def __init__(self, process: Process, *, stop_seconds: float, stop_at: float, reload: int) -> None:
        """`stop_seconds` is of its own settings; `stop_at`, in monotonic seconds, is when it gets SIGTERM; `reload` is
        the one in which it was replaced."""
        self.process = process
        self.reload = reload
        self.state = RetiringState.GOING_ON
        self._stop_seconds = stop_seconds
        self._stop_at = stop_at
        self._kill_at = 0.0  # once it is STOPPING

    def is_due(self, now: float) -> bool:
        """Whether its time to go on is over."""
        return self._stop_at <= now

    def stop(self) -> None:
        self.process.terminate()
        self.state = RetiringState.STOPPING
        self._kill_at = time.monotonic() + self._stop_seconds + END_SECONDS

    def kill_if_late(self, now: float) -> None:
        if self.state is RetiringState.STOPPING and self._kill_at <= now:
            log.error("a worker did not end in time", pid=self.process.pid)
            self.process.kill()

    def wait_stopped(self) -> None:
        """Waits until it has ended, and kills it where that takes too long."""
        self.process.process.join(max(0.0, self._kill_at - time.monotonic()))
        if self.process.process.is_alive():
            log.error("a worker did not end in time", pid=self.process.pid)
            self.process.kill()
            self.process.join()


class Retirement:
    """`on_ended` is called with each worker that has ended."""

    def __init__(self, on_ended: Callable[[Process], None]) -> None:
        self._on_ended = on_ended
        self._workers: list[RetiringWorker] = []

    @property
    def processes(self) -> list[Process]:
        return [worker.process for worker in self._workers]

    def retire(self, process: Process, *, seconds: float, stop_seconds: float, reload: int) -> None:
        """It ends within so many seconds. It is not waited for: an answer that streams on would hold the others up."""
        _send(process, RETIRE)
        stop_at = time.monotonic() + max(0.0, seconds - stop_seconds)
        self._workers.append(RetiringWorker(process, stop_seconds=stop_seconds, stop_at=stop_at, reload=reload))

    def end_silent(self) -> None:
        """Ends the silent connections of all, also of earlier reloads: they would decide by settings that are gone."""
        for worker in self._workers:
            _send(worker.process, END_SILENT)

    def watch(self, reloads_max: int) -> None:
        """Stops those whose time is over, and those of the oldest reloads beyond `reloads_max`; kills who is late."""
        now = time.monotonic()
        for ended in [worker for worker in self._workers if not worker.process.process.is_alive()]:
            self._on_ended(ended.process)
            self._workers.remove(ended)
        going_on = [worker for worker in self._workers if worker.state is RetiringState.GOING_ON]
        newest = sorted({worker.reload for worker in going_on})[-reloads_max:]
        for worker in going_on:
            if worker.reload not in newest or worker.is_due(now):
                worker.stop()
        for worker in self._workers:
            worker.kill_if_late(now)

    def stop(self, processes: list[Process], *, stop_seconds: float, reload: int) -> None:
        """Stops these, and all that retire already."""
        for process in processes:
            self._workers.append(RetiringWorker(process, stop_seconds=stop_seconds, stop_at=0.0, reload=reload))
        for worker in self._workers:
            if worker.state is RetiringState.GOING_ON:
                worker.stop()

    def wait_stopped(self) -> None:
        for worker in self._workers:
            worker.wait_stopped()


def _send(process: Process, sig: signal.Signals) -> None:
    if process.pid is not None and process.process.is_alive():
        os.kill(process.pid, sig)

"""The parent of the workers: starts them, replaces them, ends them, and answers for all of them with metrics.

There is always one, for a single worker too, so that SIGHUP can put new settings into a new worker before the old one
ends. All workers accept from one listening socket, which this process keeps: while workers change, it has a queue.
"""

import ctypes
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Process

from common.listening import address_of, remove_unix
from common.settings_file import SettingsError
from common.telemetry import running_as
from gateway.process.metrics_aggregator import MetricsAggregator
from gateway.process.metrics_server import MetricsServer
from gateway.process.retirement import Retirement
from gateway.process.supervisor_telemetry import SupervisorTelemetry
from gateway.process.worker_process import WorkerProcess
from gateway.settings.observing import Management, Telemetry
from gateway.settings.root import BESIDE_REQUESTS, GatewaySettings

log = structlog.get_logger()

POLL_SECONDS = 0.1  # while a worker starts or retires
PING_SECONDS = 2.0  # between two questions whether workers answer
READY_SECONDS = 60.0  # for a new worker; then its predecessor stays
STANDBY_SECONDS = 2.0  # after a worker's start: two interpreters that load at once would slow it down
SIGNALS_MAX = 4096  # read at once
SO_ATTACH_FILTER, BPF_RET = 26, 0x06  # linux/filter.h


def _deciding(settings: GatewaySettings) -> dict[str, object]:
    """Those by which a request may end otherwise."""
    return {name: value for name, value in settings if name not in BESIDE_REQUESTS}


def _turn_newcomers_away(listener: socket.socket) -> None:
    """The kernel makes no further connections, so none is left in the queue that closes with the last worker: a packet
    filter drops every handshake. Connections that are made already do not have it (socket(7), SO_ATTACH_FILTER)."""
    if listener.family == socket.AF_UNIX:
        remove_unix(listener)
        return
    listener.listen(0)
    if sys.platform == "linux":
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET, 0, 0, 0))
        try:
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(drop_all)))
        except PermissionError:
            # Some kernels leave this to root. Then who connects just before the end is reset.
            log.info("newcomers are not turned away: the kernel allows no packet filter")


class Supervisor:
    """`read` gives settings anew, or raises SettingsError. `configure` makes of them what a worker runs, which writes
    its metrics to the directory given."""

    def __init__(
        self,
        settings: GatewaySettings,
        read: Callable[[], GatewaySettings],
        configure: Callable[[GatewaySettings, Path], uvicorn.Config],
        listener: socket.socket,
    ) -> None:
        self._settings = settings
        self._read = read
        self._configure = configure
        self._listener = listener
        self._directory = Path(tempfile.mkdtemp(prefix="quotagate-"))
        self._config = configure(settings, self._directory)
        self._processes: list[Process] = []
        self._standby: WorkerProcess | None = None
        self._retirement = Retirement(self._ended)
        self._reloads = 0
        self._alive: set[int] = set()
        self._started_at: dict[int, float] = {}  # by process id, monotonic
        self._signals: list[int] = []
        self._signaled, self._signal = socket.socketpair()
        """Python writes each signal to the second end. A wait for the first one is over then."""
        self._stop = threading.Event()
        self._failed = False
        self._listens = False
        """Which is when the first worker does: a connection before is refused."""
        self._aggregator = MetricsAggregator(self._directory)
        self._metrics_server = MetricsServer(lambda: self._aggregator.collect(frozenset(self._alive), self._settings))
        self._telemetry = SupervisorTelemetry(lambda: self._aggregator.metrics(frozenset(self._alive), self._settings))

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises SystemExit when a worker cannot start, SettingsError for a management port
        that is taken."""
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sig, self._on_signal)
        for end in (self._signaled, self._signal):
            end.setblocking(False)
        signal.set_wakeup_fd(self._signal.fileno())
        try:
            self._metrics_server.listen(self._settings.management)
            self._telemetry.begin(self._settings.telemetry)
            self._grow(self._settings.workers)
            pinged = time.monotonic()
            while not self._stop.is_set():
                self._wait()
                if not self._listens and self._listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    self._listens = True
                    log.info("listening", address=address_of(self._listener), runs=running_as())
                if self._signals:
                    self._signals.clear()
                    self._reload()
                # Whether they run is asked each time, since that costs nothing; whether they answer, now and then.
                ping = time.monotonic() - pinged >= PING_SECONDS
                self._keep_alive(ping=ping)
                self._keep_standby()
                if ping:
                    pinged = time.monotonic()
        finally:
            self._end()
        if self._failed:
            raise SystemExit(1)

    def _wait(self) -> None:
        """Until a process ends or a signal comes, and no longer than until something else may be due."""
        retiring = self._retirement.processes
        standby = [] if self._standby is None else [self._standby]
        seconds = PING_SECONDS if self._listens and not retiring else POLL_SECONDS
        sentinels = [process.process.sentinel for process in (*self._processes, *retiring, *standby)]
        if self._signaled in wait([self._signaled, *sentinels], seconds):
            self._signaled.recv(SIGNALS_MAX)

    def _on_signal(self, sig: int, _: Any) -> None:
        if sig == signal.SIGHUP:
            self._signals.append(sig)
        else:
            self._stop.set()

    def _started(self) -> Process:
        process = WorkerProcess(self._config, [self._listener])
        process.start()
        return self._serving(process)

    def _serving(self, process: Process) -> Process:
        assert process.pid is not None  # noqa: S101 - it was started
        self._alive.add(process.pid)
        self._started_at[process.pid] = time.monotonic()
        return process

    def _ended(self, process: Process) -> None:
        process.join()
        self._alive.discard(process.pid or 0)
        self._started_at.pop(process.pid or 0, None)

    def _grow(self, count: int) -> None:
        while len(self._processes) < count:
            self._processes.append(self._started())

    def _replacement(self) -> Process:
        """The process that stood by, if there is one, or else a new one, which takes half a second or more to load."""
        standby, self._standby = self._standby, None
        if standby is not None and standby.process.is_alive():
            try:
                standby.release()
            except OSError:
                pass  # it has just ended
            else:
                return self._serving(standby)
        return self._started()

    def _keep_standby(self) -> None:
        if self._standby is not None and not self._standby.process.is_alive():
            self._standby.join()
            self._standby = None
        last_start = max(self._started_at.values(), default=0.0)
        if self._settings.standby and self._standby is None and time.monotonic() - last_start >= STANDBY_SECONDS:
            self._standby = WorkerProcess(self._config, [self._listener], stands_by=True)
            self._standby.start()

    def _end_standby(self) -> None:
        if self._standby is not None:
            self._standby.kill()  # it has nothing under way
            self._standby.join()
            self._standby = None

    def _keep_alive(self, *, ping: bool) -> None:
        self._retirement.watch(self._settings.drain.reloads_max)
        for at, process in enumerate(self._processes):
            if self._stop.is_set() or self._lives(process, ping=ping):
                continue
            process.kill()
            self._ended(process)
            if process.exitcode == STARTUP_FAILURE:
                log.error("a worker cannot start, so the gateway ends")
                self._failed = True
                self._stop.set()
                return
            log.warning("worker ended, another is started", pid=process.pid, exit_code=process.exitcode)
            self._processes[at] = self._replacement()

    def _lives(self, process: Process, *, ping: bool) -> bool:
        # One that is starting answers no ping yet: on a busy machine it would be ended and started for ever.
        if not ping or time.monotonic() - self._started_at.get(process.pid or 0, 0.0) < READY_SECONDS:
            return process.process.is_alive()
        return process.is_alive()

    def _reload(self) -> None:
        log.info("SIGHUP: reading the settings again")
        try:
            settings = self._read()
        except SettingsError as e:
            log.error("settings refused, the old ones go on", reason=str(e))
            self._reopen_logs([*self._processes, *self._retirement.processes])
            return
        if settings.listen.address != self._settings.listen.address:
            log.warning("where to listen is read at start only: the old address stays")
        self._reloads += 1
        before, self._config = self._config, self._configure(settings, self._directory)
        for at in range(min(len(self._processes), settings.workers)):
            process = self._started()
            if not process.wait_until_ready(READY_SECONDS, self._stop):
                process.kill()
                self._ended(process)
                self._config = before
                if not self._stop.is_set():
                    log.error("a worker with the new settings was not ready in time, the old ones go on")
                return
            self._retire(self._processes[at], settings.drain.reload_seconds)
            self._processes[at] = process
        while len(self._processes) > settings.workers:
            self._retire(self._processes.pop(), settings.drain.reload_seconds)
        if _deciding(settings) != _deciding(self._settings):
            self._retirement.end_silent()
        self._grow(settings.workers)
        self._end_standby()  # it is of the settings before
        if settings.management != self._settings.management:
            self._move_metrics(settings.management)
        self._settings = settings
        self._send_telemetry(settings.telemetry)
        self._reopen_logs(self._retirement.processes)
        log.info("settings read again", workers=settings.workers)

    @staticmethod
    def _reopen_logs(processes: list[Process]) -> None:
        """An access log may have been rotated."""
        for process in processes:
            if process.pid is not None and process.process.is_alive():
                os.kill(process.pid, signal.SIGHUP)

    def _retire(self, process: Process, reload_seconds: float) -> None:
        stop_seconds = self._settings.drain.stop_seconds
        self._retirement.retire(process, seconds=reload_seconds, stop_seconds=stop_seconds, reload=self._reloads)

    def _move_metrics(self, at: Management) -> None:
        try:
            self._metrics_server.listen(at)
        except SettingsError as e:
            log.error("no metrics", reason=str(e))

    def _send_telemetry(self, settings: Telemetry) -> None:
        try:
            self._telemetry.begin(settings)
        except SettingsError as e:
            log.error("no telemetry", reason=str(e))

    def _end(self) -> None:
        signal.set_wakeup_fd(-1)
        _turn_newcomers_away(self._listener)
        self._end_standby()  # it holds the listening socket, too
        self._retirement.stop(self._processes, stop_seconds=self._settings.drain.stop_seconds, reload=self._reloads)
        self._listener.close()
        self._retirement.wait_stopped()
        self._metrics_server.close()
        self._telemetry.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        # multiprocessing's helper would end after us, and in a container nobody may be there to reap it.
        if (stop := getattr(resource_tracker._resource_tracker, "_stop", None)) is not None:
            stop()

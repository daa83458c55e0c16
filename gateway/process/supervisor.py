"""The parent of the workers: starts them, replaces them, ends them, and answers for all of them with metrics.

There is always one, for a single worker too, so that SIGHUP can put new settings into a new worker before the old one
ends. All workers accept from one listening socket, which this process keeps: while workers change, it has a queue.
"""

import asyncio
import ctypes
import math
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
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Process

from common.listening import address_of
from common.settings_file import SettingsError
from gateway.process.metrics import CONTENT_TYPE, MetricsAggregator
from gateway.settings.root import GatewaySettings, Management

log = structlog.get_logger()

POLL_SECONDS = 0.1
PING_SECONDS = 0.5
READY_SECONDS = 60.0  # for a new worker; then its predecessor stays
STANDBY_SECONDS = 2.0  # after a worker's start: two interpreters that load at once would slow it down
END_SECONDS = 15.0  # beyond `stop_seconds`: the last writes and settlements of a worker have their own, shorter ends
CUT_SECONDS = 2.0  # at the end, for what is written already
TUNNELS_SHARE = 5 / 6  # of a stopping worker's time; the rest of it is for the close
RETIRE = signal.SIGUSR2
SO_ATTACH_FILTER, BPF_RET = 26, 0x06  # linux/filter.h
ACCEPT_TURNS = 3  # of the loop: one to see the kernel's queue, one to accept, one to be sure


class Server(uvicorn.Server):
    """One worker's. It answers what it has accepted before it goes. SIGTERM gives that `stop_seconds`; to one that was
    replaced (SIGUSR2) the supervisor sends it when its time is over."""

    _ends: asyncio.TimerHandle | None = None
    _stopping = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        if sig == signal.SIGINT:  # Ctrl-C reaches the whole group; the supervisor decides, and sends SIGTERM
            return
        super().handle_exit(sig, frame)
        self._stopping = True
        if self.started and self._worker.draining:
            self._worker.loop.call_soon_threadsafe(self._end_in_time)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().add_signal_handler(RETIRE, self._retire)
        await super().startup(sockets=sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._worker.draining = True
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        if self._stopping:
            self._end_in_time()
        await super().shutdown(sockets)

    @property
    def _worker(self) -> Any:
        return self.lifespan.state["worker"]

    def _retire(self) -> None:
        self.should_exit = True

    def _end_in_time(self) -> None:
        """What is under way has so long from now on, and no longer."""
        if self._ends is not None:
            return
        worker = self._worker
        seconds = worker.settings.drain.stop_seconds
        worker.tunnels_end = worker.loop.time() + seconds * TUNNELS_SHARE
        for connection in self._connections():
            connection.shutdown()
        self._ends = worker.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        for connection in self._connections():
            connection.stop()
        self._ends = self._worker.loop.call_later(CUT_SECONDS, self._abort)

    def _abort(self) -> None:
        """A client that does not take the end of its answer holds the worker up no longer."""
        for connection in self._connections():
            connection.abort()

    def _connections(self) -> list[Any]:
        return list(self.server_state.connections)


class WorkerProcess(Process):
    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], *, stands_by: bool = False) -> None:
        """`stands_by`: it loads everything, and begins to serve when it is released."""
        self._stands_by = stands_by
        super().__init__(config, sockets)

    def release(self) -> None:
        self.parent_conn.send(b"serve")

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(config=self.config)
        return self._server

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        self.parent_conn.close()  # this process's copy, so that the parent's end shows
        if self._stands_by:
            self._stand_by()
        super().target(sockets)

    def _stand_by(self) -> None:
        for sig in (signal.SIGINT, signal.SIGHUP):  # of a terminal, to the whole group: the supervisor decides
            signal.signal(sig, signal.SIG_IGN)
        self.config.load()
        try:
            self.child_conn.recv()
        except (EOFError, OSError):
            os._exit(0)  # the supervisor is gone

    def always_pong(self) -> None:
        try:
            super().always_pong()
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)  # the supervisor is gone, and nobody would ever stop this worker


def _turn_newcomers_away(listener: socket.socket) -> None:
    """The kernel makes no further connections, so none is left in the queue that closes with the last worker: a packet
    filter drops every handshake. Connections that are made already do not have it (socket(7), SO_ATTACH_FILTER)."""
    listener.listen(0)
    if sys.platform == "linux":
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET, 0, 0, 0))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(drop_all)))


@dataclass(slots=True)
class _Retiring:
    """A worker that ends."""

    process: Process
    stop_seconds: float
    """Of its own settings."""
    stop_at: float
    """Monotonic; when it gets SIGTERM."""
    reload: int
    """Which one it was replaced in."""
    kill_at: float = math.inf
    """When it had it, and should have ended."""


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
        self._retiring: list[_Retiring] = []
        self._reloads = 0
        self._alive: set[int] = set()
        self._started_at: dict[int, float] = {}  # by process id, monotonic
        self._signals: list[int] = []
        self._stop = threading.Event()
        self._failed = False
        self._listens = False
        """Which is when the first worker does: a connection before is refused."""
        self._aggregator = MetricsAggregator(self._directory)
        self._collecting = threading.Lock()
        self._management: ThreadingHTTPServer | None = None

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises SystemExit when a worker cannot start, SettingsError for a management port
        that is taken."""
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sig, self._on_signal)
        try:
            self._serve_metrics(self._settings.management)
            self._grow(self._settings.workers)
            pinged = time.monotonic()
            while not self._stop.is_set():
                time.sleep(POLL_SECONDS)
                if not self._listens and self._listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    self._listens = True
                    log.info("listening", address=address_of(self._listener))
                if self._signals:
                    self._signals.clear()
                    self._reload()
                # Whether they run is asked each time, since that costs nothing; whether they answer, now and then.
                ping = time.monotonic() - pinged >= PING_SECONDS
                self._keep_alive(ping=ping)
                if ping:
                    pinged = time.monotonic()
                    self._keep_standby()
        finally:
            self._end()
        if self._failed:
            raise SystemExit(1)

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
        """The process that stood by, if there is one, or else a new one, which takes a second or more to load."""
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
        self._watch_retiring()
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
            self._reopen_logs([*self._processes, *(retiring.process for retiring in self._retiring)])
            return
        if settings.listen != self._settings.listen:
            log.warning("listen is read at start only: the old address stays")
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
        self._grow(settings.workers)
        self._end_standby()  # it is of the settings before
        if settings.management != self._settings.management:
            self._serve_metrics(settings.management)
        self._settings = settings
        self._reopen_logs([retiring.process for retiring in self._retiring])
        log.info("settings read again", workers=settings.workers)

    @staticmethod
    def _reopen_logs(processes: list[Process]) -> None:
        """An access log may have been rotated."""
        for process in processes:
            if process.pid is not None and process.process.is_alive():
                os.kill(process.pid, signal.SIGHUP)

    def _retire(self, process: Process, reload_seconds: float) -> None:
        """Not waited for: an answer that streams on would hold the others up."""
        if process.pid is not None and process.process.is_alive():
            os.kill(process.pid, RETIRE)
        stop_seconds = self._settings.drain.stop_seconds
        stop_at = time.monotonic() + max(0.0, reload_seconds - stop_seconds)
        self._retiring.append(_Retiring(process, stop_seconds, stop_at, self._reloads))

    def _watch_retiring(self) -> None:
        now = time.monotonic()
        for ended in [retiring for retiring in self._retiring if not retiring.process.process.is_alive()]:
            self._ended(ended.process)
            self._retiring.remove(ended)
        going_on = [retiring for retiring in self._retiring if retiring.kill_at == math.inf]
        newest = sorted({retiring.reload for retiring in going_on})[-self._settings.drain.reloads_max :]
        for retiring in going_on:
            if retiring.reload not in newest or retiring.stop_at <= now:
                self._stop_retiring(retiring)
        for retiring in self._retiring:
            if retiring.kill_at <= now:
                log.error("a worker did not end in time", pid=retiring.process.pid)
                retiring.process.kill()

    @staticmethod
    def _stop_retiring(retiring: _Retiring) -> None:
        retiring.process.terminate()
        retiring.kill_at = time.monotonic() + retiring.stop_seconds + END_SECONDS

    def _end(self) -> None:
        _turn_newcomers_away(self._listener)
        self._end_standby()  # it holds the listening socket, too
        stop_seconds = self._settings.drain.stop_seconds
        self._retiring += [_Retiring(process, stop_seconds, 0.0, self._reloads) for process in self._processes]
        for retiring in self._retiring:
            if retiring.kill_at == math.inf:
                self._stop_retiring(retiring)
        self._listener.close()
        for retiring in self._retiring:
            process = retiring.process
            process.process.join(max(0.0, retiring.kill_at - time.monotonic()))
            if process.process.is_alive():
                log.error("a worker did not end in time", pid=process.pid)
                process.kill()
                process.join()
        if self._management is not None:
            self._management.shutdown()
        shutil.rmtree(self._directory, ignore_errors=True)
        # multiprocessing's helper would end after us, and in a container nobody may be there to reap it.
        if (stop := getattr(resource_tracker._resource_tracker, "_stop", None)) is not None:
            stop()

    # Metrics

    def metrics(self) -> str:
        with self._collecting:
            return self._aggregator.collect(frozenset(self._alive))

    def _serve_metrics(self, at: Management) -> None:
        if self._management is not None:
            self._management.shutdown()
            self._management.server_close()
            self._management = None
        if at.port is None:
            return
        collect = self.metrics

        class Handler(BaseHTTPRequestHandler):
            timeout = 5.0

            def do_GET(self) -> None:
                found = self.path.partition("?")[0] == "/metrics"
                body = collect().encode() if found else b"Only /metrics is here.\n"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
                pass

        try:
            self._management = ThreadingHTTPServer((at.host, at.port), Handler)
        except OSError as e:
            told = f"cannot listen on {at.host}:{at.port} for metrics: {e.strerror}"
            if self._processes:
                log.error("no metrics", reason=told)
                return
            raise SettingsError(told) from e
        host, port = self._management.server_address[:2]
        log.info("metrics are served", url=f"http://{host!s}:{port}/metrics")
        threading.Thread(target=self._management.serve_forever, daemon=True, name="management").start()

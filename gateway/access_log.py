"""The access log: one JSON line for each finished exchange, handed to a thread ten times a second.

The request path appends to a list. A disk or a pipe that stops taking lines stops the thread only; what it cannot take
is dropped and counted beyond `PENDING_BYTES_MAX`.
"""

import asyncio
import os
import stat
from pathlib import Path
from queue import SimpleQueue
from select import PIPE_BUF
from threading import Thread

import structlog

log = structlog.get_logger()

FLUSH_SECONDS = 0.1
FLUSH_LINES = 512
PENDING_BYTES_MAX = 8 * 1024 * 1024  # of lines that wait for a slow disk, in each worker
CLOSE_SECONDS = 2.0
STDOUT = 1


def open_log(path: Path) -> int:
    """A descriptor that appends: workers share the file, and whoever rotates it may move it. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


class AccessLog:
    """Where lines go: a file, or standard output without a path. Raises OSError for a file that cannot be opened."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path | None) -> None:
        self.dropped = 0
        """Lines."""
        self._loop = loop
        self._path = path
        self._descriptor = STDOUT if path is None else open_log(path)
        self._lines: list[bytes] = []
        self._timed = False
        self._pending_bytes = 0
        self._queue: SimpleQueue[bytes | str] = SimpleQueue()
        self._thread: Thread | None = None

    def add(self, line: bytes) -> None:
        lines = self._lines
        lines.append(line)
        if not self._timed:
            self._timed = True
            self._loop.call_later(FLUSH_SECONDS, self._on_time)
        elif len(lines) >= FLUSH_LINES:
            self.flush()

    def _on_time(self) -> None:
        self._timed = False
        self.flush()

    def flush(self) -> None:
        """Hands what there is to the thread that writes."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        if self._pending_bytes > PENDING_BYTES_MAX:
            self.dropped += len(lines)
            return
        data = b"".join(lines)
        self._pending_bytes += len(data)
        self._queue.put(data)
        if self._thread is None:
            self._thread = Thread(target=self._write_queued, name="access-log", daemon=True)
            self._thread.start()

    def reopen(self) -> None:
        """After a rotation: what follows goes to a new file of the same name."""
        self.flush()
        self._queue.put("reopen")

    def close(self) -> None:
        """Writes the rest; a disk that hangs keeps no process from ending."""
        self.flush()
        self._queue.put("close")
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                log.error("access log not written to its end", bytes=self._pending_bytes)
                return
        if self._path is not None:
            os.close(self._descriptor)

    # The thread

    def _write_queued(self) -> None:
        told = False
        while (data := self._queue.get()) != "close":
            try:
                if isinstance(data, str):
                    self._open_again()
                else:
                    self._write(data)
                told = False
            except OSError as e:
                if not told:
                    log.error("access log not written", reason=e.strerror)
                told = True
            if isinstance(data, bytes):
                self._pending_bytes -= len(data)

    def _open_again(self) -> None:
        if self._path is not None:
            descriptor = open_log(self._path)
            os.close(self._descriptor)
            self._descriptor = descriptor

    def _write(self, data: bytes) -> None:
        # Several workers may share a pipe, which keeps only short writes whole.
        piped = stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        while data:
            end = len(data) if not piped or len(data) <= PIPE_BUF else data.rfind(b"\n", 0, PIPE_BUF) + 1
            written = os.write(self._descriptor, data[: end or len(data)])
            data = data[written:]

"""The access log: one JSON line for each finished exchange, handed to a thread ten times a second.

The request path appends to a list. A disk or a pipe that stops taking lines stops the thread only; what it cannot take
is dropped and counted beyond `PENDING_BYTES_MAX`, and so is what a full disk refuses.
"""

import asyncio
import fcntl
import os
import select
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from select import PIPE_BUF
from threading import Thread

import structlog

from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals

log = structlog.get_logger()

FLUSH_SECONDS = 0.1
FLUSH_LINES = 512
PENDING_BYTES_MAX = 8 * 1024 * 1024  # of lines that wait for a slow disk, in each worker
STDOUT = 1


def open_log(path: Path) -> int:
    """A descriptor that appends: workers share the file, and whoever rotates it may move it. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


class _Sink:
    """Where lines go. One that a full disk has cut is ended before the next, also if another worker wrote it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        kind = os.fstat(descriptor).st_mode
        self._piped = stat.S_ISFIFO(kind)
        self._torn = False  # the last byte that was written from here ended no line
        self._reader: int | None = None  # of a file's last byte
        if stat.S_ISREG(kind):
            with suppress(OSError):  # it may be read by others only, and no system has this but Linux
                self._reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)

    def write(self, data: bytes) -> OSError | None:
        """Writes whole lines, and returns what kept it from writing all; `lost` then has their number."""
        self.lost = 0
        with self._alone():
            if self._is_torn():
                data = b"\n" + data
                self.lost = -1  # an end of a line, and no line
            while data:
                try:
                    written = os.write(self.descriptor, data[: self._end(data)])
                except BlockingIOError:  # whoever started the gateway shares its standard output with us
                    poll = select.poll()
                    poll.register(self.descriptor, select.POLLOUT)
                    poll.poll()
                    continue
                except OSError as e:
                    self.lost = max(0, self.lost + data.count(b"\n"))
                    return e
                self._torn = data[written - 1 : written] != b"\n"
                data = data[written:]
        self.lost = 0
        return None

    def close(self) -> None:
        os.close(self.descriptor)
        self.forget()

    def forget(self) -> None:
        if self._reader is not None:
            os.close(self._reader)

    def _end(self, data: bytes) -> int:
        """Of what is written at once: several workers may share a pipe, which keeps only short writes whole."""
        if not self._piped or len(data) <= PIPE_BUF:
            return len(data)
        return data.rfind(b"\n", 0, PIPE_BUF) + 1 or len(data)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other worker writes to the file meanwhile: between a cut and its end would be the place for a line."""
        if self._reader is None:
            yield
            return
        locked = False
        with suppress(OSError):  # a file system without locks
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
            locked = True
        try:
            yield
        finally:
            if locked:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def _is_torn(self) -> bool:
        if self._reader is None:
            return self._torn
        try:
            size = os.fstat(self._reader).st_size
            return size > 0 and os.pread(self._reader, 1, size - 1) not in (b"\n", b"")
        except OSError:
            return self._torn


class AccessLog:
    """Where lines go: a file, or standard output without a path. Raises OSError for a file that cannot be opened."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: Path | None,
        intervals: Intervals = DEFAULT_INTERVALS,
        follower: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        """`follower`: gets the lines, too."""
        self._loop = loop
        self._follower = follower
        self._close_seconds = intervals.access_log_close_seconds
        self._path = path
        self._sink = _Sink(STDOUT if path is None else open_log(path))
        self._lines: list[bytes] = []
        self._timed = False
        # Each is counted by one thread only, and never goes down: `+=` of two threads loses some.
        self._queued_lines = self._queued_bytes = self._done_lines = self._done_bytes = 0
        self._dropped = self._lost = 0
        self._queue: SimpleQueue[tuple[bytes, int] | str] = SimpleQueue()
        self._writer: Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines that were not written, or not whole."""
        return self._dropped + self._lost

    @property
    def _pending_bytes(self) -> int:
        return self._queued_bytes - self._done_bytes

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
        if self._follower is not None:
            self._follower(lines)
        if self._pending_bytes > PENDING_BYTES_MAX:
            self._dropped += len(lines)
            return
        data = b"".join(lines)
        self._queued_bytes += len(data)
        self._queued_lines += len(lines)
        self._queue.put((data, len(lines)))
        if self._writer is None:
            self._writer = Thread(target=self._write_queued, name="access-log", daemon=True)
            self._writer.start()

    def reopen(self) -> None:
        """After a rotation: what follows goes to a new file of the same name."""
        self.flush()
        self._queue.put("reopen")

    def close(self) -> None:
        """Writes the rest; a disk that hangs keeps no process from ending."""
        self.flush()
        self._queue.put("close")
        if self._writer is not None:
            self._writer.join(self._close_seconds)
            if self._writer.is_alive():
                self._dropped += self._queued_lines - self._done_lines
                log.error("access log not written to its end", bytes=self._pending_bytes)
                return
        if self._path is not None:
            self._sink.close()
        else:
            self._sink.forget()

    # The thread

    def _write_queued(self) -> None:
        reported = False
        while (queued := self._queue.get()) != "close":
            if isinstance(queued, str):
                self._open_again()
                continue
            data, count = queued
            error = self._sink.write(data)
            self._lost += self._sink.lost
            self._done_bytes += len(data)
            self._done_lines += count
            if error is not None and not reported:
                log.error("access log not written", reason=error.strerror)
            elif error is None and reported:
                log.warning("access log is written again", lost=self.dropped)
            reported = error is not None

    def _open_again(self) -> None:
        if self._path is None:
            return
        try:
            sink = _Sink(open_log(self._path))
        except OSError as e:
            log.error("access log not opened again, the old file goes on", reason=e.strerror)
            return
        self._sink.close()
        self._sink = sink

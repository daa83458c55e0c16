"""Calls back at short intervals. An event loop's own timers have a resolution of a millisecond, which is as long as
what is measured; Linux' timerfd has one of microseconds."""

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Self

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, getattr(os, "O_CLOEXEC", 0)
COARSE_SECONDS = 0.001


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class Ticker:
    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, on_tick: Callable[[], None]) -> None:
        self._loop = loop
        self._on_tick = on_tick
        self._fd = _timerfd(seconds)
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._on_readable)
        else:
            self._coarse()
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
        if self._timer is not None:
            self._timer.cancel()

    def _on_readable(self) -> None:
        assert self._fd is not None  # noqa: S101 - it is what became readable
        os.read(self._fd, 8)
        self._on_tick()

    def _coarse(self) -> None:
        self._timer = self._loop.call_later(COARSE_SECONDS, self._coarse)
        self._on_tick()


def _timerfd(seconds: float) -> int | None:
    """None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))
    if fd < 0:
        return None
    each = _Timespec(int(seconds), max(1, round(seconds % 1 * 1e9)))
    if libc.timerfd_settime(fd, 0, ctypes.byref(_Itimerspec(each, each)), None):
        os.close(fd)
        return None
    return fd

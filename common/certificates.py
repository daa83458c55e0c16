"""TLS contexts that follow their files: what is dialed after a change is dialed with what the files hold then."""

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

LOOK_SECONDS: Final = 2.0  # between two looks at the files, which only a dial takes

_Stamp = tuple[int, int, int, int] | None


class Certificates:
    """What a client's connections are secured with. Files that cannot be used leave what was read before.

    Raises what `make` raises, at first: OSError (ssl.SSLError is one), or ValueError."""

    def __init__(
        self,
        make: Callable[[], ssl.SSLContext],
        files: Iterable[Path],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._files = tuple(files)
        self._clock = clock
        # Before the files are read: one that changes meanwhile is read again.
        self._read = self._refused = self._stamps()
        self._context = make()
        self._look_at = clock() + LOOK_SECONDS
        self._reading = False

    async def current(self) -> ssl.SSLContext:
        """The context for a connection that is made now. While files are read others get the one before."""
        if not self._reading and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_SECONDS
            if (stamps := self._stamps()) != self._read:
                await self._read_again(stamps)
        return self._context

    async def _read_again(self, stamps: tuple[_Stamp, ...]) -> None:
        names = [str(file) for file in self._files]
        self._reading = True
        try:
            # In a thread: a system's certificate authorities take longer to read than a request may wait.
            self._context = await asyncio.to_thread(self._make)
        except (OSError, ValueError) as e:
            # A file may be half written, or the certificate there and its key not yet: the next look may be better.
            if stamps != self._refused:
                log.error("certificates not read again, those before serve on", files=names, reason=_told(e))
            self._refused = stamps
        else:
            self._read = stamps
            log.info("certificates read again", files=names)
        finally:
            self._reading = False

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._files))


def _stamp(file: Path) -> _Stamp:
    try:
        found = os.stat(file)  # noqa: PTH116  what a link leads to, as it is opened
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _told(e: Exception) -> str:
    return (e.strerror if isinstance(e, OSError) else None) or str(e)


def system_authorities() -> list[Path]:
    """Where the system keeps the certificate authorities that are believed without others being named."""
    paths = ssl.get_default_verify_paths()
    return [Path(path) for path in (paths.cafile, paths.capath) if path is not None]

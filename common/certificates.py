"""TLS contexts that follow their files: a connection after a change is made with the new content."""

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

log = structlog.get_logger()

LOOK_SECONDS: Final = 2.0  # between two checks of the files; only a new connection causes one

Made = TypeVar("Made")
_Stamp = tuple[int, int, int, int] | None


class Certificates(Generic[Made]):
    """What is made of certificate files: a TLS context, or something that has one. Files that cannot be used leave in
    place what was made before.

    The first read raises what `make` raises: OSError (ssl.SSLError is one) or ValueError."""

    def __init__(
        self,
        make: Callable[[], Made],
        files: Iterable[Path],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._files = tuple(files)
        self._clock = clock
        # Taken before the files are read, so that a file that changes meanwhile is read again.
        self._read = self._refused = self._stamps()
        self._made = make()
        self._look_at = clock() + LOOK_SECONDS
        self._reading = False

    @property
    def made(self) -> Made:
        """What was made last."""
        return self._made

    async def current(self) -> Made:
        """The one for a connection that is made now. While the files are read, other callers get the one before."""
        if not self._reading and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_SECONDS
            if (stamps := self._stamps()) != self._read:
                await self._read_again(stamps)
        return self._made

    async def _read_again(self, stamps: tuple[_Stamp, ...]) -> None:
        names = [str(file) for file in self._files]
        self._reading = True
        try:
            # In a thread: reading the certificate authorities of a system takes longer than a request may wait.
            self._made = await asyncio.to_thread(self._make)
        except (OSError, ValueError) as e:
            # A file may be half written, or the new key not written yet: the next check may succeed.
            if stamps != self._refused:
                log.error("certificates not read again, those before serve on", files=names, reason=_reason(e))
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
        status = os.stat(file)  # noqa: PTH116  it follows links, as opening does
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _reason(e: Exception) -> str:
    return (e.strerror if isinstance(e, OSError) else None) or str(e)


def system_authorities() -> list[Path]:
    """The paths of the certificate authorities that the system trusts by default."""
    paths = ssl.get_default_verify_paths()
    return [Path(path) for path in (paths.cafile, paths.capath) if path is not None]

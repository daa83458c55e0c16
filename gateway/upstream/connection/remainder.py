"""What the kernel holds of a TLS connection whose write failed: it is read and decrypted before the end is passed on.

asyncio tells the TLS layer of the end at once, and what the upstream said before it (an answer to the upload that it
refuses) would be lost. This protocol is put between the socket and the TLS layer, which is a protocol, too. It passes
on whatever is still there.
"""

import asyncio
import os
from collections.abc import Callable
from typing import cast

READ_BYTES = 262_144


def read_on(fd: int, take: Callable[[bytes], None]) -> None:
    """Hands over what the kernel holds, to the end or until nothing is there. No more comes after an error, so that the
    kernel's buffer bounds it."""
    while True:
        try:
            data = os.read(fd, READ_BYTES)
        except OSError:
            return
        if not data:
            return
        take(data)


class Remainder(asyncio.BufferedProtocol):
    def __init__(self, socket: asyncio.Transport) -> None:
        self._socket = socket
        self._tls = cast("asyncio.BufferedProtocol", socket.get_protocol())
        self.get_buffer = self._tls.get_buffer  # type: ignore[method-assign] # no step more for each read
        self.buffer_updated = self._tls.buffer_updated  # type: ignore[method-assign]  # asyncio asks the instance

    def eof_received(self) -> bool | None:
        return self._tls.eof_received()

    def pause_writing(self) -> None:
        self._tls.pause_writing()

    def resume_writing(self) -> None:
        self._tls.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            read_on(self._socket.get_extra_info("socket").fileno(), self._take)
        self._tls.connection_lost(exc)

    def _take(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            buffer = memoryview(self.get_buffer(len(left)))
            count = min(len(buffer), len(left))
            buffer[:count] = left[:count]
            self.buffer_updated(count)
            left = left[count:]

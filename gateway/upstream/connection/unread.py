"""Which idle connections the kernel holds bytes of, or the end, that the event loop has not read yet."""

import asyncio
import select
from contextlib import suppress
from typing import Protocol


class Watched(Protocol):
    """A connection, as this uses it."""

    fd: int

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def is_idle(self) -> bool: ...
    def end_unasked(self) -> None:
        """Something came on it, and nobody had asked for anything."""
        ...


class UnreadWatch:
    """The connections to one target. One question to the kernel is for all of them."""

    __slots__ = ("_by_fd", "_loop", "_poller", "looked")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.looked = False
        """In this turn of the loop."""
        self._loop = loop
        self._poller = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._by_fd: dict[int, Watched] = {}

    def add(self, connection: Watched) -> None:
        connection.fd = connection.transport.get_extra_info("socket").fileno()
        self._by_fd[connection.fd] = connection
        self._poller.register(connection.fd, select.POLLIN)

    def discard(self, connection: Watched) -> None:
        # A TLS layer tells of its end a turn after its socket, whose number another connection may have by then.
        if self._by_fd.get(connection.fd) is connection:
            del self._by_fd[connection.fd]
            with suppress(OSError, KeyError):  # closed already
                self._poller.unregister(connection.fd)

    def look(self) -> None:
        """Ends idle connections on which something came. Once in a turn of the loop, for all of them: a look at each,
        just before it is used, costs a request a twentieth of its time."""
        self.looked = True
        self._loop.call_soon(self._begin_turn)
        for fd, _ in self._poller.poll(0):
            connection = self._by_fd.get(fd)
            if connection is not None and connection.is_idle and not connection.transport.is_closing():
                connection.end_unasked()

    def _begin_turn(self) -> None:
        self.looked = False

"""Takes connections from a listening socket, in place of the loop's own server: each shows something first."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog

from common.addresses import spelt_plainly
from gateway.client.client_connection import ClientConnection
from gateway.listener.arrival import Arrival
from gateway.listener.entrance import Entrance, Turned
from gateway.routing.forwarded import UNIX_PEER

log = structlog.get_logger()

AGAIN_SECONDS: Final = 1.0  # after the system had nothing left for another connection
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """As uvicorn uses an asyncio.Server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        entrance: Entrance,
        connections: set[Any],
        make: Callable[[], ClientConnection],
    ) -> None:
        """`connections`: of the worker; `make`: what serves one."""
        self._loop = loop
        self._listener = listener
        self._entrance = entrance
        self._connections = connections
        self._make = make
        self._again: asyncio.TimerHandle | None = None

    def start(self, backlog: int) -> None:
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: arrivals are among the connections."""

    def _accept(self) -> None:
        """All that wait, as the loop's own server does: a worker that ends must leave none behind."""
        while True:
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                if e.errno not in _EXHAUSTED:
                    raise
                # The socket stays readable: without a pause the loop would do nothing else.
                log.error("no connection can be accepted", reason=e.strerror)
                self._loop.remove_reader(self._listener)
                self._again = self._loop.call_later(AGAIN_SECONDS, self._resume)
                return
            self._receive(sock, spelt_plainly(address[0]).encode() if isinstance(address, tuple) else UNIX_PEER)

    def _resume(self) -> None:
        self._again = None
        self._loop.add_reader(self._listener, self._accept)

    def _receive(self, sock: socket.socket, peer: bytes) -> None:
        entrance = self._entrance
        if len(self._connections) >= entrance.connections_max:
            sock.close()
        elif entrance.proxies is not None and not entrance.proxies.trusts(peer):
            sock.close()
            entrance.turn_away(Turned.PROXY_UNTRUSTED, peer, "no proxy that is trusted")
        else:
            sock.setblocking(False)
            Arrival(entrance, sock, peer, self._connections).begin(self._make)

"""One connection from its acceptance until it can be read: its PROXY header, and its TLS handshake."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from gateway.client.client_connection import ClientConnection
from gateway.client.neighbours import Introduced
from gateway.listener.entrance import Entrance, Turned
from gateway.listener.proxy_header import LOOK_BYTES, BadProxyHeader, ProxyHeader, Source
from gateway.listener.tls import bound_buffers


class Left(Exception):
    """The other side has gone before it said anything, as health checks of a port do."""


class Arrival:
    """It is among uvicorn's connections, so that a worker that drains waits for it."""

    def __init__(self, entrance: Entrance, sock: socket.socket, peer: bytes, connections: set[Any]) -> None:
        self._entrance = entrance
        self._sock = sock
        self._peer = peer
        self._connections = connections
        self._source = Source(None)
        self._task: asyncio.Task[None] | None = None

    def begin(self, make: Callable[[], ClientConnection]) -> None:
        """`make`: what serves the connection then."""
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._arrive(make), name="arrival")

    async def _arrive(self, make: Callable[[], ClientConnection]) -> None:
        try:
            async with asyncio.timeout(self._entrance.seconds):
                if self._entrance.proxies is not None:
                    await self._read_header()
                await self._serve(make)
        except BadProxyHeader as e:
            self._turn_away(Turned.PROXY_HEADER, str(e))
        except ssl.SSLError as e:
            self._turn_away(Turned.TLS, e.reason or str(e))
        except TimeoutError:
            self._turn_away(Turned.TIMEOUT, f"nothing whole within {self._entrance.seconds:g} s")
        except (OSError, Left):
            self._sock.close()
        finally:
            self._connections.discard(self)

    async def _read_header(self) -> None:
        """Takes no byte from behind it: that is the client's. Raises BadProxyHeader and Left."""
        header = ProxyHeader()
        begun = False
        while header.source is None:
            await self._readable()
            seen = self._sock.recv(LOOK_BYTES, socket.MSG_PEEK)
            if not seen:
                raise BadProxyHeader("the end within a header") if begun else Left
            begun = True
            self._sock.recv(header.feed(seen))
        self._source = header.source

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._sock, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._sock)

    async def _serve(self, make: Callable[[], ClientConnection]) -> None:
        def introduced() -> ClientConnection:
            connection = make()
            connection.introduction = self
            return connection

        loop, tls = asyncio.get_running_loop(), self._entrance.tls
        if tls is None:
            await loop.connect_accepted_socket(introduced, self._sock)
            return
        await loop.connect_accepted_socket(
            introduced,
            self._sock,
            ssl=await tls.context(),
            ssl_handshake_timeout=2 * self._entrance.seconds,  # ours is first, and tells a timeout from an end
            ssl_shutdown_timeout=self._entrance.closing_seconds,
        )

    def _turn_away(self, why: Turned, detail: str) -> None:
        self._sock.close()
        self._entrance.turn_away(why, self._peer, detail)

    # For the connection that it becomes

    def introduce(self, transport: asyncio.Transport) -> Introduced:
        self._connections.discard(self)
        address, tls = self._source.address or self._peer, self._entrance.tls
        if tls is None:
            return Introduced(address, b"https" if self._source.secured else b"http")
        bound_buffers(transport)
        return Introduced(address, b"https", tls.certificate_fields(transport))

    # As one of uvicorn's connections

    def shutdown(self) -> None:
        """It becomes a connection, or is turned away, in its time."""

    def stop(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._sock.close()

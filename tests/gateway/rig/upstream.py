"""An upstream that does exactly what the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.gateway.rig.peer import STREAM_LIMIT, Peer

Script = Callable[[Peer, bytes], Awaitable[None]]


class Upstream:
    """Records the exact bytes that reach it and plays exact bytes back."""

    def __init__(self) -> None:
        self.accepted = 0
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.port = 0
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.script: Script = self._play
        self.serve: Callable[[Peer], Awaitable[None]] = self._serve
        """What happens on a connection; by default each request is recorded and handed to `script`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _play(self, peer: Peer, request: bytes) -> None:
        peer.send(self.answer)

    def holds(self) -> asyncio.Event:
        """From now on answers come when this is set."""
        go_on = asyncio.Event()

        async def hold(peer: Peer, _: bytes) -> None:
            await go_on.wait()
            peer.send(self.answer)

        self.script = hold
        return go_on

    async def _serve(self, peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            self.requests.append(request)
            await self.script(peer, request)

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.serve(peer)
        finally:
            writer.close()


@asynccontextmanager
async def listening(scripted: Upstream) -> AsyncIterator[Upstream]:
    server = await asyncio.start_server(scripted.on_connection, "127.0.0.1", 0, limit=STREAM_LIMIT)
    scripted.port = server.sockets[0].getsockname()[1]
    yield scripted
    server.close()
    for peer in scripted.peers:
        peer.writer.transport.abort()

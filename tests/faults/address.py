"""One address in front of several servers, as a load balancer has it: who is behind it, the test says."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from devstack.ports import LOOPBACK

CHUNK_BYTES = 65_536
WAIT_SECONDS = 30


class Address:
    """It runs in a thread of its own, so that it serves whatever the test's loop does."""

    def __init__(self, port: int) -> None:
        self._leads_to = [port]
        self._ends: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="address")
        self._thread.start()
        self.port: int = self._in_thread(self._listen())

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def lead(self, port: int) -> None:
        """Connections end, and new ones go there."""

        async def switch() -> None:
            self._leads_to = [port]
            for end in self._ends:
                end.transport.abort()

        self._in_thread(switch())

    def alternate(self, *ports: int) -> None:
        """New connections go to these in turns."""
        self._leads_to = list(ports)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)

    def _in_thread(self, step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(WAIT_SECONDS)

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        with suppress(OSError):
            port, *others = self._leads_to
            self._leads_to = [*others, port]
            there, towards = await asyncio.open_connection(LOOPBACK, port)
            ends.append(towards)
            self._ends.update(ends)
            await asyncio.wait(
                [asyncio.create_task(_pass(reader, towards)), asyncio.create_task(_pass(there, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        for end in ends:
            self._ends.discard(end)
            end.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()

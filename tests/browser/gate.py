"""An address of a store that a test takes away, silences or slows down, and gives back."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from threading import Thread

CHUNK_BYTES = 65_536


class Way(Enum):
    OPEN = "open"
    CUT = "cut"
    """Connections end, and new ones end at once."""
    SILENT = "silent"
    """Connections stay, and nothing is passed on."""


class Gate:
    """Leads to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._way = Way.OPEN
        self._delay_seconds = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()

    @contextmanager
    def set(self, way: Way = Way.OPEN, delay_seconds: float = 0.0) -> Iterator[None]:
        """Meanwhile it is like this. `delay_seconds`: before what clients say is passed on."""
        self._change(way, delay_seconds)
        try:
            yield
        finally:
            self._change(Way.OPEN, 0.0)

    def _change(self, way: Way, delay_seconds: float) -> None:
        async def change() -> None:
            stuck = self._way is Way.SILENT or way is Way.CUT
            self._way, self._delay_seconds = way, delay_seconds
            if stuck:
                for writer in self._writers:
                    writer.transport.abort()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way is Way.CUT:
            writer.transport.abort()
            return
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            pair = {writer, far_writer}
            self._writers |= pair
            await asyncio.gather(self._pass_on(reader, far_writer, slow=True), self._pass_on(far_reader, writer))
            self._writers -= pair
        writer.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, slow: bool = False) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if slow and self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                if self._way is Way.SILENT:
                    continue
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server


@contextmanager
def gate_to(target: int) -> Iterator[Gate]:
    gate = Gate(target)
    loop = gate._loop  # of the same module
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(gate._listen(), loop).result()  # of the same module
    try:
        yield gate
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

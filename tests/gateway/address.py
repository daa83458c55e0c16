"""One address, behind which another Redis may be: what a failover leaves of the connections is a test's to say."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536


class Address:
    """Forwards what connects to `target`, as of the moment of connecting; connections that are there stay."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.accepted = 0
        self.sent = bytearray()
        """What came from those who connect, and went on."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(_pass_on(reader, far_writer, self.sent), _pass_on(far_reader, writer))
        writer.close()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: bytearray | None = None) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
            if record is not None:
                record += data
    sink.close()


@asynccontextmanager
async def leading_to(target: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Address]:
    address = Address(target)
    server = await asyncio.start_server(address.on_connection, "127.0.0.1", 0, ssl=tls)
    address.port = server.sockets[0].getsockname()[1]
    yield address
    server.close()

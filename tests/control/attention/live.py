"""A control port on a real socket, and viewers of its live tiles."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import uvicorn

from control.app import build
from control.http.context import Context
from control.http.signed_in import SESSION_COOKIE
from tests.control.plane import ADMIN_TOKEN

PATIENCE_SECONDS = 60.0
STREAM = "/v1/incidents/tiles/stream"
ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}


def signed_in(secret: str) -> dict[str, str]:
    return {"cookie": f"{SESSION_COOKIE}={secret}", "sec-fetch-site": "same-origin"}


@asynccontextmanager
async def serving(context: Context) -> AsyncIterator[int]:
    """Without background services: the test moves everything itself. Yields the port."""
    config = uvicorn.Config(build(context), ws="none", lifespan="off", log_config=None, proxy_headers=False)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            context.tiles.stop()
            server.should_exit = True
            await running


class Viewer:
    """A connection that reads one stream, as a browser's EventSource does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int) -> None:
        self.reader = reader
        self.writer = writer
        self.status = status

    @classmethod
    async def open(cls, port: int, headers: dict[str, str], path: str = STREAM) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}\r\n".encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer, int(head.split()[1]))

    async def next(self) -> tuple[str, Any] | None:
        """The next event's name and data; None where the stream has ended."""
        name, data = "", ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := await self.reader.readline():
                field, _, value = line.decode().rstrip("\r\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif not field and name:
                    return name, json.loads(data)
        return None

    async def until(self, name: str) -> Any:
        """The data of the next event of this name."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (event := await self.next()) is not None:
                if event[0] == name:
                    return event[1]
        raise AssertionError(f"the stream ended without {name}")

    async def showing(self, tile: str, number: int) -> Any:
        """The first look in which the tile has this number."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                look = await self.until("tiles")
                if look["tiles"][tile]["number"] == number:
                    return look

    def leave(self) -> None:
        self.writer.transport.abort()

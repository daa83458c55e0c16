"""The vendor's endpoint: a real HTTP server that answers as the test says, and keeps what it got."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from devstack.ports import free_port

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def status(code: int, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} Said so", *fields, "Content-Length: 0", "", ""]).encode()


@dataclass
class Delivery:
    path: str
    fields: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.fields["webhook-id"]


class Receiver:
    def __init__(self) -> None:
        self.port = free_port()
        self.deliveries: list[Delivery] = []
        self.answers: deque[bytes | None] = deque()
        """What the next requests are answered, then `OK`; None: nothing, ever."""
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Receiver"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        tasks = self._tasks = set[asyncio.Task[Any]]()
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(condition)

    async def received(self, count: int) -> list[Delivery]:
        await self.until(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *lines = head.strip().split("\r\n")
                fields = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
                body = await reader.readexactly(int(fields["content-length"]))
                answer = self.answers.popleft() if self.answers else OK
                async with self._changed:
                    self.deliveries.append(Delivery(line.split()[1], fields, body))
                    self._changed.notify_all()
                if answer is None:
                    await asyncio.Event().wait()
                writer.write(answer or b"")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

"""A load generator for exact counts: every request is sent once and its status is counted, nothing is retried."""

import asyncio
from collections import Counter
from urllib.parse import urlsplit

import httptools


class _Client(asyncio.Protocol):
    """One keep-alive connection: sends the next request when the answer before is complete."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # always a socket
        self._run.ready.append(self)
        if len(self._run.ready) == self._run.connections:
            self._run.go()

    def next(self) -> None:
        if self._run.left:
            self._run.left -= 1
            self._waiting = True
            self._transport.write(self._run.request)
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._waiting = False
        self._run.count(self._parser.get_status_code())
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._waiting = False
            self._run.count("cut")


class _Run:
    def __init__(self, request: bytes, total: int, connections: int) -> None:
        self.request = request
        self.total = self.left = total
        self.connections = connections
        self.ready: list[_Client] = []
        self.statuses: Counter[int | str] = Counter()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go(self) -> None:
        """All connections are there: they start together."""
        for client in self.ready:
            client.next()

    def count(self, status: int | str) -> None:
        self.statuses[status] += 1
        if self.statuses.total() == self.total and not self.done.done():
            self.done.set_result(None)


async def fire(url: str, token: str, total: int, connections: int, timeout_seconds: float = 120) -> Counter[int | str]:
    """Sends `total` GET requests over `connections` at once. Returns how often each status came, `cut` for none."""
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
    run = _Run(request.encode(), total, connections)
    loop = asyncio.get_running_loop()
    dials = [loop.create_connection(lambda: _Client(run), parts.hostname, parts.port) for _ in range(connections)]
    await asyncio.gather(*dials)
    async with asyncio.timeout(timeout_seconds):
        await run.done
    return run.statuses

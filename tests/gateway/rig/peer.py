"""One end of a connection: an upstream's, and with more to it a client's."""

import asyncio
import socket
from contextlib import suppress
from typing import Protocol, cast

import h11

from tests.gateway.rig.answer import Answer, Cut
from tests.gateway.rig.patience import PATIENCE_SECONDS

STREAM_LIMIT = 16 * 1024 * 1024


class Peer:
    """One end of a connection. Every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_all(self, data: bytes) -> None:
        """Until the kernel has all of it. Raises OSError where the other side has gone."""
        try:
            self.writer.write(data)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.writer.drain()
        except RuntimeError as e:  # uvloop's way of saying that the transport was closed just now
            raise ConnectionResetError(str(e)) from e

    @property
    def transport(self) -> asyncio.Transport:
        """As a socket's is: it reads, too."""
        return cast(asyncio.Transport, self.writer.transport)

    async def until(self, separator: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(separator)

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; raises ConnectionResetError when it is cut."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()

    async def gone(self) -> bytes:
        """Returns when the other side has ended the connection, in whatever way, with what came before."""
        with suppress(ConnectionError):
            return await self.rest()
        return b""

    async def request(self) -> bytes | None:
        """One whole request as it came, None at the end of the connection."""
        try:
            head = await self.until(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return None
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        if fields.get(b"transfer-encoding") != b"chunked":
            return head + await self.exactly(int(fields.get(b"content-length", 0)))
        body = b""
        while size := int(line := await self.until(b"\r\n"), 16):
            body += line + await self.exactly(size + 2)
        body += line
        while (trailer := await self.until(b"\r\n")) != b"\r\n":
            body += trailer
        return head + body + b"\r\n"

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await self.writer.wait_closed()


class Client(Peer):
    """A client connection; h11 judges the gateway's answers."""

    unread = b""

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, to a request of this method. Raises Cut, or ConnectionResetError."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(self.unread) if self.unread else None
        self.unread = b""
        answer = Answer(0, [], b"", [])
        body = bytearray()
        while True:
            try:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        data = await self.reader.read(65_536)
                    if not data and not answer.status:
                        raise Cut("the connection ended before an answer")
                    connection.receive_data(data)
                    continue
            except h11.RemoteProtocolError as e:
                if "without sending complete message" in str(e) or "peer closed" in str(e):
                    raise Cut(str(e)) from e
                raise
            match event:
                case h11.InformationalResponse():
                    answer.interim.append(event.status_code)
                    answer.interim_fields.append(event.headers.raw_items())
                case h11.Response():
                    answer.status, answer.fields = event.status_code, event.headers.raw_items()
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    self.unread = connection.trailing_data[0]
                    answer.body = bytes(body)
                    return answer

    async def ask(self, data: bytes, method: str | None = None) -> Answer:
        self.send(data)
        return await self.answer(method or data.split(b" ", 1)[0].decode())

    async def loses(self, data: bytes) -> bool:
        """Whether the connection ends before the answer does."""
        try:
            await self.ask(data)
        except (Cut, ConnectionError):
            return True
        return False

    async def ended(self) -> bool:
        """Whether the gateway ends the connection with nothing more on it."""
        return not self.unread and not await self.rest()


_closed: list[socket.socket] = []


def closed_port() -> int:
    """A port at which nobody listens, and which nobody else gets: it stays bound to the end of the run."""
    _closed.append(held := socket.socket())
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    return port


async def connected(port: int, receive_buffer: int | None = None) -> Client:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    limit = STREAM_LIMIT if receive_buffer is None else receive_buffer
    return Client(*await asyncio.open_connection(sock=sock, limit=limit))


class Connect(Protocol):
    """A client of whatever listens on this port."""

    async def __call__(self, port: int) -> Client: ...

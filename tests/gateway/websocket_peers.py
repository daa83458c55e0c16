"""WebSocket servers and clients that others wrote, each with the same few words."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import websocket
from aiohttp import WSMsgType, web
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.gateway.rig import PATIENCE_SECONDS, Organization

Said = str | bytes
Closed = tuple[int | None, str]


@dataclass
class Heard:
    """What a server noticed."""

    port: int = 0
    messages: list[Said] = field(default_factory=list)
    pongs: int = 0
    compressed: bool = False
    closed: "asyncio.Queue[Closed]" = field(default_factory=asyncio.Queue)


CLOSE_PLEASE = "close please"
CLOSES_WITH = (4002, "the server has had enough")


@asynccontextmanager
async def websockets_server() -> AsyncIterator[Heard]:
    heard = Heard()

    async def handle(peer: ServerConnection) -> None:
        heard.compressed = "permessage-deflate" in (peer.response.headers if peer.response else {}).get(
            "Sec-WebSocket-Extensions", ""
        )
        with suppress(ConnectionClosed):
            async for message in peer:
                heard.messages.append(message)
                if message == CLOSE_PLEASE:
                    await peer.close(*CLOSES_WITH)
                    break
                await (await peer.ping())
                heard.pongs += 1
                await peer.send(message)
        heard.closed.put_nowait((peer.close_code, peer.close_reason or ""))

    async with serve(handle, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        heard.port = server.sockets[0].getsockname()[1]
        yield heard


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[Heard]:
    heard = Heard()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        peer = web.WebSocketResponse(max_msg_size=0, autoping=False)
        await peer.prepare(request)
        heard.compressed = bool(peer.compress)
        reason = ""
        while True:
            message = await peer.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                heard.messages.append(message.data)
                if message.data == CLOSE_PLEASE:
                    await peer.close(code=CLOSES_WITH[0], message=CLOSES_WITH[1].encode())
                    reason = CLOSES_WITH[1]
                    break
                await peer.ping(b"are you there?")
                sent = peer.send_str if message.type is WSMsgType.TEXT else peer.send_bytes
                await sent(message.data)
            elif message.type is WSMsgType.PING:
                await peer.pong(message.data)
            elif message.type is WSMsgType.PONG:
                heard.pongs += message.data == b"are you there?"
            else:
                reason = message.extra or "" if message.type is WSMsgType.CLOSE else ""
                break
        heard.closed.put_nowait((peer.close_code, reason))
        return peer

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    heard.port = runner.addresses[0][1]
    yield heard
    await runner.cleanup()


SERVERS = {"websockets": websockets_server, "aiohttp": aiohttp_server}


class Ended(Exception):
    """The tunnel is over: code and reason of the other side's Close, 1006 without one."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebsocketsClient:
    def __init__(self, peer: ClientConnection) -> None:
        self._peer = peer

    @classmethod
    async def open(cls, port: int, organization: Organization) -> "WebsocketsClient":
        peer = await websockets_connect(
            f"ws://127.0.0.1:{port}/",
            additional_headers={"Authorization": f"Bearer {organization.token}"},
            max_size=None,
            ping_interval=None,
            close_timeout=PATIENCE_SECONDS,
        )
        return cls(peer)

    async def send(self, said: Said) -> None:
        await self._peer.send(said)

    async def send_fragments(self, said: list[bytes]) -> None:
        await self._peer.send(said)

    async def ping(self) -> None:
        """Until the pong is there."""
        await (await self._peer.ping())

    async def receive(self) -> Said:
        try:
            return await self._peer.recv()
        except ConnectionClosed:
            raise Ended(self._peer.close_code, self._peer.close_reason or "") from None

    async def close(self, code: int, reason: str) -> None:
        """Until the other side has closed, too."""
        await self._peer.close(code, reason)


class AiohttpClient:
    """It sends no fragments."""

    def __init__(self, session: aiohttp.ClientSession, peer: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._peer = peer

    @classmethod
    async def open(cls, port: int, organization: Organization) -> "AiohttpClient":
        session = aiohttp.ClientSession()
        peer = await session.ws_connect(
            f"ws://127.0.0.1:{port}/",
            headers={"Authorization": f"Bearer {organization.token}"},
            compress=15,
            max_msg_size=0,
            autoping=False,
            autoclose=False,
            timeout=aiohttp.ClientWSTimeout(ws_close=PATIENCE_SECONDS),
        )
        return cls(session, peer)

    async def send(self, said: Said) -> None:
        await (self._peer.send_str(said) if isinstance(said, str) else self._peer.send_bytes(said))

    async def ping(self) -> None:
        await self._peer.ping(b"here")
        while (message := await self._next()).type is not WSMsgType.PONG:
            raise AssertionError(message)

    async def _next(self) -> aiohttp.WSMessage:
        while (message := await self._peer.receive()).type is WSMsgType.PING:
            await self._peer.pong(message.data)
        return message

    async def receive(self) -> Said:
        message = await self._next()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            said: Said = message.data
            return said
        await self._peer.close()
        await self._session.close()
        raise Ended(*((message.data, message.extra) if message.type is WSMsgType.CLOSE else (1006, "")))

    async def close(self, code: int, reason: str) -> None:
        await self._peer.close(code=code, message=reason.encode())
        await self._session.close()


class WebsocketClient:
    """The package websocket-client: blocking, so each call has a thread."""

    def __init__(self, peer: websocket.WebSocket) -> None:
        self._peer = peer

    @classmethod
    async def open(cls, port: int, organization: Organization) -> "WebsocketClient":
        peer = websocket.WebSocket()
        peer.settimeout(PATIENCE_SECONDS)
        await asyncio.to_thread(
            peer.connect, f"ws://127.0.0.1:{port}/", header=[f"Authorization: Bearer {organization.token}"]
        )
        return cls(peer)

    async def send(self, said: Said) -> None:
        if isinstance(said, str):
            await asyncio.to_thread(self._peer.send, said)
        else:
            await asyncio.to_thread(self._peer.send_binary, said)

    async def send_fragments(self, said: list[bytes]) -> None:
        opcode = websocket.ABNF.OPCODE_BINARY
        for index, part in enumerate(said):
            frame = websocket.ABNF(int(index == len(said) - 1), 0, 0, 0, opcode if not index else 0, 1, part)
            await asyncio.to_thread(self._peer.send_frame, frame)

    async def ping(self) -> None:
        await asyncio.to_thread(self._peer.ping, b"here")
        opcode, frame = await self._next()
        assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"here")

    async def _next(self) -> tuple[int, Any]:
        while True:
            opcode, frame = await asyncio.to_thread(self._peer.recv_data_frame, True)
            if opcode != websocket.ABNF.OPCODE_PING:  # it has answered a ping by itself
                return opcode, frame

    async def receive(self) -> Said:
        try:
            opcode, frame = await self._next()
        except (OSError, websocket.WebSocketException):
            raise Ended(1006, "") from None
        data = bytes(frame.data)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            await asyncio.to_thread(self._peer.shutdown)
            raise Ended(int.from_bytes(data[:2]), data[2:].decode())
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    async def close(self, code: int, reason: str) -> None:
        await asyncio.to_thread(self._peer.send_close, code, reason.encode())
        with suppress(Ended):
            await self.receive()


TunnelClient = WebsocketsClient | AiohttpClient | WebsocketClient
CLIENTS: dict[str, type[TunnelClient]] = {
    "websockets": WebsocketsClient,
    "aiohttp": AiohttpClient,
    "websocket-client": WebsocketClient,
}

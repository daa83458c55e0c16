"""Tunnels between WebSocket clients and servers that others wrote: what one says the other hears, units exact."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import pytest
import websocket
from aiohttp import WSMsgType, web
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from quota.model import MeterLimit
from tests.gateway.rig import PATIENCE_SECONDS, MakeOrganization, Organization, StartGateway

MESSAGES = {"charge": {"messages": 1}, "per": "message"}
MEBIBYTES = {"charge": {"mebibytes": 1}, "per": "mebibyte"}
TUNNEL_PRICES = [None, MESSAGES, MEBIBYTES]
UNLIMITED = 1_000_000
Said = str | bytes
Closed = tuple[int | None, str]


# Servers: each answers a message with the same, after a ping, and closes where it is asked to


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


# Clients: the same few words for each


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


@dataclass
class Pair:
    client: TunnelClient
    server: Heard
    organization: Organization

    async def units(self, meter: str = "messages") -> int:
        return await self.organization.used(meter)

    async def closed(self) -> Closed:
        """What the server's Close tells the client, after whatever comes before it."""
        while True:
            try:
                await self.client.receive()
            except Ended as e:
                return e.code, e.reason


class Opened(Protocol):
    def __call__(
        self, client: str, server: str, tunnel_price: dict[str, Any] | None, units: int = UNLIMITED
    ) -> AbstractAsyncContextManager[Pair]: ...


@pytest.fixture
def opened(start: StartGateway, organization: MakeOrganization) -> Opened:
    """A client and a server with a gateway between them."""

    @asynccontextmanager
    async def go(
        client: str, server: str, tunnel_price: dict[str, Any] | None, units: int = UNLIMITED
    ) -> AsyncIterator[Pair]:
        meters = (MeterLimit("api_calls", 100), MeterLimit("messages", units), MeterLimit("mebibytes", units))
        org = await organization("acme", None, meters=meters)
        async with SERVERS[server]() as heard:
            rule = {"path": "/", "upstream": "api", "upgrades": ["websocket"], "tunnel": tunnel_price}
            gateway = await start(f"http://127.0.0.1:{heard.port}", routes=[rule])
            async with asyncio.timeout(2 * PATIENCE_SECONDS):
                yield Pair(await CLIENTS[client].open(gateway.port, org), heard, org)

    return go


@pytest.mark.parametrize("tunnel_price", TUNNEL_PRICES, ids=["free", "per message", "per mebibyte"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_what_a_client_says_comes_back_in_whole_with_pings_from_both_sides_and_units_are_exact(
    opened: Opened, client: str, server: str, tunnel_price: dict[str, Any] | None
) -> None:
    async with opened(client, server, tunnel_price) as pair:
        peer = pair.client
        said: list[Said] = [
            "x",
            "",
            b"\0",
            "ö" * 200,
            b"y" * 126,
            b"z" * 65_535,
            b"z" * 65_536,
            b"q" * 1_500_000,
            "end",
        ]
        for one in said:
            await peer.ping()
            await peer.send(one)
            assert await peer.receive() == one
        await peer.ping()
        if not isinstance(peer, AiohttpClient):
            parts = [b"a" * 70_000, b"", b"b", b"c" * 300]
            await peer.send_fragments(parts)
            assert await peer.receive() == b"".join(parts)
            said.append(b"".join(parts))
        together: list[Said] = [str(number) for number in range(10)]
        for one in together:  # several messages a read
            await peer.send(one)
        assert [await peer.receive() for _ in together] == together
        await peer.close(4001, "the client is through")
        assert await pair.server.closed.get() == (4001, "the client is through")
        assert pair.server.messages == [*said, *together]
        assert pair.server.pongs == len(said) + len(together)
        assert pair.server.compressed is (client != "websocket-client")
        assert await pair.units() == (len(said) + len(together) if tunnel_price is MESSAGES else 0)
        assert await pair.units("api_calls") == 1


@pytest.mark.parametrize("tunnel_price", TUNNEL_PRICES, ids=["free", "per message", "per mebibyte"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_close_of_the_server_reaches_the_client_with_code_and_reason(
    opened: Opened, client: str, server: str, tunnel_price: dict[str, Any] | None
) -> None:
    async with opened(client, server, tunnel_price) as pair:
        await pair.client.send("one")
        assert await pair.client.receive() == "one"
        await pair.client.send(CLOSE_PLEASE)
        assert await pair.closed() == CLOSES_WITH
        assert await pair.units() == (2 if tunnel_price is MESSAGES else 0)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_when_the_quota_ends_in_a_tunnel_both_sides_read_1008_and_why(
    opened: Opened, client: str, server: str
) -> None:
    async with opened(client, server, MESSAGES, units=3) as pair:
        for number in range(3):
            await pair.client.ping()
            await pair.client.send(str(number))
            assert await pair.client.receive() == str(number)
        await pair.client.send("one too many")
        assert await pair.closed() == (1008, "the quota does not allow more")
        assert await pair.server.closed.get() == (1008, "the quota does not allow more")
        assert pair.server.messages == ["0", "1", "2"]
        assert await pair.units() == 3


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_when_the_mebibytes_end_in_a_tunnel_both_sides_read_1008_and_why(
    opened: Opened, client: str, server: str
) -> None:
    async with opened(client, server, MEBIBYTES, units=2) as pair:
        said = random.Random(7)  # nothing that becomes smaller
        for size in [*[20_000] * 52, 5_000]:  # both ways, 2,090,000 bytes: of two mebibytes, no frame is left
            one = said.randbytes(size)
            await pair.client.send(one)
            assert await pair.client.receive() == one
        await pair.client.send(said.randbytes(20_000))
        assert await pair.closed() == (1008, "the quota does not allow more")
        assert await pair.server.closed.get() == (1008, "the quota does not allow more")
        assert await pair.units("mebibytes") == 2

"""Tokens as a browser's WebSocket and EventSource must carry them, with clients and servers that others wrote."""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
import websocket
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.gateway.rig import PATIENCE_SECONDS, Organization, StartGateway, Upstream

ROUTES = [
    {
        "path": "/",
        "upstream": "api",
        "upgrades": ["websocket"],
        "tokens": {"query": "access_token", "subprotocol": "bearer"},
    }
]


async def spoken(kind: str, uri: str, offered: list[str]) -> tuple[str | None, str]:
    """The subprotocol that the client was answered, and the echo of what it said."""
    if kind == "websockets":
        async with connect(uri, subprotocols=[Subprotocol(one) for one in offered] or None) as client:
            await client.send("hello")
            return client.subprotocol, str(await client.recv())
    if kind == "aiohttp":
        async with aiohttp.ClientSession() as session, session.ws_connect(uri, protocols=offered) as peer:
            await peer.send_str("hello")
            return peer.protocol, str(await peer.receive_str())
    return await asyncio.to_thread(_spoken_by_websocket_client, uri, offered)


def _spoken_by_websocket_client(uri: str, offered: list[str]) -> tuple[str | None, str]:
    client = websocket.create_connection(uri, subprotocols=offered, timeout=PATIENCE_SECONDS)
    try:
        client.send("hello")
        return client.getsubprotocol(), str(client.recv())
    finally:
        client.close()


@pytest.mark.parametrize("server_speaks", [["chat"], None])
@pytest.mark.parametrize("kind", ["websockets", "aiohttp", "websocket-client"])
async def test_a_websocket_carries_its_token_among_its_subprotocols_or_in_its_query(
    start: StartGateway, acme: Organization, kind: str, server_speaks: list[str] | None
) -> None:
    seen: list[Any] = []

    async def echo(peer: ServerConnection) -> None:
        seen.append(peer.request)
        with suppress(ConnectionClosed):
            async for message in peer:
                await peer.send(message)

    speaks = None if server_speaks is None else [Subprotocol(one) for one in server_speaks]
    # A server that speaks none answers none, and one that speaks `chat` chooses it where it is offered.
    async with serve(echo, "127.0.0.1", 0, subprotocols=speaks, select_subprotocol=_chosen) as server:
        port = server.sockets[0].getsockname()[1]
        gateway = await start(f"http://127.0.0.1:{port}", routes=ROUTES)
        uri = f"ws://127.0.0.1:{gateway.port}/room"
        answered = "chat" if server_speaks else "bearer"
        assert await spoken(kind, uri, ["chat", "bearer", acme.token]) == (answered, "hello")
        assert await spoken(kind, uri, ["bearer", acme.token]) == ("bearer", "hello")
        plain = "chat" if server_speaks else None
        offered = ["chat"] if server_speaks else []
        assert await spoken(kind, f"{uri}?a=1&access_token={acme.token}", offered) == (plain, "hello")
    assert [request.path for request in seen] == ["/room", "/room", "/room?a=1"]
    assert acme.token not in repr([(request.path, list(request.headers.raw_items())) for request in seen])
    assert await acme.used() == 3


def _chosen(peer: ServerConnection, offered: Any) -> Subprotocol | None:
    return Subprotocol("chat") if "chat" in offered and peer.protocol.available_subprotocols else None


async def test_an_event_source_carries_its_token_in_its_query(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=ROUTES)
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 11\r\n\r\ndata: one\n\n"
    url = f"http://127.0.0.1:{gateway.port}/events"
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(url, params={"access_token": acme.token, "last": "4"}) as answer:
                assert (answer.status, await answer.text()) == (200, "data: one\n\n")
    assert [request.partition(b"\r\n")[0] for request in upstream.requests] == [b"GET /events?last=4 HTTP/1.1"] * 2
    assert acme.token.encode() not in b"".join(upstream.requests)

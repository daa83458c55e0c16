"""Tunnels between WebSocket clients and servers that others wrote: what one says the other hears, units exact."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from quota.model import MeterLimit
from tests.gateway.rig import PATIENCE_SECONDS, MakeOrganization, Organization, StartGateway
from tests.gateway.websocket_peers import (
    CLIENTS,
    CLOSE_PLEASE,
    CLOSES_WITH,
    SERVERS,
    AiohttpClient,
    Closed,
    Ended,
    Heard,
    Said,
    TunnelClient,
)

MESSAGES = {"charge": {"messages": 1}, "per": "message"}
MEBIBYTES = {"charge": {"mebibytes": 1}, "per": "mebibyte"}
TUNNEL_PRICES = [None, MESSAGES, MEBIBYTES]
UNLIMITED = 1_000_000


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

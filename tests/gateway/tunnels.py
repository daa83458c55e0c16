"""A tunnel of a test: both its ends, and frames that are written by hand (RFC 6455, 5.2)."""

import asyncio
import socket
from functools import partial
from typing import Any

from gateway.tunnel.sides import Side
from tests.gateway.rig import (
    Client,
    Gateway,
    Organization,
    Peer,
    Until,
    Upstream,
    get,
)

ASKED = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n"
SWITCHES = SWITCHED % b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
MESSAGE = {"charge": {"messages": 1}, "per": "message"}
MEBIBYTE = {"charge": {"mebibytes": 1}, "per": "mebibyte"}


def frame(payload: bytes, opcode: int = 1, fin: bool = True, mask: bytes | None = b"abcd") -> bytes:
    """Masked, as a client sends it, or not."""
    size = len(payload)
    masked = 0x80 if mask else 0
    head = bytes((opcode | (0x80 if fin else 0),))
    if size < 126:
        head += bytes((masked | size,))
    elif size < 65_536:
        head += bytes((masked | 126,)) + size.to_bytes(2)
    else:
        head += bytes((masked | 127,)) + size.to_bytes(8)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def closed_with(code: int, data: bytes) -> bool:
    return data[:1] == b"\x88" and int.from_bytes(data[2:4]) == code


def route(**more: Any) -> list[dict[str, Any]]:
    return [{"path": "/", "upstream": "api", "upgrades": ["websocket"], **more}]


class Accepting:
    """Makes the upstream switch, and gives the tunnel's far end."""

    def __init__(self, upstream: Upstream, behind: bytes = b"", switches: bytes = SWITCHES) -> None:
        self.ends: asyncio.Queue[Peer] = asyncio.Queue()
        upstream.script = self._switch
        self._answer = switches + behind

    async def _switch(self, peer: Peer, request: bytes) -> None:
        peer.send(self._answer)
        self.ends.put_nowait(peer)
        await asyncio.sleep(3600)  # the test reads and writes from here on

    async def far(self) -> Peer:
        async with asyncio.timeout(30):
            return await self.ends.get()


async def opened(gateway: Gateway, org: Organization, upstream: Upstream) -> tuple[Client, Peer, bytes]:
    accepting = Accepting(upstream)
    client = await gateway.connect()
    client.send(get("/", org, ASKED))
    head = await client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    return client, await accepting.far(), head


def held(side: Side) -> bool:
    return side.writing_paused and not side.peer._transport.is_reading()


async def held_by_slow_ends(gateway: Gateway, client: Client, far: Peer, until: Until) -> None:
    """Of either end that does not read, the other is held, and gets all through when it reads again."""
    tunnel = gateway.connections[0]._tunnel
    assert tunnel is not None
    # More than the buffers of the kernel and the gateway hold together, so a peer that does not read is noticed.
    down, up = (64 * frame(b"x" * (256 << 10), mask=mask) for mask in (None, b"abcd"))
    for sender, data, receiver, side in ((client, up, far, tunnel._up), (far, down, client, tunnel._down)):
        receiver.transport.pause_reading()
        receiver.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sender.send(data)
        await until(partial(held, side))
        assert side._transport.get_write_buffer_size() < 1 << 20
    for receiver in (far, client):
        receiver.transport.resume_reading()
    assert list(await asyncio.gather(far.exactly(len(up)), client.exactly(len(down)))) == [up, down]

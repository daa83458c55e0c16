"""A tunnel that is opened with the field of a test."""

from tests.gateway.rig import Client, Gateway, Peer, Upstream, request
from tests.gateway.tunnels import ASKED, Accepting


async def opened(gateway: Gateway, upstream: Upstream, auth: bytes) -> tuple[Client, Peer]:
    accepting = Accepting(upstream)
    client = await gateway.connect()
    client.send(request(auth, lines=ASKED))
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return client, await accepting.far()

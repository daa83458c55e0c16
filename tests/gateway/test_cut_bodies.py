"""An answer whose body breaks off, lies or falls silent is visibly cut, and stays charged."""

import asyncio

import pytest

from tests.gateway.rig import (
    Gateway,
    Organization,
    Peer,
    StartGateway,
    Upstream,
    request,
)

BROKEN = {
    "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\npart",
}


@pytest.mark.parametrize("shape", BROKEN)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_that_is_cut_is_visibly_cut_and_stays_charged(
    gateway: Gateway, acme: Organization, upstream: Upstream, shape: str, version: bytes
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        peer.send(BROKEN[shape])

    upstream.serve = serve
    client = await gateway.connect()
    client.send(request(acme.auth).replace(b"HTTP/1.1", b"HTTP/" + version))
    await client.until(b"part")
    if version == b"1.0" and shape != "sized":
        with pytest.raises(ConnectionResetError):  # nothing else tells an HTTP/1.0 client
            await client.rest()
    else:
        assert b"0\r\n\r\n" not in await client.gone()
    assert await acme.events() == ["t"]


async def test_junk_within_a_chunked_answer_cuts_it(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n"
    client = await gateway.connect()
    client.send(request(acme.auth))
    await client.until(b"part")
    assert b"0\r\n\r\n" not in await client.gone()


async def test_an_upstream_that_falls_silent_within_a_body_is_cut(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"idle_timeout_seconds": 0.1}})
    gone = asyncio.Event()

    async def silent(peer: Peer, _: bytes) -> None:
        peer.send(BROKEN["sized"])
        await peer.gone()
        gone.set()

    upstream.script = silent
    client = await gateway.connect()
    client.send(request(acme.auth))
    await client.until(b"part")
    await client.gone()
    await asyncio.wait_for(gone.wait(), 60)


async def test_endless_trailers_of_an_answer_are_cut(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    async def endless(peer: Peer, _: bytes) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nX-T: " + b"t" * 1_000_000)
        await asyncio.sleep(3600)

    upstream.script = endless
    client = await gateway.connect()
    client.send(request(acme.auth))
    await client.until(b"part\r\n")
    await client.gone()

"""A slow side slows the other down; what lies in between stays small."""

import asyncio
import hashlib
import socket
from functools import partial
from typing import Any

import pytest

from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, StartGateway, Until, Upstream, request

MEBIBYTE = 1024 * 1024
BLOCK = hashlib.sha256(b"block").digest() * 2048  # 64 KiB
BUFFERED_MAX = MEBIBYTE  # in the gateway, beyond what the kernel holds


def shrink(transport: Any) -> None:
    """Has the kernel hold little of what is written, so that a slow reader shows at once."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def still(progress: list[int]) -> int:
    """The progress once it has come to a halt."""
    seen, unchanged = progress[0], 0
    async with asyncio.timeout(60):
        while unchanged < 20:
            await asyncio.sleep(0.005)
            unchanged = unchanged + 1 if progress[0] == seen else 0
            seen = progress[0]
    return seen


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_reads_slowly_stops_the_upstream(
    gateway: Gateway, acme: Organization, upstream: Upstream, chunked: bool
) -> None:
    sent, blocks = [0], 512  # 32 MiB

    async def pour(peer: Peer, _: bytes) -> None:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (blocks * len(BLOCK))
        peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        for _block in range(blocks):
            peer.send(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if chunked else BLOCK)
            await peer.writer.drain()
            sent[0] += 1
        peer.send(b"0\r\n\r\n" if chunked else b"")

    upstream.script = pour
    client = await gateway.connect(receive_buffer=4096)
    client.send(request(acme.auth))
    head = await client.until(b"\r\n\r\n")
    assert b"200 OK" in head
    halted = await still(sent)
    assert halted < blocks * 3 / 4, "the upstream's writes stall"
    assert gateway.connections[0].transport.get_write_buffer_size() < BUFFERED_MAX
    digest = hashlib.sha256()
    for _ in range(blocks):
        if chunked:
            size, block = 0, b""
            while size < len(BLOCK):
                line = await client.until(b"\r\n")
                block += (await client.exactly(int(line, 16) + 2))[:-2]
                size = len(block)
            digest.update(block)
        else:
            digest.update(await client.exactly(len(BLOCK)))
    assert digest.digest() == hashlib.sha256(BLOCK * blocks).digest()


async def test_an_upstream_that_reads_slowly_stops_the_client(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    blocks, sent, go_on, read = 512, [0], asyncio.Event(), hashlib.sha256()

    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.transport.pause_reading()
        await go_on.wait()
        peer.transport.resume_reading()
        for _ in range(blocks):
            read.update(await peer.exactly(len(BLOCK)))
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    upstream.serve = serve
    client = await gateway.connect()

    async def upload() -> None:
        for _ in range(blocks):
            client.send(BLOCK)
            await client.writer.drain()
            sent[0] += 1

    client.send(request(acme.auth, b"POST", b"Content-Length: %d\r\n" % (blocks * len(BLOCK))))
    uploading = asyncio.create_task(upload())
    await until(lambda: upstream.accepted > 0)
    halted = await still(sent)
    assert halted < blocks * 3 / 4, "the client's writes stall"
    (connection,) = gateway.pool._connections
    assert connection.transport.get_write_buffer_size() < BUFFERED_MAX
    go_on.set()
    assert (await client.answer("POST")).status == 200
    await uploading
    assert read.digest() == hashlib.sha256(BLOCK * blocks).digest()


async def test_a_body_that_comes_before_the_decision_is_held_back_not_piled_up(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, redis_url: str, until: Until
) -> None:
    gateway = await start(hydrate_timeout_ms=60_000)
    acme = await organization("acme")
    late = await organization("late", 0)
    await late._redis.delete(*[key async for key in late._redis.scan_iter("*org:late")])
    client = await gateway.connect()
    client.send(request(late.auth, b"POST", b"Content-Length: %d\r\n" % (8 * MEBIBYTE)) + bytes(8 * MEBIBYTE))
    await until(lambda: bool(gateway.connections) and gateway.connections[0]._flow.paused)
    body = gateway.connections[0]._exchanges[0].body
    assert body is not None
    assert body.waiting_bytes < BUFFERED_MAX
    await late.publish(1)
    assert (await client.answer("POST")).status == 200
    assert len(upstream.requests[0]) > 8 * MEBIBYTE
    assert await acme.used() == 0


async def test_a_client_that_is_slow_with_the_end_of_an_answer_keeps_no_connection_of_the_upstream(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    # One read of the gateway each, of which the second is more than it holds without pausing.
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000)
    slow = await gateway.connect(receive_buffer=4096)
    await until(lambda: bool(gateway.connections))
    shrink(gateway.connections[0].transport)
    slow.transport.pause_reading()
    slow.send(request(acme.auth) * 2)
    pool = gateway.pool
    await until(lambda: bool(pool._idle) and gateway.connections[0].writing_paused)
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (await gateway.get("/", acme)).body == b"ok"
    assert upstream.accepted == 1
    slow.transport.resume_reading()
    assert [len((await slow.answer()).body) for _ in range(2)] == [60_000, 60_000]


async def test_a_client_that_takes_no_answers_is_read_no_further(
    gateway: Gateway, upstream: Upstream, until: Until
) -> None:
    client = await gateway.connect(receive_buffer=4096)
    await until(lambda: bool(gateway.connections))
    connection = gateway.connections[0]
    shrink(connection.transport)
    client.transport.pause_reading()
    block = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    sent = 0
    while not connection._flow.holding:
        client.send(block)
        sent += 1000
        await asyncio.sleep(0)
        assert sent < 200_000
    assert connection.transport.get_write_buffer_size() < 8 * MEBIBYTE
    client.transport.resume_reading()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answers = await client.rest()
    assert answers.count(b"HTTP/1.1 401 Unauthorized\r\n") == sent + 1


async def test_a_client_that_takes_nothing_of_its_answer_is_cut_in_the_end(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until, intervals: dict[str, Any]
) -> None:
    intervals |= {"client_stall_seconds": 0.1, "client_linger_seconds": 0.1}
    gateway = await start()
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    for lines in (b"", b"Connection: close\r\n"):
        slow = await gateway.connect(receive_buffer=4096)
        await until(lambda: bool(gateway.connections))
        [connection] = gateway.connections
        shrink(connection.transport)
        slow.transport.pause_reading()
        slow.send(request(acme.auth, lines=lines))
        await until(partial(lambda served: served.writing_paused, connection))
        await until(lambda: not gateway.connections)


async def test_a_client_that_caught_up_is_idle_like_any_other(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    gateway = await start(timeouts={"idle_seconds": 0.1})
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
    slow = await gateway.connect(receive_buffer=4096)
    await until(lambda: bool(gateway.connections))
    shrink(gateway.connections[0].transport)
    slow.transport.pause_reading()
    slow.send(request(acme.auth))
    await until(lambda: gateway.connections[0].writing_paused)
    slow.transport.resume_reading()
    assert len((await slow.answer()).body) == 200_000
    assert await slow.ended()

"""The control port keeps no place for who says nothing: every wait for a client ends, and a newcomer is served."""

import asyncio
import hashlib
import hmac
import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn

from common.networks import Networks
from control.app import build
from control.http.connections import Connections
from control.http.context import Context
from control.http.peers import client_address
from control.settings.control_plane import Limits, Settings
from devstack.ports import free_port
from tests.control.plane import ADMIN_TOKEN
from tests.control.running import answers, command, environment

PATIENCE_SECONDS = 60.0
LONG = 3600.0
PATIENT: dict[str, Any] = {"head_seconds": LONG, "body_seconds": LONG, "idle_seconds": LONG, "write_seconds": LONG}
GET = b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n"
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., Awaitable[Peer]]


@asynccontextmanager
async def serving(context: Context, trusted: tuple[str, ...] = (), /, **limits: float) -> AsyncIterator[Connect]:
    """The control port on a real socket, with these limits and no others. Yields how to connect to it."""
    connections = Connections(Limits(**{**PATIENT, **limits}), Networks(trusted))
    config = uvicorn.Config(
        build(context),
        port=0,
        http=cast("type[asyncio.Protocol]", connections.protocol),
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        running = asyncio.create_task(server.serve([listener]))
        peers: list[Peer] = []

        async def connect(data: bytes = b"", source: str = "127.0.0.1") -> Peer:
            _, port = listener.getsockname()
            peer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            peers.append(peer)
            peer[1].write(data)
            return peer

        yield connect
        for _, writer in peers:
            writer.transport.abort()
        server.should_exit = True
        await running


async def until_closed(peer: Peer) -> bytes:
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionError):
            return await peer[0].read()
        return b""


async def answer(peer: Peer) -> tuple[int, bytes]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        head = await peer[0].readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        return int(head.split(b" ")[1]), await peer[0].readexactly(length)


async def is_open(peer: Peer) -> bool:
    """Whether it serves a request to its end."""
    peer[1].write(GET)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        return (await answer(peer))[0] == 200
    return False


PUT = (
    b"PUT /v1/organizations/acme HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
)
SLOW_BODY = PUT % ADMIN_TOKEN.encode() + b"Content-Length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("limit", "sent", "status"),
    [
        ("head_seconds", b"", None),
        ("head_seconds", b"G", 408),
        ("head_seconds", GET[:-2], 408),
        ("head_seconds", GET + b"GET /", 408),
        ("body_seconds", SLOW_BODY, 408),
        ("body_seconds", SLOW_BODY + b"{", 408),
        ("body_seconds", PUT % ADMIN_TOKEN.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 408),
        ("body_seconds", SLOW_BODY.replace(b"100", b"999999") + b"[" * 100_000, 413),
        ("idle_seconds", GET, None),
    ],
)
async def test_no_wait_for_a_client_is_without_an_end(
    context: Context, limit: str, sent: bytes, status: int | None
) -> None:
    async with serving(context, **{limit: 1.0 if sent.startswith(GET) else 0.2}) as connect:
        peer = await connect(sent)
        if sent.startswith(GET):
            assert (await answer(peer))[0] == 200
        received = await until_closed(peer)
        if status is None:
            assert received == b""
        else:
            assert received.startswith(b"HTTP/1.1 %d " % status)
            assert b"application/problem+json" in received
            assert json.loads(received.partition(b"\r\n\r\n")[2])["status"] == status


@pytest.mark.parametrize(("limit", "sent"), [("head_seconds", GET[:-2]), ("body_seconds", SLOW_BODY)])
async def test_one_byte_now_and_then_buys_no_time(context: Context, limit: str, sent: bytes) -> None:
    async with serving(context, **{limit: 0.3}) as connect:
        peer = await connect(sent)
        for _ in range(1000):
            peer[1].write(b" " if limit == "body_seconds" else b"X")
            with suppress(TimeoutError):
                received = await asyncio.wait_for(peer[0].read(65_536), 0.05)
                break
        else:
            pytest.fail("it was never cut")
        assert received.startswith(b"HTTP/1.1 408 ")


async def test_an_answer_that_nobody_takes_ends_its_connection(context: Context) -> None:
    async with serving(context, write_seconds=0.2) as connect:
        reader, writer = peer = await connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # asyncio has no public way
        request = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % ADMIN_TOKEN.encode()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not writer.transport.is_closing():
                with suppress(ConnectionError):
                    writer.write(request * 20)
                await asyncio.sleep(0.02)
        await until_closed(peer)


@pytest.mark.parametrize("sent", [b"", GET[:-2], GET, SLOW_BODY])
async def test_a_newcomer_takes_the_place_of_who_has_kept_us_waiting_for_longest(context: Context, sent: bytes) -> None:
    async with serving(context, connections_max=4) as connect:
        waiting = []
        for _ in range(12):
            waiting.append(await connect(sent))
            if sent == GET:
                assert (await answer(waiting[-1]))[0] == 200
            await asyncio.sleep(0)
        newcomer = await connect()
        assert await is_open(newcomer)
        assert [await until_closed(peer) for peer in waiting[:6]] == [b""] * 6
        assert await is_open(newcomer)


async def test_one_address_takes_no_places_of_others(context: Context) -> None:
    async with serving(context, connections_max=8, connections_per_address_max=2) as connect:
        other = await connect(source="127.0.0.2")
        many = [await connect() for _ in range(10)]
        for peer in many[:8]:
            await until_closed(peer)
        assert await is_open(other)
        assert all([await is_open(peer) for peer in many[8:]])


async def test_the_connections_of_a_trusted_proxy_are_those_of_its_clients(context: Context) -> None:
    async with serving(context, ("127.0.0.1",), connections_max=8, connections_per_address_max=2) as connect:
        many = [await connect() for _ in range(6)]
        assert all([await is_open(peer) for peer in many])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-Field: value\r\n" * 6000,
        PUT % ADMIN_TOKEN.encode() + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-Field: value\r\n" * 6000,
    ],
)
async def test_a_head_and_trailers_have_a_bound(context: Context, request_bytes: bytes) -> None:
    async with serving(context) as connect:
        received = await until_closed(await connect(request_bytes))
        assert received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


async def test_a_body_in_chunks_of_one_byte_is_read(context: Context) -> None:
    body = json.dumps({"pad": "y" * 30_000}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with serving(context) as connect:
        peer = await connect(PUT % ADMIN_TOKEN.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert (await answer(peer))[0] == 422


@pytest.mark.parametrize("upgrade", [b"h2c", b"TLS/1.2", b"websocket"])
async def test_an_upgrade_is_ignored_with_and_without_a_body(context: Context, upgrade: bytes) -> None:
    """As Java's and Apache's clients send it with every request."""
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n" % upgrade
    post = PUT % ADMIN_TOKEN.encode() + fields + b"Content-Length: 2\r\n\r\n{}"
    async with serving(context) as connect:
        peer = await connect()
        for request, status in ((GET[:-2] + fields + b"\r\n", 200), (post, 422), (post + GET, 422), (b"", 200)):
            peer[1].write(request)
            assert (await answer(peer))[0] == status


async def test_what_comes_behind_a_request_that_is_under_way_does_not_take_its_answer(context: Context) -> None:
    async with serving(context) as connect:
        peer = await connect(GET + b"\x00\x01 garbage\r\n\r\n")
        assert (await answer(peer))[0] in (200, 400)
        await until_closed(peer)


def event(secret: str) -> tuple[bytes, dict[str, str]]:
    body = json.dumps({"id": f"evt_{os.urandom(6).hex()}", "type": "x.y", "livemode": False, "data": {"object": {}}})
    at = int(time.time())
    signature = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return body.encode(), {"stripe-signature": f"t={at},v1={signature}"}


@contextmanager
def with_1024_descriptors(settings: Settings, log: Path) -> Iterator[int]:
    """A control plane that sells by a Stripe that is not there. Yields its port."""
    port = free_port()
    env = {
        **environment(settings),
        "QUOTAGATE_STRIPE_SECRET_KEY": "sk_test_x",
        "QUOTAGATE_STRIPE_WEBHOOK_SECRET": "whsec_tests",
        "QUOTAGATE_STRIPE_API_URL": f"http://127.0.0.1:{free_port()}",
    }

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    with log.open("wb") as output:
        process = subprocess.Popen(command(port), env=env, stdout=output, stderr=output, preexec_fn=limited)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not answers(client):
                assert time.monotonic() < deadline, log.read_text()
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


async def test_stripes_webhooks_are_filed_while_1300_silent_connections_hang_at_1024_descriptors(
    settings: Settings, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
    with with_1024_descriptors(settings, tmp_path / "control.log") as port:
        silent = [socket.socket() for _ in range(1300)]
        for each in silent:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
                statuses = []
                for _ in range(15):
                    body, headers = event("whsec_tests")
                    async with httpx.AsyncClient(base_url=client.base_url, timeout=PATIENCE_SECONDS) as another:
                        answer = await another.post("/api/webhooks/stripe", content=body, headers=headers)
                    statuses.append(answer.status_code)
                assert statuses == [200] * 15, (tmp_path / "control.log").read_text()[-3000:]
                assert (await client.get("/-/ready")).status_code == 200
        finally:
            for each in silent:
                each.close()


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, junk", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1,", "10.0.0.1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
        ("10.0.0.1", ",".join(["1.1.1.1"] + ["10.0.0.2"] * 5000), "10.0.0.2"),
        ("", "", "unknown"),
    ],
)
def test_who_a_client_is_a_proxy_says_only_if_the_settings_trust_it(peer: str, forwarded: str, client: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert client_address(peer, headers, Networks(["10.0.0.0/8"])) == client
    assert client_address(peer, headers, Networks(["::ffff:10.0.0.0/104"])) == client

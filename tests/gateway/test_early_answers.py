"""An answer that comes before the end of an upload, from an upstream that closes at once. The kernel resets what is
closed with bytes unread; that must cost neither the answer nor the target's health."""

import asyncio
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.gateway.rig import (
    PATIENCE_SECONDS,
    Gateway,
    MakeOrganization,
    Organization,
    Peer,
    StartGateway,
    Until,
    Upstream,
)

UPLOAD_BYTES = 4_000_000
LONG = {"consecutive_failures": 2, "seconds": 600, "seconds_max": 600}
SIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
CLOSED = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
TO_THE_END = b"HTTP/1.0 401 Unauthorized\r\n\r\nno"
CHUNKED = b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"


def upload(auth: bytes, framing: bytes = b"Content-Length: %d\r\n" % UPLOAD_BYTES, method: bytes = b"POST") -> bytes:
    return b"%b / HTTP/1.1\r\nHost: api.example.com\r\n%b%b\r\n" % (method, auth, framing)


class Abrupt:
    """An upstream in a thread: it reads a head, answers and closes with the rest unread."""

    def __init__(self) -> None:
        self.answer = CLOSED
        self.ends_first = False
        """Whether it sends FIN before the reset."""
        self.read_bytes = 0
        self.tls: ssl.SSLContext | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a held back answer ends with the reset
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            read = b""
            while b"\r\n\r\n" not in read:
                read += connection.recv(4096)
            if self.answer:
                connection.sendall(self.answer)
            while self.read_bytes and len(read) < self.read_bytes and (more := connection.recv(65_536)):
                read += more
            if self.ends_first:
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    def end(self) -> None:
        self._listener.close()


@pytest.fixture
def abrupt() -> Iterator[Abrupt]:
    made = Abrupt()
    yield made
    made.end()


def uploaded(port: int, head: bytes, body: bytes = bytes(UPLOAD_BYTES)) -> bytes:
    """What a client reads that sends all it can first, as most do. Everything up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
        with suppress(ConnectionError):
            client.sendall(head)
            client.sendall(body)
        read = b""
        with suppress(ConnectionError):
            while not read.endswith((b"no", b"}", b"0\r\n\r\n")) and (more := client.recv(65_536)):
                read += more
        return read


async def many(gateway: Gateway, head: bytes, body: bytes = bytes(UPLOAD_BYTES), count: int = 25) -> Counter[bytes]:
    """First lines and ends of the answers to so many uploads, two at a time."""

    async def half(number: int) -> list[bytes]:
        return [await asyncio.to_thread(uploaded, gateway.port, head, body) for _ in range(number)]

    first, second = await asyncio.gather(half(count // 2), half(count - count // 2))
    return Counter(read[:12] + b" " + read[-2:] for read in first + second)


@pytest.mark.parametrize("ends_first", [False, True])
@pytest.mark.parametrize("answer", [SIZED, CLOSED, CHUNKED])
async def test_an_upload_that_is_refused_at_once_gets_the_upstreams_answer(
    start: StartGateway, organization: MakeOrganization, abrupt: Abrupt, answer: bytes, ends_first: bool
) -> None:
    gateway = await start(abrupt.url, upstreams={"api": {"ejection": LONG}})
    acme = await organization("acme", 1000)
    abrupt.answer, abrupt.ends_first = answer, ends_first
    answers = await many(gateway, upload(acme.auth))
    assert answers == {answer[:12] + b" " + answer[-2:]: 25}, gateway.logs
    assert gateway.worker.upstreams["api"].targets[0].health.failures == 0
    assert await acme.used() == 25


@pytest.mark.parametrize("ends_first", [False, True])
async def test_an_upload_that_is_refused_at_once_over_tls_gets_the_upstreams_answer(
    start: StartGateway, organization: MakeOrganization, abrupt: Abrupt, ends_first: bool, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    abrupt.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    abrupt.tls.load_cert_chain(authority.issue("127.0.0.1"))
    abrupt.ends_first = ends_first
    tls = {"ca_file": str(authority.ca_file)}
    gateway = await start(abrupt.url.replace("http:", "https:"), upstreams={"api": {"ejection": LONG, "tls": tls}})
    acme = await organization("acme", 1000)
    assert (await many(gateway, upload(acme.auth)))[b"HTTP/1.1 413 no"] == 25
    assert gateway.worker.upstreams["api"].targets[0].health.failures == 0
    assert (await gateway.get("/", acme)).status == 413, "what has no body, too"


async def test_an_answer_that_ends_with_its_connection_is_whole_if_the_upstream_ended_it(
    start: StartGateway, organization: MakeOrganization, abrupt: Abrupt
) -> None:
    gateway = await start(abrupt.url)
    acme = await organization("acme", 1000)
    abrupt.answer, abrupt.ends_first = TO_THE_END, True
    assert (await many(gateway, upload(acme.auth)))[b"HTTP/1.1 401 \r\n"] == 25
    abrupt.ends_first = False  # only a reset: whether that was all of it, nobody can know, and the client sees that
    for _ in range(5):
        read = await asyncio.to_thread(uploaded, gateway.port, upload(acme.auth))
        assert not read.endswith(b"0\r\n\r\n")


async def test_a_chunked_upload_that_is_refused_at_once_gets_the_upstreams_answer(
    start: StartGateway, organization: MakeOrganization, abrupt: Abrupt
) -> None:
    gateway = await start(abrupt.url, upstreams={"api": {"ejection": LONG}})
    acme = await organization("acme", 1000)
    body = b"%x\r\n%b\r\n" % (50_000, bytes(50_000)) * 80 + b"0\r\n\r\n"
    head = upload(acme.auth, b"Transfer-Encoding: chunked\r\n", b"PUT")
    assert (await many(gateway, head, body))[b"HTTP/1.1 413 no"] == 25
    assert not gateway.worker.upstreams["api"].failing


@pytest.mark.parametrize(("status", "connections"), [(b"401 Unauthorized", [3, 4]), (b"200 OK", [1, 1])])
async def test_a_connection_on_which_a_long_upload_was_refused_carries_no_other_request(
    start: StartGateway, acme: Organization, upstream: Upstream, status: bytes, connections: list[int]
) -> None:
    """Its upstream may be about to reset it, since bytes are left that it never read. `connections`: after three long
    uploads, and after three short ones, which are read with their heads."""
    gateway = await start()
    upstream.answer = b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nno" % status
    client = await gateway.connect()
    for _ in range(3):
        answer = await client.ask(upload(acme.auth, b"Content-Length: 100000\r\n") + bytes(100_000))
        assert answer.status == int(status[:3])
    accepted = [upstream.accepted]
    upstream.answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
    for _ in range(3):
        await client.ask(upload(acme.auth, b"Content-Length: 10\r\n") + bytes(10))
    assert [*accepted, upstream.accepted] == connections


async def test_an_answer_after_half_of_an_upload_reaches_the_client(
    start: StartGateway, organization: MakeOrganization, abrupt: Abrupt
) -> None:
    gateway = await start(abrupt.url)
    acme = await organization("acme", 1000)
    abrupt.read_bytes = UPLOAD_BYTES // 2
    assert (await many(gateway, upload(acme.auth), count=10))[b"HTTP/1.1 413 no"] == 10


async def test_uploads_that_end_without_an_answer_eject_no_target(
    start: StartGateway, organization: MakeOrganization, abrupt: Abrupt
) -> None:
    """One client's uploads must not close an API to the others."""
    gateway = await start(abrupt.url, upstreams={"api": {"ejection": LONG}})
    acme = await organization("acme", 1000)
    abrupt.answer = b""
    for _ in range(6):
        read = await asyncio.to_thread(uploaded, gateway.port, upload(acme.auth))
        assert read.startswith(b"HTTP/1.1 502")
    assert not gateway.worker.upstreams["api"].failing
    abrupt.answer = SIZED
    assert (await gateway.get("/", acme)).status == 401


async def test_an_upload_that_the_upstream_does_not_read_ejects_no_target(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(upstreams={"api": {"ejection": LONG, "head_timeout_seconds": 0.1}})

    async def serve(peer: Peer) -> None:
        peer.transport.pause_reading()
        await asyncio.sleep(3600)

    upstream.serve = serve
    for _ in range(3):
        client = await gateway.connect()
        client.send(upload(acme.auth, b"Content-Length: 80000000\r\n") + bytes(16_000_000))
        assert (await client.answer("POST")).status == 504
    assert not gateway.worker.upstreams["api"].failing


async def test_what_is_refused_is_sent_no_further_while_its_answer_is_on_its_way(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    """RFC 9112 section 9.5. The rest of the upload is read and dropped, so that the client comes to its answer."""
    gateway = await start()
    go_on, read = asyncio.Event(), [0]

    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(CLOSED[:-1])
        await go_on.wait()
        peer.send(CLOSED[-1:])
        read[0] = len(await peer.gone())

    upstream.serve = serve
    client = await gateway.connect()
    client.send(upload(acme.auth))
    assert b"connection: close" in (await client.until(b"\r\n\r\n")).lower()
    await client.send_all(bytes(UPLOAD_BYTES))
    exchange = gateway.connections[0]._exchanges[0]
    await until(lambda: exchange.body_bytes == UPLOAD_BYTES)
    go_on.set()
    assert await client.exactly(2) == b"no"
    assert await client.ended()
    await until(lambda: gateway.pool._open == 0)
    assert read[0] == 0


async def test_an_answer_that_is_no_refusal_leaves_the_upload_going(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    """Both directions may stream, also on a connection that ends with them."""

    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(3):
            peer.send(await peer.exactly(100_000))

    upstream.serve = serve
    client = await gateway.connect()
    client.send(upload(acme.auth, b"Content-Length: 300000\r\n"))
    assert b" 200 OK\r\n" in await client.until(b"\r\n\r\n")
    for _ in range(3):
        client.send(b"x" * 100_000)
        echoed = 0
        while echoed < 100_000:
            echoed += (await client.reader.read(65_536)).count(b"x")
    assert (await client.rest()).endswith(b"0\r\n\r\n")


# The gateway's own refusals, to a client that is still sending


@pytest.mark.parametrize("reason", ["the body is too large", "no token", "an unknown method"])
async def test_a_refusal_of_the_gateways_own_reaches_a_client_that_is_still_sending(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, reason: str
) -> None:
    gateway = await start(limits={"body_bytes_max": 1_000_000})
    acme = await organization("acme", 1000)
    head, status = {
        "the body is too large": (upload(acme.auth), b"413"),
        "no token": (upload(b"", b"Content-Length: 999999\r\n"), b"401"),
        "an unknown method": (upload(acme.auth, method=b"BREW"), b"501"),
    }[reason]
    body = bytes(999_999 if reason == "no token" else UPLOAD_BYTES)
    assert await many(gateway, head, body) == {b"HTTP/1.1 %b " % status + b'"}': 25}
    assert not upstream.requests


async def test_a_refused_client_that_goes_on_sending_keeps_its_connection_for_a_while_and_not_for_ever(
    start: StartGateway, acme: Organization, until: Until, intervals: dict[str, Any]
) -> None:
    intervals |= {"client_linger_seconds": 3600, "client_linger_seconds_max": 7200}
    gateway = await start(limits={"body_bytes_max": 10})
    client = await gateway.connect()
    client.send(upload(acme.auth))
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
    connection = gateway.connections[0]
    first = connection.deadline
    while connection.deadline <= first:
        await client.send_all(bytes(1000))
        await asyncio.sleep(0.005)
    connection._lingers_until = gateway.worker.deadlines.now

    async def send_on() -> None:
        while True:
            await client.send_all(bytes(1000))
            await asyncio.sleep(0.005)

    with pytest.raises(ConnectionError):
        await send_on()

"""A gateway without sockets, so that thousands of streams can be tried: the transports are lists, the upstream answers
as soon as it has a whole request. h11, a parser that this project does not use, judges what comes out."""

import asyncio
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import h11

from gateway.client.client_connection import ClientConnection
from gateway.process.worker import Worker
from gateway.settings.root import GatewaySettings
from gateway.upstream.connection.upstream_connection import UpstreamConnection

FAILURES = 1_000_000  # more than any test makes
HOST = b"Host: api.example.com\r\n"


class Transport:
    """A connection whose other end is the test."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        sock = SimpleNamespace(setsockopt=lambda *_: None, getpeername=lambda: ("127.0.0.1", 50_000))
        return {"socket": sock}.get(name, default)


class Bench:
    """One worker; `play` is one connection's life."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Mapping[str, Any] | None = None) -> None:
        self.loop = loop
        self.worker = Worker(
            GatewaySettings.model_validate(
                {
                    "redis": {"url": "redis://127.0.0.1:1/0"},
                    "auth": {"algorithms": ["HS256"], "secret": "s" * 32, "issuer": "fuzz"},
                    # A target that lies stays the target.
                    "upstreams": {"api": {"url": "http://127.0.0.1:1", "ejection": {"consecutive_failures": FAILURES}}},
                    "access_log": {"enabled": False},
                    "routes": [{"path": "/", "upstream": "api", "exempt": True}],
                    **(settings or {}),
                }
            ),
            loop,
        )
        self.upstream = self.worker.upstreams["api"]
        self.upstream.send = self._dial
        self.connections: list[tuple[UpstreamConnection, Transport]] = []
        self.reads: list[bytes] = []

    def _dial(self, exchange: Any) -> None:
        pool = self.upstream.targets[0]
        pool._open += 1
        connection, transport = UpstreamConnection(pool), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]  # all that is used of it
        self.connections.append((connection, transport))
        connection.start(exchange, reused=False)

    def _turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def accept(self) -> tuple[ClientConnection, Transport, SimpleNamespace]:
        """A client's connection, and what uvicorn knows of all of them."""
        transport = Transport()
        state = SimpleNamespace(connections=set(), default_headers=[], total_requests=0)
        client = ClientConnection(None, state, {"worker": self.worker})  # type: ignore[arg-type]  # all that is used of it
        client.connection_made(transport)  # type: ignore[arg-type]  # all that is used of it
        return client, transport, state

    def play(self, reads: list[bytes], answer: list[bytes]) -> tuple[bytes, list[bytes], bool]:
        """Feeds a client's reads; each whole request is answered by these reads. What the client got, what reached the
        upstream of each request, and whether the client's connection goes on."""
        self.connections = []
        self._turn()  # else the time since the last one would pass for the client\'s
        client, transport, state = self.accept()
        for read in reads:
            if transport.closed:
                break
            client.data_received(read)
            self._answer(answer)
        goes_on = not transport.closed
        client.connection_lost(None)
        for connection, _ in self.connections:
            connection.connection_lost(None)
        assert not client._exchanges
        assert not state.connections
        return transport.written, [upstream.written for _, upstream in self.connections], goes_on

    def _answer(self, answer: list[bytes]) -> None:
        answered = True
        while answered:
            answered = False
            self._turn()
            for connection, transport in self.connections:
                exchange = connection.exchange
                if exchange is not None and exchange.request_complete and not transport.is_closing():
                    answered = True
                    for read in answer:
                        if not transport.is_closing():
                            connection.data_received(read)
                    if connection.exchange is exchange:
                        transport.close()
                        connection.connection_lost(None)


def requests_in(data: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], bool]:
    """The whole requests that h11 finds, as method, target and body, and whether it found nothing wrong."""
    parsed: list[tuple[bytes, bytes, bytes]] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return parsed, False
        match event:
            case h11.Request():
                head, body = event, b""
            case h11.Data():
                body += bytes(event.data)
            case h11.EndOfMessage():
                parsed.append((head.method, head.target, body))
                rest = connection.trailing_data[0]
                if not rest:
                    return parsed, True
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
                connection.receive_data(rest)
            case _:
                return parsed, True  # the rest is not whole


def forwarded_requests(messages: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """What the upstreams read: of each message one whole request, or the beginning of one that was cut."""
    whole = []
    for message in messages:
        parsed, sane = requests_in(message)
        assert sane, message
        assert len(parsed) <= 1, message
        assert not re.search(rb"(?im)^x[-_]quota[-_]org: evil", message.partition(b"\r\n\r\n")[0]), message
        whole += parsed
    return whole


def statuses(written: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n", written)]


def answer_in(written: bytes, method: bytes) -> tuple[int, bytes, bool]:
    """What h11 makes of the bytes that a client got: status, body, and whether the answer is whole."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(written)
    status, body = 0, b""
    while True:
        event = connection.next_event()
        match event:
            case h11.Response():
                status = event.status_code
            case h11.Data():
                body += bytes(event.data)
            case h11.EndOfMessage():
                assert not connection.trailing_data[0], written
                return status, body, True
            case h11.InformationalResponse():
                pass
            case _:
                return status, body, False

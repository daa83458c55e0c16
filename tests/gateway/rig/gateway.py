"""A gateway in the test's own event loop, on a real socket."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import structlog
from uvicorn.server import ServerState

from common.listening import bound, bound_unix
from gateway.client.client_connection import ClientConnection
from gateway.ledger.link import Link
from gateway.listener.acceptor import Acceptor
from gateway.listener.entrance import Turned
from gateway.outage.degraded import Degraded
from gateway.process.worker import Worker
from gateway.redis.connection import ReplyTimes
from gateway.settings.intervals import Intervals
from gateway.settings.listener import Listen
from gateway.settings.root import GatewaySettings
from gateway.upstream.pool import Pool
from tests.gateway.rig.answer import Answer
from tests.gateway.rig.organization import Organization
from tests.gateway.rig.peer import Client, connected
from tests.gateway.rig.requests import get


class Gateway:
    def __init__(self, worker: Worker, port: int, logs: list[Any]) -> None:
        self.worker = worker
        self.port = port
        self.logs = logs
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"Sun, 22 Nov 2026 12:00:00 GMT")]
        self.clients: list[Client] = []
        self.expected_errors: set[str] = set()
        """In the log; any other error fails the test."""

    @property
    def pool(self) -> Pool:
        """The connections to the one upstream."""
        return next(iter(self.worker._pools.values()))

    @property
    def degraded(self) -> Degraded:
        """What it does in an outage, where a route allows that."""
        assert self.worker.degraded is not None
        return self.worker.degraded

    @property
    def turned(self) -> Counter[Turned]:
        """Connections that were closed before a request."""
        assert self.worker.entrance is not None
        return self.worker.entrance.turned

    @property
    def connections(self) -> list[ClientConnection]:
        return [connection for connection in self.state.connections if isinstance(connection, ClientConnection)]

    @property
    def link(self) -> Link:
        """The one that there is where Redis is one server."""
        assert isinstance(self.worker.link, Link)
        return self.worker.link

    def gives_redis(self, times: ReplyTimes) -> None:
        """From now on these are the times that Redis has for a reply, also for those that it owes."""
        link = self.link
        link.times = times
        if link.connection is not None:
            link.connection.answer_within(times)

    @contextmanager
    def hurried(self, timeout_seconds: float = 0.2, budget_seconds: float = 0.05) -> Iterator[None]:
        """Meanwhile a Redis that does not answer is given up after these times, by default those of production."""
        patient = self.link.times
        self.gives_redis(ReplyTimes(timeout_seconds, budget_seconds))
        yield
        self.gives_redis(patient)

    def accept(self) -> ClientConnection:
        """What serves a connection that is accepted."""
        return ClientConnection(None, self.state, {"worker": self.worker})

    async def connect(self, receive_buffer: int | None = None) -> Client:
        return self.keep(await connected(self.port, receive_buffer))

    def keep(self, client: Client) -> Client:
        """It is closed with the gateway."""
        self.clients.append(client)
        return client

    async def ask(self, data: bytes, method: str | None = None) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        answer = await client.ask(data, method)
        await client.close()
        return answer

    async def get(self, path: str, organization: Organization | None = None, lines: bytes = b"") -> Answer:
        return await self.ask(get(path, organization, lines))


class SteadyTime:
    """The loop as the deadline sweep sees it: of a time in which the machine stood still only two ticks pass at once,
    so that what lies in the sockets by then comes before a timeout of a tenth of a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now = loop.time()

    def time(self) -> float:
        return self._now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        def tick() -> None:
            self._now = min(self._loop.time(), self._now + 2 * seconds)
            callback()

        return self._loop.call_later(seconds, tick)


def _bound(listen: Listen) -> socket.socket:
    return bound("127.0.0.1", 0) if listen.socket is None else bound_unix(Path(listen.socket), 0o600)


async def _serving(
    loop: asyncio.AbstractEventLoop, gateway: Gateway, listener: socket.socket
) -> asyncio.Server | Acceptor:
    """As a worker's process has it."""
    if gateway.worker.entrance is None:
        return await loop.create_server(gateway.accept, sock=listener)
    acceptor = Acceptor(loop, listener, gateway.worker.entrance, gateway.state.connections, gateway.accept)
    acceptor.start(backlog=128)
    return acceptor


@asynccontextmanager
async def running(settings: GatewaySettings, intervals: Intervals) -> AsyncIterator[Gateway]:
    loop = asyncio.get_running_loop()
    failures: list[str] = []
    loop.set_exception_handler(lambda _, context: failures.append(repr(context)))
    with structlog.testing.capture_logs([structlog.processors.format_exc_info]) as logs:
        worker = Worker(settings, loop, intervals=intervals)
        worker.deadlines._loop = SteadyTime(loop)  # type: ignore[assignment]  # all that a sweep uses of a loop
        gateway = Gateway(worker, 0, logs)
        await worker.start()
        listener = _bound(settings.listen)
        gateway.port = 0 if settings.listen.socket else listener.getsockname()[1]
        server = await _serving(loop, gateway, listener)
        try:
            yield gateway
        finally:
            server.close()
            for client in gateway.clients:
                await client.close()
            for connection in list(gateway.state.connections):
                connection.abort()  # type: ignore[union-attr]  # ours all have it
            await worker.close()
            listener.close()
    loop.set_exception_handler(None)
    assert failures == [], failures  # pytest explains assertions of tests' own modules only
    errors = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    unexpected = [entry for entry in errors if entry["event"] not in gateway.expected_errors]
    assert not unexpected, unexpected


class StartGateway(Protocol):
    """Starts a gateway in front of the upstream of the test (or the URL given) with these changes of its settings."""

    async def __call__(self, upstream_url: str | None = ..., /, **changes: Any) -> Gateway: ...


class StartPair(Protocol):
    """Starts a gateway in front of two targets, with these settings of their upstream."""

    async def __call__(self, **settings: Any) -> Gateway: ...

"""A gateway in the test's own event loop, on a real socket, in front of a real Valkey and an upstream that does exactly
what the test says. What only a process can show is in test_processes.py."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import h11
import psutil
import pytest
import structlog
import uvloop
from redis.asyncio import Redis
from uvicorn.server import ServerState

from devstack.ports import free_port
from devstack.token_mint import AUDIENCE, ISSUER, mint
from gateway import wheel
from gateway import worker as worker_module
from gateway.downstream import Downstream
from gateway.settings import GatewaySettings
from gateway.worker import Worker
from quota import keys
from quota.events import FIELD
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import Period
from tests.gateway.store import Store

SECRET = "a secret of the tests, 32 bytes and more"
PATIENCE_SECONDS = 30.0  # for what must happen; a test that waits longer has failed
TICK_SECONDS = 0.02  # of the gateway's wheel, so that a timeout of 0.1 s is one
# What Redis has for a reply: with the times of production, a slow machine would be a slow Redis.
PATIENT = {"timeout_ms": 60_000, "budget_ms": 60_000}
STREAM_LIMIT = 16 * 1024 * 1024


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}  # the loop that serves in production: transports differ in details


class Cut(Exception):
    """The peer ended the connection in the middle of a message."""


@dataclass
class Answer:
    status: int
    fields: list[tuple[bytes, bytes]]
    """In order and case, as they came."""
    body: bytes
    interim: list[int]
    interim_fields: list[list[tuple[bytes, bytes]]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.fields if key.lower() == name.encode()]

    def __getitem__(self, name: str) -> str | None:
        """The one field of that name, None without."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands in the answer {len(values)} times"
        return values[0] if values else None

    @property
    def problem(self) -> dict[str, Any]:
        assert self["content-type"] == "application/problem+json", (self.status, self.fields, self.body)
        told: dict[str, Any] = json.loads(self.body)
        assert told["status"] == self.status
        assert told["correlation_id"]
        return told

    @property
    def remaining(self) -> int:
        return int((self["ratelimit"] or "").partition("r=")[2].partition(";")[0])


class Peer:
    """One end of a connection. Every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_all(self, data: bytes) -> None:
        """Until the kernel has all of it. Raises OSError where the other side has gone."""
        try:
            self.writer.write(data)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.writer.drain()
        except RuntimeError as e:  # uvloop's way of saying that the transport was closed just now
            raise ConnectionResetError(str(e)) from e

    async def until(self, separator: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(separator)

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; raises ConnectionResetError when it is cut."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()

    async def gone(self) -> bytes:
        """Returns when the other side has ended the connection, in whatever way, with what came before."""
        with suppress(ConnectionError):
            return await self.rest()
        return b""

    async def request(self) -> bytes | None:
        """One whole request as it came, None at the end of the connection."""
        try:
            head = await self.until(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return None
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        if fields.get(b"transfer-encoding") != b"chunked":
            return head + await self.exactly(int(fields.get(b"content-length", 0)))
        body = b""
        while size := int(line := await self.until(b"\r\n"), 16):
            body += line + await self.exactly(size + 2)
        body += line
        while (trailer := await self.until(b"\r\n")) != b"\r\n":
            body += trailer
        return head + body + b"\r\n"

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await self.writer.wait_closed()


class Client(Peer):
    """A client connection; h11 judges the gateway's answers."""

    unread = b""

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, to a request of this method. Raises Cut, or ConnectionResetError."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(self.unread) if self.unread else None
        self.unread = b""
        found = Answer(0, [], b"", [])
        body = bytearray()
        while True:
            try:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        data = await self.reader.read(65_536)
                    if not data and not found.status:
                        raise Cut("the connection ended before an answer")
                    connection.receive_data(data)
                    continue
            except h11.RemoteProtocolError as e:
                if "without sending complete message" in str(e) or "peer closed" in str(e):
                    raise Cut(str(e)) from e
                raise
            match event:
                case h11.InformationalResponse():
                    found.interim.append(event.status_code)
                    found.interim_fields.append(event.headers.raw_items())
                case h11.Response():
                    found.status, found.fields = event.status_code, event.headers.raw_items()
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    self.unread = connection.trailing_data[0]
                    found.body = bytes(body)
                    return found

    async def ask(self, data: bytes, method: str | None = None) -> Answer:
        self.send(data)
        return await self.answer(method or data.split(b" ", 1)[0].decode())

    async def loses(self, data: bytes) -> bool:
        """Whether the connection ends before the answer does."""
        try:
            await self.ask(data)
        except (Cut, ConnectionError):
            return True
        return False

    async def ended(self) -> bool:
        """Whether the gateway ends the connection with nothing more on it."""
        return not self.unread and not await self.rest()


_closed: list[socket.socket] = []


def closed_port() -> int:
    """A port at which nobody listens, and which nobody else gets: it stays bound to the end of the run."""
    _closed.append(held := socket.socket())
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    return port


async def connected(port: int, receive_buffer: int | None = None) -> Client:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    limit = STREAM_LIMIT if receive_buffer is None else receive_buffer
    return Client(*await asyncio.open_connection(sock=sock, limit=limit))


Script = Callable[[Peer, bytes], Awaitable[None]]


class Upstream:
    """Records the exact bytes that reach it and plays exact bytes back."""

    def __init__(self) -> None:
        self.accepted = 0
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.port = 0
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.script: Script = self._play
        self.serve: Callable[[Peer], Awaitable[None]] = self._serve
        """What happens on a connection; by default each request is recorded and handed to `script`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _play(self, peer: Peer, request: bytes) -> None:
        peer.send(self.answer)

    def holds(self) -> asyncio.Event:
        """From now on answers come when this is set."""
        go_on = asyncio.Event()

        async def hold(peer: Peer, _: bytes) -> None:
            await go_on.wait()
            peer.send(self.answer)

        self.script = hold
        return go_on

    async def _serve(self, peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            self.requests.append(request)
            await self.script(peer, request)

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.serve(peer)
        finally:
            writer.close()


class Organization:
    """What a test asks of an organization whose entitlement is published."""

    def __init__(self, redis: Redis, org: str) -> None:
        self.id = org
        self._redis = redis
        self.ledger = Ledger(redis)
        self.token = mint(org, SECRET, now=time.time(), ttl=timedelta(hours=1))
        self.auth = b"Authorization: Bearer %b\r\n" % self.token.encode()
        self.version = 0

    async def publish(self, api_calls: int | None = 100, /, **terms: Any) -> None:
        self.version += 1
        seconds, _ = await self._redis.time()
        usual: dict[str, Any] = {
            "status": Status.ACTIVE,
            "meters": () if api_calls is None else (MeterLimit("api_calls", api_calls),),
            "periods": (Period(seconds - 1000, seconds + 100_000), Period(seconds + 100_000, seconds + 200_000)),
        }
        await self.ledger.publish(Entitlement(self.id, self.version, **usual | terms))

    async def used(self, meter: str = "api_calls") -> int:
        standing = await self.ledger.peek(self.id)
        assert standing is not None
        return sum(usage.used for usage in standing.usage if usage.meter == meter)

    async def events(self) -> list[str]:
        """The kinds of this organization's usage events, in order: t a take, s a settlement."""
        entries = await self._redis.xrange(keys.events_key(keys.shard_of(self.id, self.ledger.shards)))
        texts = [fields[FIELD].decode() for _, fields in entries]
        return [text[0] for text in texts if text.split(" ")[2] == self.id]

    async def settled(self, events: str) -> bool:
        """Whether the organization's events become these: a settlement follows the answer it belongs to."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "".join(await self.events()) != events:  # noqa: ASYNC110 - a stream rings no bell
                await asyncio.sleep(0.005)
        return True

    async def comes_to(self, used: int) -> None:
        """Waits until so many api_calls are charged."""
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            while await self.used() != used:  # noqa: ASYNC110 - the ledger calls nobody back
                await asyncio.sleep(0.01)


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
    def pool(self) -> Any:
        """The connections to the one upstream."""
        return next(iter(self.worker._pools.values()))

    @property
    def connections(self) -> list[Any]:
        return list(self.state.connections)

    def gives_redis(self, timeout_seconds: float, budget_seconds: float) -> None:
        """From now on this is the time that Redis has for a reply, also for those that it owes."""
        link = self.worker.link
        link._timeout, link._budget = timeout_seconds, budget_seconds
        if link._wire is not None:
            link._wire.answer_within(timeout_seconds, budget_seconds)

    @contextmanager
    def hurried(self, timeout_seconds: float = 0.2, budget_seconds: float = 0.05) -> Iterator[None]:
        """Meanwhile a Redis that does not answer is given up after these times, by default those of production."""
        patient = self.worker.link._timeout, self.worker.link._budget
        self.gives_redis(timeout_seconds, budget_seconds)
        yield
        self.gives_redis(*patient)

    async def connect(self, receive_buffer: int | None = None) -> Client:
        client = await connected(self.port, receive_buffer)
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


def get(path: str = "/", organization: Any = None, lines: bytes = b"") -> bytes:
    auth = organization.auth if organization is not None else b""
    return b"GET %b HTTP/1.1\r\nHost: api.example.com\r\n%b%b\r\n" % (path.encode(), auth, lines)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if nested else value
    return result


class SteadyTime:
    """The loop as the wheel of timeouts has it: of a time in which the machine stood still only two ticks pass at once,
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


@asynccontextmanager
async def running(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    loop = asyncio.get_running_loop()
    failures: list[str] = []
    loop.set_exception_handler(lambda _, context: failures.append(repr(context)))
    with structlog.testing.capture_logs() as logs:
        worker = Worker(settings, loop)
        worker.wheel._loop = SteadyTime(loop)  # type: ignore[assignment]  # all that a wheel uses of a loop
        gateway = Gateway(worker, 0, logs)
        await worker.start()
        server = await loop.create_server(
            lambda: Downstream(None, gateway.state, {"worker": worker}),  # type: ignore[arg-type]
            "127.0.0.1",
            0,
        )
        gateway.port = server.sockets[0].getsockname()[1]
        try:
            yield gateway
        finally:
            server.close()
            for client in gateway.clients:
                await client.close()
            for connection in gateway.connections:
                connection._transport.abort()
            await worker.close()
    loop.set_exception_handler(None)
    assert not failures
    errors = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    assert not [entry for entry in errors if entry["event"] not in gateway.expected_errors]


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[int], Awaitable[Client]]]:
    """A client of whatever listens on this port."""
    clients: list[Client] = []

    async def client(port: int) -> Client:
        clients.append(await connected(port))
        return clients[-1]

    yield client
    for each in clients:
        await each.close()


@pytest.fixture
def quick_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "TICK_SECONDS", TICK_SECONDS)


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways start without waiting for their Redis, which is not to be used here."""
    monkeypatch.setattr(worker_module, "START_SECONDS", 0.1)


@asynccontextmanager
async def listening(scripted: Upstream) -> AsyncIterator[Upstream]:
    server = await asyncio.start_server(scripted.on_connection, "127.0.0.1", 0, limit=STREAM_LIMIT)
    scripted.port = server.sockets[0].getsockname()[1]
    yield scripted
    server.close()
    for peer in scripted.peers:
        peer.writer.transport.abort()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with listening(Upstream()) as scripted:
        yield scripted


@pytest.fixture
async def issuer() -> AsyncIterator[Upstream]:
    """Another one, for what is asked of an issuer of tokens."""
    async with listening(Upstream()) as scripted:
        yield scripted


Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def start(
    redis_url: str,
    upstream: Upstream,
    quick_wheel: None,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Start]:
    """Starts a gateway in front of `upstream` (or the URL given) with these settings."""
    if "unopened" not in request.fixturenames:
        monkeypatch.setattr(worker_module, "START_SECONDS", PATIENCE_SECONDS)
    base = {
        "redis": {"url": redis_url, **PATIENT},
        "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {"api": {"url": upstream.url}},
        "routes": [{"path": "/", "upstream": "api"}],
    }
    async with AsyncExitStack() as stack:

        async def started(upstream_url: str = upstream.url, **changes: Any) -> Gateway:
            told = merged(merged(base, {"upstreams": {"api": {"url": upstream_url}}}), changes)
            return await stack.enter_async_context(running(GatewaySettings.model_validate(told)))

        yield started


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    """Nothing of one that has ended just now."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Process:
    """A gateway as the process that an operator runs."""

    def __init__(self, directory: Path, told: dict[str, Any]) -> None:
        self.file = directory / "gateway.yaml"
        self.log = directory / "gateway.log"
        self.port, self.management_port = (free_port(), free_port())
        self.told = merged(
            told,
            {"listen": {"port": self.port}, "management": {"port": self.management_port}},
        )
        self.write(self.told)
        argv = [sys.executable, "-m", "quotagate", "gateway", "--config", str(self.file)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)

    def write(self, told: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(told))

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "multiprocessing.spawn" in " ".join(_command(child))]

    def logged(self, words: str) -> int:
        return self.log.read_text().count(words)

    def metrics(self) -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{self.management_port}/metrics", timeout=PATIENCE_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(40)


@pytest.fixture
async def run(redis_url: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Starts the gateway's processes in front of `upstream`, and returns when they answer."""
    started: list[Process] = []
    base = {
        "redis": {"url": redis_url, **PATIENT},
        "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {"api": {"url": upstream.url}},
        "routes": [{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}],
        "standby": False,  # so that each child is a worker
    }

    async def go(**changes: Any) -> Process:
        process = Process(tmp_path, merged(base, changes))
        started.append(process)
        async with asyncio.timeout(60):
            while process.logged("Started server process") < process.told.get("workers", 1):
                assert process.process.poll() is None, process.log.read_text()
                await asyncio.sleep(0.02)
            with socket.socket() as probe:
                while probe.connect_ex(("127.0.0.1", process.port)):  # noqa: ASYNC110 - it listens a moment after it says so
                    await asyncio.sleep(0.02)
        return process

    yield go
    for process in started:
        if process.process.poll() is None:
            process.process.terminate()
        process.wait()


@pytest.fixture
async def gateway(start: Start) -> Gateway:
    return await start()


@pytest.fixture
async def organization(redis_url: str) -> AsyncIterator[Callable[..., Awaitable[Organization]]]:
    """Publishes an organization: by default one with 100 api_calls."""
    async with Redis.from_url(redis_url) as redis:

        async def publish(org: str = "acme", api_calls: int | None = 100, /, **terms: Any) -> Organization:
            made = Organization(redis, org)
            await made.publish(api_calls, **terms)
            return made

        yield publish


@pytest.fixture
async def acme(organization: Callable[..., Awaitable[Organization]]) -> Organization:
    return await organization()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.end()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until this holds."""

    async def wait(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - what is waited for happens inside the gateway
                await asyncio.sleep(0.002)

    return wait

"""A gateway in the test's own event loop, on a real socket, in front of a real Valkey and an upstream that does exactly
what the test says. What only a process can show is in test_processes.py."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis

from devstack.token_mint import AUDIENCE, ISSUER
from gateway.settings.intervals import Intervals
from gateway.settings.root import GatewaySettings
from tests.gateway import rig
from tests.gateway.bench import Bench
from tests.gateway.rig import (
    PATIENCE_SECONDS,
    PATIENT,
    PROCESS_SECONDS,
    SECRET,
    Client,
    Connect,
    Gateway,
    MakeOrganization,
    Organization,
    Process,
    StartGateway,
    StartProcess,
    Until,
    Upstream,
    connected,
    listening,
    merged,
    running,
)
from tests.gateway.store import Store

TICK_SECONDS = 0.02  # of the gateway's deadline sweep, so that a timeout of 0.1 s is one


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}  # the loop that serves in production: transports differ in details


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A client of whatever listens on this port."""
    clients: list[Client] = []

    async def client(port: int) -> Client:
        clients.append(await connected(port))
        return clients[-1]

    yield client
    for each in clients:
        await each.close()


@pytest.fixture
def intervals() -> dict[str, Any]:
    """Of the gateways that are started, by their names in `Intervals`; a test may change them before it starts one."""
    return {"start_seconds": PATIENCE_SECONDS, "tick_seconds": TICK_SECONDS}


@pytest.fixture
def unopened(intervals: dict[str, Any]) -> None:
    """Gateways start without waiting for their Redis, which is not to be used here."""
    intervals["start_seconds"] = 0.1


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with listening(Upstream()) as scripted:
        yield scripted


@pytest.fixture
async def issuer() -> AsyncIterator[Upstream]:
    """Another one, for what is asked of an issuer of tokens."""
    async with listening(Upstream()) as scripted:
        yield scripted


@pytest.fixture
async def start(
    redis_url: str,
    upstream: Upstream,
    intervals: dict[str, Any],
) -> AsyncIterator[StartGateway]:
    base = {
        "redis": {"url": redis_url, **PATIENT},
        "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {"api": {"url": upstream.url}},
        "routes": [{"path": "/", "upstream": "api"}],
    }
    async with AsyncExitStack() as stack:

        async def started(upstream_url: str | None = upstream.url, /, **changes: Any) -> Gateway:
            settings = merged(merged(base, {"upstreams": {"api": {"url": upstream_url}}}), changes)
            return await stack.enter_async_context(
                running(GatewaySettings.model_validate(settings), Intervals(**intervals))
            )

        yield started


@pytest.fixture
async def run(redis_url: str, upstream: Upstream, tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Starts the gateway's processes in front of `upstream`, and returns when they answer."""
    started: list[Process] = []
    base = {
        "redis": {"url": redis_url, **PATIENT},
        "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER, "audience": AUDIENCE},
        "upstreams": {"api": {"url": upstream.url}},
        "routes": [{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}],
        "standby": False,  # so that each child is a worker
        "drain": {"idle_seconds": 0.25},  # clients of tests stay connected
    }

    async def go(**changes: Any) -> Process:
        process = Process(tmp_path, merged(base, changes))
        started.append(process)
        async with asyncio.timeout(PROCESS_SECONDS):
            while process.logged("Started server process") < process.settings.get("workers", 1):
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
async def gateway(start: StartGateway) -> Gateway:
    return await start()


@pytest.fixture
async def organization(redis_url: str) -> AsyncIterator[MakeOrganization]:
    """Publishes an organization: by default one with 100 api_calls."""
    async with Redis.from_url(redis_url) as redis:

        async def publish(org: str = "acme", api_calls: int | None = 100, /, **terms: Any) -> Organization:
            made = Organization(redis, org)
            await made.publish(api_calls, **terms)
            return made

        yield publish


@pytest.fixture
async def acme(organization: MakeOrganization) -> Organization:
    return await organization()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.end()


@pytest.fixture
def until() -> Until:
    return rig.until


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A gateway without sockets."""
    with bench_of() as made:
        yield made


@pytest.fixture(scope="module")
def trusting_bench() -> Iterator[Bench]:
    """The same, which believes its clients what they say of theirs."""
    with bench_of(forwarded={"trusted": ["127.0.0.0/8"], "rfc7239": True}) as made:
        yield made


@contextmanager
def bench_of(**settings: Any) -> Iterator[Bench]:
    loop = asyncio.new_event_loop()
    made = Bench(loop, settings)
    yield made
    made.worker.deadlines.close()
    loop.close()

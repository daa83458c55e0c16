"""A Valkey of a test's own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, RedisError

from devstack import valkey
from devstack.child import Child
from devstack.ports import free_port

# 10 ms for each key, and clients are answered after each; loading lasts until the test ends it.
LOADING = {"key-load-delay": "10000", "loading-process-events-interval-bytes": "1024"}
FILLER_KEYS, FILLER_BYTES = 500, 1100


class Store:
    """A Valkey that a test may stop, continue, end, and have load its data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.child: Child | None = None

    @property
    def url(self) -> str:
        return valkey.url(self.port)

    def start(
        self, settings: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None, *, ready: bool = True
    ) -> None:
        options, log = {"enable-debug-command": "local"} | dict(settings or {}), self.directory / "valkey.log"
        self.child = valkey.start(self.directory, self.port, log=log, settings=options, env=env)
        if ready:
            valkey.wait_ready(self.child, self.port)

    def send(self, what: signal.Signals) -> None:
        assert self.child is not None
        os.kill(self.child.process.pid, what)

    def end(self) -> None:
        if self.child is not None:
            self.send(signal.SIGCONT)
            self.child.stop()
            self.child = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """It loads its data on open connections, as a replica does that begins anew from its primary."""
        async with Redis.from_url(self.url) as redis, Redis.from_url(self.url, socket_timeout=60) as reloaded:
            await _fill(redis)
            for name, value in LOADING.items():
                await redis.config_set(name, value)
            reloading = asyncio.create_task(reloaded.execute_command("DEBUG", "RELOAD"))
            try:
                async with _until_loaded(redis):
                    yield
            finally:
                await reloading

    @asynccontextmanager
    async def loading_after_a_restart(self) -> AsyncIterator[None]:
        async with Redis.from_url(self.url) as redis:
            await _fill(redis)
            await redis.save()
        self.end()
        self.start(LOADING | {"appendonly": "no"}, ready=False)
        async with Redis.from_url(self.url) as redis, _until_loaded(redis):
            yield


@contextmanager
def running_store(directory: Path) -> Iterator[Store]:
    """The directory is made where it is missing."""
    store = Store(directory)
    try:
        store.start()
        yield store
    finally:
        store.end()


async def follow(replica: Store, store: Store, running: Redis) -> None:
    """The replica has all that the running store has, and follows it."""
    await running.config_set("repl-diskless-sync-delay", 0)
    async with Redis.from_url(replica.url) as redis:
        await redis.replicaof("127.0.0.1", store.port)
        async with asyncio.timeout(60):
            while (await redis.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110 - a role rings no bell
                await asyncio.sleep(0.01)


async def _fill(redis: Redis) -> None:
    async with redis.pipeline() as pipeline:
        for number in range(FILLER_KEYS):
            pipeline.set(f"filler:{number}", os.urandom(FILLER_BYTES))
        await pipeline.execute()


@asynccontextmanager
async def _until_loaded(redis: Redis) -> AsyncIterator[None]:
    async with asyncio.timeout(60):
        while not await _loads(redis):  # noqa: ASYNC110 - it calls nobody back
            await asyncio.sleep(0.005)
    yield
    assert await _loads(redis), "it was loaded before the test was through"
    await redis.config_set("key-load-delay", 0)


async def _loads(redis: Redis) -> bool:
    try:
        await redis.ping()
    except BusyLoadingError:
        return True
    except RedisError:
        pass
    return False

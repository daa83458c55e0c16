"""A gateway that is cut off together with the old primary, and reaches neither Sentinels nor the next one: it gives
away what it is answered until that primary misses its replicas, and not one more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.takers import Takers
from devstack import valkey
from devstack.child import stopping
from devstack.ports import LOOPBACK, free_port
from devstack.sentinels import NAME
from tests.faults.test_durability import ORG, PATIENCE_SECONDS, admit, charged, publish, use_up
from tests.faults.test_sentinel import PATIENT_LINK, linked
from tests.gateway.store import Store

LIMIT, ADMITTED_BEFORE, PAUSE_SECONDS = 6_000, 50, 0.02
MAX_LAG_SECONDS = 1
CHUNK_BYTES = 65_536


class Wire:
    """Leads to a port until it is cut. Then connections stay, and nothing gets through but on those of a gateway that
    takes: it is on the far side."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._cut = False
        self._ends: list[asyncio.StreamWriter] = []
        self._passing: list[asyncio.Task[Any]] = []
        self.port = 0

    def cut(self) -> None:
        self._cut = True

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
            self._ends += writer, far_writer
            self._passing.append(cast("asyncio.Task[Any]", asyncio.current_task()))
            takes = asyncio.Event()
            await asyncio.gather(
                self._pass_on(reader, far_writer, takes, watched=True), self._pass_on(far_reader, writer, takes)
            )

    async def aclose(self) -> None:
        for end in self._ends:
            end.close()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, takes: asyncio.Event, *, watched: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if watched and b"EVALSHA" in data:
                    takes.set()
                if not self._cut or takes.is_set():
                    sink.write(data)
                    await sink.drain()
        if not self._cut or takes.is_set():  # else the other end does not hear of it
            sink.close()


@asynccontextmanager
async def leading_to(target: int) -> AsyncIterator[Wire]:
    wire = Wire(target)
    server = await asyncio.start_server(wire.on_connection, LOOPBACK, 0)
    wire.port = server.sockets[0].getsockname()[1]
    yield wire
    server.close()
    await wire.aclose()


class Sides:
    """The old primary and the gateway on one, its replica and the Sentinel on the other."""

    def __init__(self, old: Store, new: Store, to_old: Wire, to_sentinel: Wire, sentinel: int) -> None:
        self.old = old
        self.new = new
        self.url = f"redis+sentinel://{LOOPBACK}:{to_sentinel.port}/{NAME}"
        self._wires = to_old, to_sentinel
        self._sentinel = sentinel

    async def cut(self) -> None:
        """When the replica has just been heard, so that the primary goes on for a second or more."""
        async with Redis.from_url(self.old.url) as redis, asyncio.timeout(PATIENCE_SECONDS):
            while (await redis.info("replication"))["slave0"]["lag"]:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.01)
        for wire in self._wires:
            wire.cut()

    async def watched(self) -> None:
        """The Sentinel knows a replica that follows."""
        async with Redis(port=self._sentinel, protocol=2, decode_responses=True) as sentinel:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while "'ok'" not in str(await sentinel.execute_command("SENTINEL", "REPLICAS", NAME)):  # noqa: ASYNC110 - no bell
                    await asyncio.sleep(0.01)

    async def failed_over(self) -> None:
        async with Redis.from_url(self.new.url) as redis:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await _is_primary(redis):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)


async def _is_primary(redis: Redis) -> bool:
    with suppress(RedisError):  # a server that is promoted ends its connections
        return bool((await redis.info("replication"))["role"] == "master")
    return False


@asynccontextmanager
async def apart(directory: Path) -> AsyncIterator[Sides]:
    async with AsyncExitStack() as stack:
        old, new = Store(directory / "old"), Store(directory / "new")
        for store in (old, new):
            stack.callback(store.end)
        old.start({"repl-diskless-sync-delay": "0"})
        to_old = await stack.enter_async_context(leading_to(old.port))
        new.start({"replicaof": f"{LOOPBACK} {to_old.port}"}, ready=False)
        assert new.child is not None
        await asyncio.to_thread(valkey.wait_ready, new.child, new.port)  # the wire is of this loop
        async with Redis.from_url(old.url) as redis, Redis.from_url(new.url) as replica:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await replica.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110 - no bell
                    await asyncio.sleep(0.01)
            await redis.config_set("min-replicas-max-lag", MAX_LAG_SECONDS, "min-replicas-to-write", 1)
        port, settings = free_port(), directory / "sentinel.conf"
        settings.write_text(
            f"bind {LOOPBACK}\nport {port}\ndir {directory}\nsentinel monitor {NAME} {LOOPBACK} {to_old.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 5000\n"
        )
        child = stack.enter_context(stopping(valkey.spawn_with(settings, "sentinel", directory, (), "--sentinel")))
        valkey.wait_ready(child, port)
        to_sentinel = await stack.enter_async_context(leading_to(port))
        yield Sides(old, new, to_old, to_sentinel, port)


async def test_a_gateway_that_is_cut_off_with_the_old_primary_gives_away_what_it_is_answered_until_that_refuses(
    tmp_path: Path,
) -> None:
    async with apart(tmp_path) as sides:
        await publish(sides.old, LIMIT)
        await sides.watched()
        async with linked(sides.url, PATIENT_LINK) as link:
            takers = Takers(link, [ORG], 2)
            takers.pause_seconds = PAUSE_SECONDS
            takers.start()
            await admit(takers, ADMITTED_BEFORE)
            await sides.cut()
            await sides.failed_over()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while link.fault != "redis has fewer replicas than it must have":  # noqa: ASYNC110 - no bell
                    await asyncio.sleep(0.001)  # it rings no bell
            refused = len(takers.admitted)
            turned_away = sum(takers.lost.values())
            async with asyncio.timeout(PATIENCE_SECONDS):
                while sum(takers.lost.values()) < turned_away + 100:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.001)
            assert len(takers.admitted) == refused
            await takers.stop()
        twice = set(takers.admitted) - await charged(sides.new)
        assert twice, "while it was cut off it was answered"
        assert len(takers.admitted) + await use_up(sides.new, {}) == LIMIT + len(twice)

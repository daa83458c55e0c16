"""What happens to an installation, one thing at a time: what was struck answers again before the next one."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import asyncpg
import redis.asyncio

from bench.soak.processes import Installation, Part

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1"


Kind = TypeVar("Kind")


def in_turns(kinds: Sequence[Kind], chance: random.Random) -> Iterator[Kind]:
    """Without an end, in a random order; each kind as often as the others."""
    while True:
        yield from reversed(chance.sample(kinds, len(kinds)))  # the same order by a seed of before


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    strike: Callable[[], Awaitable[None]]


class Faults:
    """`chance`: one that was seeded plays the same faults in the same order again."""

    def __init__(self, installation: Installation, chance: random.Random) -> None:
        self._at = installation
        self._chance = chance

    def all(self) -> Sequence[Fault]:
        return (
            Fault("a gateway's worker killed", self._worker_killed),
            Fault("a gateway reloaded", self._reloaded),
            Fault("a gateway killed and started", lambda: self._restarted(self._at.gateways[1])),
            Fault("a control plane killed and started", lambda: self._restarted(self._at.controls[1])),
            Fault("Redis hangs", lambda: self._hangs(self._at.redis, 0.1, 1.5)),
            Fault("Redis killed and started on its data", lambda: self._restarted(self._at.redis)),
            Fault("Redis flushed", self._flushed),
            Fault("connections to Redis cut", self._redis_cut),
            Fault("PostgreSQL hangs", lambda: self._hangs(self._at.database, 0.5, 4.0)),
            Fault("PostgreSQL killed and started on its data", lambda: self._restarted(self._at.database)),
            Fault("connections to PostgreSQL cut", self._postgres_cut),
            Fault("the upstream hangs", lambda: self._hangs(self._at.upstream, 0.2, 2.0)),
        )

    async def _worker_killed(self) -> None:
        workers = self._at.gateways[1].workers()[-3:]  # Python's multiprocessing has a helper, which is the oldest
        with suppress(ProcessLookupError):
            os.kill(self._chance.choice(workers), signal.SIGKILL)

    async def _reloaded(self) -> None:
        self._at.gateways[1].signal(signal.SIGHUP)

    async def _restarted(self, part: Part) -> None:
        await asyncio.to_thread(part.kill)
        await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        await asyncio.to_thread(part.start)

    async def _hangs(self, part: Part, at_least: float, at_most: float) -> None:
        await asyncio.to_thread(part.stop_for, self._chance.uniform(at_least, at_most))

    async def _flushed(self) -> None:
        async with redis.asyncio.Redis.from_url(self._at.redis_url) as client:
            await client.flushall()

    async def _redis_cut(self) -> None:
        async with redis.asyncio.Redis.from_url(self._at.redis_url) as client:
            for kind in ("normal", "pubsub"):
                await client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def _postgres_cut(self) -> None:
        connection = await asyncpg.connect(self._at.dsn)
        try:
            await connection.execute("SELECT 1")
            own = connection.get_server_pid()
            await connection.fetch(TERMINATE, own)
        finally:
            await connection.close()

"""What happens to the servers, one thing at a time, and how long it takes until requests are admitted again."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from bench.faults.cluster import ClusterInstallation, ClusterServers
from bench.faults.servers import WatchedInstallation, WatchedServers
from bench.soak.traffic import ANSWER_SECONDS, CUT, Traffic, asked
from devstack.ports import LOOPBACK

PROBE = "ordinary-0"
"""An organization that has more units than are ever used."""
PROBE_SECONDS = 0.02
PATIENCE_SECONDS = 120.0
LAG_SECONDS = (0.3, 1.5)  # less than min-replicas-max-lag, after which the primary refuses writes
HANG_SECONDS = 1.0  # beyond the failover: the old primary wakes up beside the new one


@dataclass(frozen=True, slots=True)
class Outage:
    """Seconds until all gateways admitted again."""

    of_fault: float
    """Since the fault."""
    of_failover: float | None
    """Since the Sentinels named another primary; None: there was no failover."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    strike: Callable[[int], Awaitable[None]]
    """Gets the number of the primary."""
    mend: Callable[[int], Awaitable[None]]
    """The same server is made a replica of the new one."""
    fails_over: bool = True


class Faults:
    def __init__(self, at: WatchedInstallation | ClusterInstallation, traffic: Traffic, chance: random.Random) -> None:
        self._at = at
        self._traffic = traffic
        self._servers: WatchedServers | ClusterServers = at.servers
        self._chance = chance
        self._lost_at = 0.0  # monotonic: when the primary was struck

    def all(self) -> Sequence[Fault]:
        of_each = (
            Fault("primary killed", self._killed, self._started),
            Fault("primary killed and started at once", self._restarted, self._mended, fails_over=False),
            Fault("primary hangs, and wakes up beside the new one", self._stopped, self._continued),
        )
        if isinstance(self._servers, ClusterServers):
            return (
                *of_each,
                Fault("planned failover", self._taken_over, self._mended),
                Fault("slot migrated", self._migrated, self._mended, fails_over=False),
            )
        return (
            *of_each,
            Fault("primary cut off, both sides alive", self._cut_off, self._mended),
            Fault("primary killed while its replicas lag", self._killed_ahead, self._started),
            Fault("planned failover", self._failed_over, self._mended),
            Fault("planned failover, coordinated", self._handed_over, self._mended),
        )

    @property
    def _watched(self) -> WatchedServers:
        assert isinstance(self._servers, WatchedServers)  # noqa: S101 - `all` has these faults for them
        return self._servers

    @property
    def _of_cluster(self) -> ClusterServers:
        assert isinstance(self._servers, ClusterServers)  # noqa: S101 - as above
        return self._servers

    async def strike(self, fault: Fault) -> Outage:
        """Returns when the servers are as before, with another primary. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.to_thread(self._servers.look_often, often=True)
            while not await asyncio.to_thread(self._servers.watched):  # noqa: ASYNC110 - it rings no bell
                await asyncio.sleep(0.1)
            await asyncio.to_thread(self._servers.look_often, often=False)
            primary = await asyncio.to_thread(self._servers.primary)
            epoch = await self._epoch()
            answers = [list[tuple[float, bool]]() for _ in self._at.gateways]
            probing = [
                asyncio.create_task(self._probe(part.port, each))
                for part, each in zip(self._at.gateways, answers, strict=True)
            ]
            try:
                await fault.strike(primary)
                named = await self._named_another(primary) if fault.fails_over else None
                back_first = fault.fails_over and self._at.needs_all
                if back_first:
                    await fault.mend(primary)
                while await self._epoch() == epoch:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(PROBE_SECONDS)
                ended = [await self._again(each) for each in answers]
            finally:
                for task in probing:
                    task.cancel()
            if not back_first:
                await fault.mend(primary)
        return Outage(max(ended) - self._lost_at, None if named is None else max(0.0, max(ended) - named))

    async def _epoch(self) -> int:
        """Of the newest server that was vouched for."""
        connection = await asyncpg.connect(self._at.dsn)
        try:
            return int(await connection.fetchval("SELECT max(epoch) FROM ledger_epoch"))
        finally:
            await connection.close()

    async def _again(self, answers: Sequence[tuple[float, bool]]) -> float:
        """When a gateway admitted first after it had refused last. Another server is vouched for by now."""
        vouched = time.monotonic()
        while True:
            refused = [at for at, admitted in answers if not admitted and at > self._lost_at]
            if answers[-1][1] and answers[-1][0] > vouched:
                since = refused[-1] if refused else self._lost_at  # nobody needs to have noticed
                return next(at for at, admitted in answers if admitted and at > since)
            await asyncio.sleep(PROBE_SECONDS)

    async def _probe(self, port: int, answers: list[tuple[float, bool]]) -> None:
        while True:
            admitted = await self._probed(port) == 200
            answers.append((time.monotonic(), admitted))
            await asyncio.sleep(PROBE_SECONDS)

    async def _probed(self, port: int) -> int | str:
        began, answer = time.perf_counter(), CUT
        with suppress(OSError, asyncio.IncompleteReadError, ValueError, TimeoutError):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await asked(reader, writer, self._traffic.requests[PROBE])
            finally:
                writer.close()
        self._traffic.note(PROBE, began, answer.status, answer.request_id)
        return answer.status

    async def _named_another(self, primary: int) -> float:
        while await asyncio.to_thread(self._servers.primary) == primary:  # noqa: ASYNC110 - as above
            await asyncio.sleep(PROBE_SECONDS)
        return time.monotonic()

    async def _killed(self, primary: int) -> None:
        self._lost_at = time.monotonic()
        await asyncio.to_thread(self._servers.parts[primary].kill)

    async def _restarted(self, primary: int) -> None:
        await self._killed(primary)
        await self._started(primary)

    async def _started(self, primary: int) -> None:
        await asyncio.to_thread(self._servers.parts[primary].start)
        await self._mended(primary)

    async def _stopped(self, primary: int) -> None:
        self._lost_at = time.monotonic()
        self._servers.parts[primary].signal(signal.SIGSTOP)

    async def _continued(self, primary: int) -> None:
        await asyncio.sleep(self._chance.uniform(0, HANG_SECONDS))
        self._servers.parts[primary].signal(signal.SIGCONT)
        await self._mended(primary)

    async def _taken_over(self, primary: int) -> None:
        self._lost_at = time.monotonic()
        await asyncio.to_thread(self._of_cluster.hand_over, primary)

    async def _migrated(self, primary: int) -> None:
        self._lost_at = time.monotonic()
        await asyncio.to_thread(self._of_cluster.migrate, primary)

    async def _cut_off(self, primary: int) -> None:
        self._lost_at = time.monotonic()
        await asyncio.to_thread(self._watched.cut_off, primary)

    async def _killed_ahead(self, primary: int) -> None:
        await asyncio.to_thread(self._watched.deafen, primary)
        await asyncio.sleep(self._chance.uniform(*LAG_SECONDS))
        await self._killed(primary)

    async def _failed_over(self, primary: int) -> None:
        self._lost_at = time.monotonic()
        await asyncio.to_thread(self._watched.fail_over)

    async def _handed_over(self, primary: int) -> None:
        self._lost_at = time.monotonic()
        await asyncio.to_thread(self._watched.fail_over, "COORDINATED")

    async def _mended(self, primary: int) -> None:
        await asyncio.to_thread(self._servers.heal, primary)

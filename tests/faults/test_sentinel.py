"""A primary is lost under load in each way that there is, and its Sentinels put a replica in its place. Both planes
follow. No unit is given away that either of the two servers alone knew of."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bench.faults.servers import SENTINELS, SERVERS, WatchedServers
from bench.soak.processes import Part
from bench.takers import Takers
from common import redis_connections
from devstack.ports import free_port
from devstack.sentinels import Group
from gateway.ledger.configured import link_of
from gateway.ledger.link import Link
from gateway.settings.redis import Redis
from tests.faults.running import CLIENTS, DEADLINE_SECONDS, Load, Planes, planes, used, written
from tests.faults.test_durability import ADMITTED_BEFORE, LIMIT, ORG, admit, charged, publish, use_up
from tests.gateway.store import Store

DOWN_AFTER_MS = 500
PATIENT = {"timeout_ms": 20_000, "durability_ms": 10_000}
PATIENT_LINK = {"timeout_ms": 20_000, "budget_ms": 20_000}
FOUND_SECONDS = 20  # a take is looked for twice, five seconds apart


@contextmanager
def watched(directory: Path) -> Iterator[WatchedServers]:
    ports = [free_port() for _ in range(SERVERS)], [free_port() for _ in range(SENTINELS)]
    group = Group(directory, *ports, directory, down_after_ms=DOWN_AFTER_MS, secret=secrets.token_hex(8))
    with ExitStack() as ends:

        def kept(part: Part) -> Part:
            ends.callback(part.end)
            part.start()
            return part

        yield WatchedServers(group, kept)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedServers]:
    with watched(tmp_path_factory.mktemp("sentinel")) as servers:
        yield servers


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, servers: WatchedServers, postgres_dsn: str, sample_upstream: str
) -> Iterator[Planes]:
    with planes(tmp_path_factory.mktemp("planes"), servers.url, postgres_dsn, sample_upstream) as both:
        yield both


@pytest.fixture
async def primary(servers: WatchedServers) -> AsyncIterator[int]:
    """The number of the primary, once a failover could succeed; afterwards it is a replica that has all."""
    await _until(servers.watched)
    number = servers.primary()
    yield number
    if not servers.parts[number].lives():
        servers.parts[number].start()
    servers.parts[number].signal(signal.SIGCONT)
    servers.heal(number)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - servers ring no bell
            await asyncio.sleep(0.05)


class Strikes:
    """Each returns when the Sentinels name another primary."""

    def __init__(self, servers: WatchedServers, primary: int) -> None:
        self.servers = servers
        self.primary = primary

    async def killed(self) -> None:
        self.servers.parts[self.primary].kill()
        await self._failed_over()

    async def hangs(self) -> None:
        self.servers.parts[self.primary].signal(signal.SIGSTOP)
        await self._failed_over()

    async def hangs_and_wakes_up(self) -> None:
        await self.hangs()
        self.servers.parts[self.primary].signal(signal.SIGCONT)

    async def cut_off(self) -> None:
        self.servers.cut_off(self.primary)
        await self._failed_over()

    async def _failed_over(self) -> None:
        await _until(lambda: self.servers.primary() != self.primary)


async def nothing_is_given_away(stack: Planes, servers: WatchedServers, org: str, load: Load, allowance: int) -> None:
    """Not one more than the allowance, and each with its row. Takes whose replies were lost with a server are given
    back when they are found; the charge of one that was written before the next server knew of it may stay."""
    admitted, loop = load.answers[200], asyncio.get_running_loop()
    until = loop.time() + FOUND_SECONDS
    while admitted < allowance and loop.time() < until:
        admitted += await stack.admitted_now(org)
    admitted += await stack.admitted_now(org)
    assert allowance - 2 * CLIENTS <= admitted <= allowance
    async with redis_connections.client(servers.url) as redis:
        charged = await used(redis, org)
    assert admitted <= charged <= allowance
    assert await written(stack, org, charged) == charged


async def nothing_is_given_away_by(
    stack: Planes, servers: WatchedServers, strike: Callable[[], Awaitable[None]]
) -> None:
    org = stack.entitle(900)
    load = Load(stack, org)
    await load.run(300, strike)
    await nothing_is_given_away(stack, servers, org, load, 900)


async def test_a_primary_that_is_killed_is_left_for_the_one_that_sentinels_name_and_nothing_is_given_away(
    stack: Planes, servers: WatchedServers, primary: int
) -> None:
    await nothing_is_given_away_by(stack, servers, Strikes(servers, primary).killed)


async def test_a_primary_that_hangs_is_left_at_the_failover_though_its_connections_stay(
    stack: Planes, servers: WatchedServers, primary: int
) -> None:
    """The gateway has a minute for a reply: only the failover can have it leave."""
    await nothing_is_given_away_by(stack, servers, Strikes(servers, primary).hangs)


async def test_a_primary_that_was_cut_off_and_still_takes_requests_is_left_and_nothing_is_given_away(
    stack: Planes, servers: WatchedServers, primary: int
) -> None:
    await nothing_is_given_away_by(stack, servers, Strikes(servers, primary).cut_off)


async def test_a_replica_that_lagged_when_it_was_promoted_gives_nothing_away(
    stack: Planes, servers: WatchedServers, primary: int
) -> None:
    org = stack.entitle(900)
    load = Load(stack, org)

    async def killed_ahead() -> None:
        servers.deafen(primary)
        await load.admitted(load.answers[200] + 200)
        await Strikes(servers, primary).killed()

    await load.run(300, killed_ahead)
    await nothing_is_given_away(stack, servers, org, load, 900)


@pytest.mark.parametrize("fault", [Strikes.killed, Strikes.hangs_and_wakes_up, Strikes.cut_off])
async def test_with_replica_a_failover_takes_no_admitted_request_along_though_nobody_puts_it_back(
    tmp_path: Path, fault: Callable[[Strikes], Awaitable[None]]
) -> None:
    """No control plane asks the gateway what it was answered: what the promoted replica lacks would be lost."""
    with watched(tmp_path) as servers:
        await _until(servers.watched)
        await publish(_store(tmp_path, servers))
        async with linked(servers.url, {"durability": "replica", "replicas": SERVERS - 1, **PATIENT}) as link:
            takers = Takers(link, [ORG], CLIENTS)
            takers.start()
            await admit(takers, ADMITTED_BEFORE)
            await fault(Strikes(servers, servers.primary()))
            await takers.stop()
        promoted = _store(tmp_path, servers)
        assert set(takers.admitted) - await charged(promoted) == set()
        assert len(takers.admitted) + await use_up(promoted, {}) <= LIMIT


async def test_a_gateway_that_reaches_too_few_sentinels_keeps_its_connection_and_makes_no_other(tmp_path: Path) -> None:
    with capture_logs() as logs, watched(tmp_path) as servers:
        await _until(servers.watched)
        await publish(_store(tmp_path, servers), 1000 * LIMIT)
        async with linked(servers.url, PATIENT_LINK) as link:
            takers = Takers(link, [ORG], CLIENTS)
            takers.start()
            await admit(takers, ADMITTED_BEFORE)
            for sentinel in servers.sentinels[:2]:
                sentinel.signal(signal.SIGSTOP)
            await _until(lambda: any("do not tell the primary" in line["event"] for line in logs))
            await admit(takers, ADMITTED_BEFORE)
            with servers.client(servers.parts[servers.primary()].port) as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await _until(lambda: link.fault == "too few sentinels of redis answer")
            for sentinel in servers.sentinels[:2]:
                sentinel.signal(signal.SIGCONT)
            await admit(takers, ADMITTED_BEFORE)
            await takers.stop()


def _store(directory: Path, servers: WatchedServers) -> Store:
    """The primary as it is now."""
    store = Store(directory)
    store.port = servers.parts[servers.primary()].port
    return store


@asynccontextmanager
async def linked(url: str, settings: Mapping[str, Any]) -> AsyncIterator[Link]:
    link = link_of(asyncio.get_running_loop(), Redis.model_validate({"url": url, **settings}))
    link.start()
    try:
        assert await link.wait_open(DEADLINE_SECONDS), link.down_reason
        yield link
    finally:
        await link.close()

"""Redis dies under load: what was admitted is there afterwards, as far as the durability level promises."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis as Client

from bench.takers import Takers
from gateway.ledger.configured import link_of
from gateway.ledger.link import Link
from gateway.redis.pauses import Pause
from gateway.settings.redis import Redis
from quota import keys
from quota.events import FIELD
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods
from tests.faults.powercut import PowerCut
from tests.gateway.store import Store
from tests.replies import as_entries

ORG, LIMIT, CLIENTS = "acme", 6_000, 32
ADMITTED_BEFORE = 1_000  # the fault comes
PATIENCE_SECONDS = 120.0
AOF = {"durability": "aof"}
ALWAYS = {"appendfsync": "always"}
REPLICA = {"durability": "replica"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "master")
    yield store
    store.end()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "replica")
    yield store
    store.end()


@asynccontextmanager
async def linked(store: Store, settings: Mapping[str, Any]) -> AsyncIterator[Link]:
    link = link_of(asyncio.get_running_loop(), Redis.model_validate({"url": store.url, **settings}))
    link.start()
    try:
        assert await link.wait_open(PATIENCE_SECONDS), link.down_reason
        yield link
    finally:
        await link.close()


async def publish(store: Store, limit: int = LIMIT) -> None:
    async with Client.from_url(store.url) as redis:
        await Ledger(redis).check_layout()
        meters, periods = (MeterLimit("api_calls", limit),), monthly_periods(CALENDAR_ANCHOR, time.time())
        await Ledger(redis).publish(Entitlement(ORG, 1, Status.ACTIVE, meters=meters, periods=periods))


async def charged(store: Store) -> set[str]:
    """The request ids of the events, which are as many as the units that were used."""
    async with Client.from_url(store.url) as redis:
        entries = as_entries(await redis.xrange(keys.events_key(keys.shard_of(ORG, keys.SHARDS_DEFAULT))))
        ids = {fields[FIELD].split(b" ")[1].decode() for _, fields in entries}
        standing = await Ledger(redis).peek(ORG)
    assert standing is not None
    assert sum(usage.used for usage in standing.usage) == len(entries) == len(ids)
    return ids


async def admit(takers: Takers, more: int) -> None:
    wanted = len(takers.admitted) + more
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(takers.admitted) < wanted:  # noqa: ASYNC110 - the load rings no bell
            await asyncio.sleep(0.001)


async def refused_for(takers: Takers, word: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(word in reason for reason in takers.lost):  # noqa: ASYNC110 - the load rings no bell
            await asyncio.sleep(0.001)


async def until_not_kept(link: Link) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while Pause.LEVEL_NOT_KEPT not in link.pauses:  # noqa: ASYNC110 - the load rings no bell
            await asyncio.sleep(0.001)


async def use_up(store: Store, settings: Mapping[str, Any]) -> int:
    """How many more are admitted until nothing is left."""
    async with linked(store, settings) as link:
        takers = Takers(link, [ORG], CLIENTS)
        takers.start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await takers.finish()
        return len(takers.admitted)


async def synced(store: Store, cut: PowerCut) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while cut.unsynced(store):  # noqa: ASYNC110 - a disk rings no bell
            await asyncio.sleep(0.01)


async def test_with_aof_a_loss_of_power_under_load_loses_no_admitted_request_and_over_admits_none(
    tmp_path: Path, store: Store
) -> None:
    cut = PowerCut(tmp_path)
    store.start(ALWAYS, cut.env)
    await publish(store)
    async with linked(store, AOF) as link:
        takers = Takers(link, [ORG], CLIENTS)
        takers.start()
        await admit(takers, ADMITTED_BEFORE)
        cut.strike(store)
        await takers.stop()
    store.start(ALWAYS)
    assert set(takers.admitted) - await charged(store) == set()
    assert len(takers.admitted) + await use_up(store, AOF) <= LIMIT


@pytest.mark.parametrize(("level", "lost"), [("aof", False), ("memory", True)])
async def test_what_redis_answers_without_an_fsync_is_not_admitted_with_aof(
    tmp_path: Path, store: Store, level: str, lost: bool
) -> None:
    """With no-appendfsync-on-rewrite, even `always` does not sync while a child writes."""
    cut = PowerCut(tmp_path)
    store.start(ALWAYS | {"no-appendfsync-on-rewrite": "yes", "rdb-key-save-delay": "60000000"}, cut.env)
    await publish(store)
    async with Client.from_url(store.url) as redis, linked(store, {"durability": level}) as link:
        takers = Takers(link, [ORG], CLIENTS)
        takers.start()
        await admit(takers, ADMITTED_BEFORE)
        await redis.bgsave()
        if lost:
            await admit(takers, ADMITTED_BEFORE)
        else:
            await until_not_kept(link)
        cut.strike(store)
        await takers.stop()
    store.start(ALWAYS)
    assert bool(set(takers.admitted) - await charged(store)) == lost


async def test_with_memory_and_everysec_a_loss_of_power_loses_what_was_not_synced_and_no_other(
    tmp_path: Path, store: Store
) -> None:
    cut = PowerCut(tmp_path)
    store.start({"appendfsync": "everysec"}, cut.env)
    await publish(store)
    async with linked(store, {}) as link:
        before, after = (Takers(link, [ORG], CLIENTS) for _ in range(2))
        for takers in (before, after):
            takers.start()
            await admit(takers, ADMITTED_BEFORE)
            if takers is before:
                await takers.stop()
                await synced(store, cut)
        cut.strike(store)
        await after.stop()
    store.start()
    there = await charged(store)
    assert set(before.admitted) <= there
    assert set(after.admitted) - there


async def test_what_a_redis_that_is_killed_during_an_fsync_had_not_written_is_known_to_the_gateways_alone(
    tmp_path: Path, store: Store
) -> None:
    """Under everysec Redis writes nothing to its file while an fsync is under way, for up to two seconds, and answers
    all the same. Its gateways put it back; if they are killed before Redis is there again, nobody does."""
    cut = PowerCut(tmp_path)
    store.start({"appendfsync": "everysec"}, cut.env)
    await publish(store, 1000 * LIMIT)
    async with linked(store, {}) as link:
        takers = Takers(link, [ORG], 1)
        takers.start()
        await admit(takers, ADMITTED_BEFORE)
        cut.slow_disk()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await postponed(store, takers):
                pass
        store.send(signal.SIGKILL)
        await takers.stop()
        known = {line.split(b" ")[1].decode() for portion in link.receipts.report() for line in portion.splitlines()}
    cut.quick_disk()
    assert store.child is not None
    store.child.process.wait()
    store.start()
    lost = set(takers.admitted) - await charged(store)
    assert lost
    assert lost <= known


async def postponed(store: Store, takers: Takers) -> bool:
    """Whether takes were admitted while the file did not grow."""
    [file] = (store.directory / "appendonlydir").glob("*.incr.aof")
    size, admitted = file.stat().st_size, len(takers.admitted)
    await asyncio.sleep(0.01)
    return len(takers.admitted) > admitted and file.stat().st_size == size


async def test_a_redis_whose_disk_is_full_admits_nothing_and_loses_none_when_there_is_room_again(
    tmp_path: Path, store: Store
) -> None:
    cut = PowerCut(tmp_path)
    store.start({"appendfsync": "everysec"}, cut.env)
    await publish(store)
    async with linked(store, {}) as link:
        takers = Takers(link, [ORG], CLIENTS)
        takers.start()
        await admit(takers, ADMITTED_BEFORE)
        cut.fill_disk()
        await refused_for(takers, "MISCONF")
        admitted = len(takers.admitted)
        takers.lost.clear()
        await refused_for(takers, "MISCONF")
        assert len(takers.admitted) == admitted
        cut.free_disk()
        await admit(takers, ADMITTED_BEFORE)
        await takers.stop()
        await synced(store, cut)
    cut.strike(store)
    store.start()
    assert await charged(store) == set(takers.admitted)


async def test_with_aof_a_disk_that_is_full_ends_redis_and_loses_no_admitted_request(
    tmp_path: Path, store: Store
) -> None:
    cut = PowerCut(tmp_path)
    store.start(ALWAYS, cut.env)
    await publish(store)
    async with linked(store, AOF) as link:
        takers = Takers(link, [ORG], CLIENTS)
        takers.start()
        await admit(takers, ADMITTED_BEFORE)
        cut.fill_disk()
        assert store.child is not None
        assert await asyncio.to_thread(store.child.process.wait, PATIENCE_SECONDS) == 1
        store.child = None
        await takers.stop()
    cut.free_disk()
    store.start(ALWAYS)
    assert set(takers.admitted) - await charged(store) == set()


class Relay:
    """What a replica hears of its master, until it is cut off."""

    def __init__(self, master: Store) -> None:
        self._master = master
        self._writers: list[asyncio.StreamWriter] = []
        self.cut = False
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._master.port)
        self._writers += [writer, back]
        with suppress(ConnectionError):
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self.cut:
                    continue
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._server.close()


@pytest.fixture
async def relay(store: Store, replica: Store) -> AsyncIterator[Relay]:
    """`replica` follows `store`."""
    relay = Relay(store)
    await relay.start()
    store.start({"repl-diskless-sync-delay": "0"})
    await publish(store)
    replica.start({"replicaof": f"127.0.0.1 {relay.port}"})
    async with Client.from_url(replica.url) as redis, asyncio.timeout(PATIENCE_SECONDS):
        while (await redis.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110 - nor this
            await asyncio.sleep(0.01)
    yield relay
    relay.close()


async def load_and_promote(
    store: Store, replica: Store, relay: Relay, settings: Mapping[str, Any], more: int
) -> Takers:
    """The replica hears no more of its master, and is promoted when that was killed under load."""
    async with linked(store, settings) as link:
        takers = Takers(link, [ORG], CLIENTS)
        takers.start()
        await admit(takers, ADMITTED_BEFORE)
        relay.cut = True
        if more:
            await admit(takers, more)
        else:
            await until_not_kept(link)
        store.send(signal.SIGKILL)
        await takers.stop()
    async with Client.from_url(replica.url) as redis:
        await redis.replicaof("NO", "ONE")
    return takers


async def test_with_replica_a_promoted_replica_lacks_no_admitted_request_and_over_admits_none(
    store: Store, replica: Store, relay: Relay
) -> None:
    takers = await load_and_promote(store, replica, relay, REPLICA, 0)
    assert set(takers.admitted) - await charged(replica) == set()
    assert len(takers.admitted) + await use_up(replica, {}) <= LIMIT


async def test_with_memory_a_promoted_replica_lacks_what_it_had_not_heard(
    store: Store, replica: Store, relay: Relay
) -> None:
    takers = await load_and_promote(store, replica, relay, {}, 500)
    assert len(set(takers.admitted) - await charged(replica)) >= 500 - CLIENTS


async def test_with_replica_a_master_that_is_killed_at_any_moment_takes_no_admitted_request_with_it(
    store: Store, replica: Store, relay: Relay
) -> None:
    async with linked(store, REPLICA) as link:
        takers = Takers(link, [ORG], CLIENTS)
        takers.start()
        await admit(takers, ADMITTED_BEFORE)
        store.send(signal.SIGKILL)
        await takers.stop()
    async with Client.from_url(replica.url) as redis:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await redis.info("replication"))["master_link_status"] == "up":  # noqa: ASYNC110 - a role rings no bell
                await asyncio.sleep(0.01)  # it has read all that the master had sent
        await redis.replicaof("NO", "ONE")
    assert set(takers.admitted) - await charged(replica) == set()

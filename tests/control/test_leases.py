"""The promise: writers share the shards, and whichever of them dies, hangs or comes, each event is one row."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import pytest
from httpx import AsyncClient
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from control.http.context import Context
from control.ledger.streams import StreamId
from control.settings.control_plane import Settings
from control.usage.leases import changes
from control.usage.writer import Writer
from quota import keys
from tests.control.writers import PERIOD, PROCESS, SHARDS, Load, running, until, writer_of
from tests.replies import as_entries

pytestmark = pytest.mark.usefixtures("new_streams")

Holders = Callable[[], Awaitable[dict[int, int]]]


class StartWriter(Protocol):
    async def __call__(self, idle_seconds: float = 10) -> int: ...


@pytest.fixture
async def pair(context: Context) -> AsyncIterator[tuple[Writer, Writer]]:
    one, other = writer_of(context), writer_of(context)
    yield one, other
    await one.release()
    await other.release()


@pytest.fixture
async def process(settings: Settings) -> AsyncIterator[StartWriter]:
    """Starts another writer process; its id."""
    stores = settings.postgres.dsn.get_secret_value(), settings.redis.url.get_secret_value()
    children = []

    async def start(idle_seconds: float = 10) -> int:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, *stores, str(idle_seconds))
        children.append(child)
        return child.pid

    yield start
    for child in children:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


@pytest.fixture
def load(context: Context, redis: Redis) -> Load:
    return Load(context, redis)


@pytest.fixture
def holders(context: Context) -> Holders:
    """How many shards each session holds that holds any, as Postgres sees it."""

    async def read() -> dict[int, int]:
        async with context.db.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT pid, count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
                WHERE d.datname = current_database() AND locktype = 'advisory' AND objsubid = 2
                    AND classid = 1902605171
                GROUP BY 1
                """
            )
        return dict(rows)

    return read


async def test_a_writer_alone_holds_all_shards_and_two_hold_half_each(pair: tuple[Writer, Writer], load: Load) -> None:
    one, other = pair
    await one.resume()
    assert one.shares() == {"shards": SHARDS, "writers": 1}
    await other.resume()
    assert other.shares() == {"shards": 0, "writers": 2}, "nothing is taken from one that lives"
    await one.share()
    await other.share()
    assert one.shares() == other.shares() == {"shards": SHARDS // 2, "writers": 2}
    await load.add(3)
    while not await one.write():
        pass
    assert 0 < (await load.written())[0] < load.added, "and each writes its own only"
    while not await other.write():
        pass
    await load.is_written_once()


async def test_a_writer_process_that_is_killed_under_load_is_replaced_and_nothing_is_lost_or_doubled(
    context: Context,
    process: StartWriter,
    load: Load,
    holders: Holders,
) -> None:
    survivor = writer_of(context)
    async with running(survivor), load.flowing():
        for _ in range(2):
            pid = await process()
            await until(lambda: survivor.shares() == {"shards": SHARDS // 2, "writers": 2})
            await until(lambda: _is([SHARDS // 2] * 2, holders))
            os.kill(pid, signal.SIGKILL)
            await until(lambda: survivor.shares() == {"shards": SHARDS, "writers": 1})
    async with running(survivor):
        await load.is_written_once()


async def _is(shares: list[int], holders: Holders) -> bool:
    return sorted((await holders()).values()) == shares


async def test_writers_that_join_under_load_get_their_share_within_a_few_rounds(
    context: Context, load: Load, holders: Holders
) -> None:
    writers = [writer_of(context) for _ in range(3)]
    async with running(writers[0]), load.flowing():
        await until(lambda: writers[0].shares()["shards"] == SHARDS)
        async with running(*writers[1:]):
            await until(lambda: _is([10, 11, 11], holders))
        await until(lambda: writers[0].shares() == {"shards": SHARDS, "writers": 1})
    async with running(writers[0]):
        await load.is_written_once()


async def test_a_writer_whose_session_is_terminated_under_load_has_no_lease_and_joins_again(
    context: Context, load: Load, holders: Holders
) -> None:
    one, other = writer_of(context), writer_of(context)
    async with running(one, other), load.flowing():
        for _ in range(3):
            await until(lambda: _is([SHARDS // 2] * 2, holders))
            async with context.db.connection() as connection:
                pid = next(iter(await holders()))
                await connection.execute("SELECT pg_terminate_backend($1)", pid)

            async def ended(pid: int = pid) -> bool:
                return pid not in await holders()

            await until(ended)
    async with running(one, other):
        await load.is_written_once()


async def test_a_writer_that_hangs_loses_its_shards_and_does_no_harm_when_it_goes_on(
    context: Context, process: StartWriter, load: Load
) -> None:
    survivor = writer_of(context)
    async with running(survivor):
        pid = await process(idle_seconds=5)
        await until(lambda: survivor.shares()["writers"] == 2)
        async with load.flowing():
            await until(load.is_being_written)
            os.kill(pid, signal.SIGSTOP)
            await until(lambda: survivor.shares() == {"shards": SHARDS, "writers": 1})
            os.kill(pid, signal.SIGCONT)
            await until(lambda: survivor.shares() == {"shards": SHARDS // 2, "writers": 2})
        await load.is_written_once()


async def test_a_lease_holder_that_does_not_know_it_lost_its_leases_doubles_nothing(
    pair: tuple[Writer, Writer], context: Context, load: Load
) -> None:
    stale, other = pair
    await load.add()
    await stale.resume()
    async with context.db.connection() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON d.oid = database"
            " WHERE d.datname = current_database() AND classid = 1902605175 AND locktype = 'advisory'"
        )
    await other.resume()
    assert other.shares()["shards"] == SHARDS
    await asyncio.gather(stale.write(), other.write())
    await load.add()
    await asyncio.gather(stale.write(), other.write())
    await other.write()
    await load.is_written_once()


async def test_who_gains_a_shard_begins_at_its_committed_watermark(pair: tuple[Writer, Writer], load: Load) -> None:
    one, other = pair
    await one.resume()
    await load.add()
    while not await one.write():
        pass
    await one.release()
    await other.resume()
    await load.add()
    batch, _ = await other._read(other._positions)
    assert len(batch.rows) == len(load.orgs)


async def test_what_was_read_ahead_of_a_lost_shard_is_not_written(pair: tuple[Writer, Writer], load: Load) -> None:
    one, other = pair
    await one.resume()
    await load.add(50)
    assert not await one.write(), "there is more, and it is read already"
    assert one._ahead is not None
    await other.resume()
    await one.share()
    assert one._ahead is None
    await other.share()
    while not all([await one.write(), await other.write()]):
        pass
    await load.is_written_once()


async def test_the_lag_is_that_of_all_shards_whoever_owns_them(pair: tuple[Writer, Writer], redis: Redis) -> None:
    one, other = pair
    for writer in (one, other, one, other):
        await writer.share() if writer._leases and not writer._leases.lost else await writer.resume()
    seconds, _ = await redis.time()
    theirs = min(other._positions)
    event: dict[Any, Any] = {"e": f"t r acme {PERIOD.start} api_calls:1"}
    await redis.xadd(keys.events_key(theirs), event, id=f"{(seconds - 30) * 1000}-0")
    for writer in pair:
        assert 30 <= await writer.lag_seconds() < 90
    await other.write()
    for writer in pair:
        assert await writer.lag_seconds() == 0


async def test_while_postgres_is_away_the_lag_is_told_nevertheless(
    context: Context, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(context, watermarks_seconds=0.01)
    await writer.resume()
    seconds, _ = await redis.time()
    event: dict[Any, Any] = {"e": f"t r acme {PERIOD.start} api_calls:1"}
    await redis.xadd(keys.events_key(3), event, id=f"{(seconds - 30) * 1000}-0")

    @asynccontextmanager
    async def hanging(*_: object) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr("control.db.Database.connection", hanging)
    assert 30 <= await writer.lag_seconds() < 90
    await writer.release()


async def test_what_a_dead_writer_had_written_and_not_trimmed_its_successor_trims(
    pair: tuple[Writer, Writer], redis: Redis
) -> None:
    dead, successor = pair
    seconds, _ = await redis.time()
    key = keys.events_key(5)
    for age in (120, 90):
        event: dict[Any, Any] = {"e": f"t r{age} acme {PERIOD.start} api_calls:1"}
        await redis.xadd(key, event, id=f"{(seconds - age) * 1000}-0")
    await dead.resume()
    await dead.write()
    await dead.release()
    await successor.resume()
    await successor.trim()
    assert [StreamId.parse(raw).ms for raw, _ in as_entries(await redis.xrange(key))] == [(seconds - 90) * 1000]


async def test_a_stop_writes_what_is_left_and_hands_the_shards_over(pair: tuple[Writer, Writer], load: Load) -> None:
    one, other = pair
    await one.resume()
    await other.resume()
    await load.add()
    await one.drain()
    assert one.shares() == {"shards": 0, "writers": 0}
    rows, _, _ = await load.written()
    assert rows > 0, "its own; the others it gave away before"
    await other.share()
    assert other.shares() == {"shards": SHARDS, "writers": 1}
    await other.write()
    await load.is_written_once()


async def test_health_and_metrics_tell_the_shards_of_this_writer_and_how_many_writers_live(
    nobody: AsyncClient, context: Context, pair: tuple[Writer, Writer]
) -> None:
    other, _ = pair
    await context.writer.resume()
    await other.resume()
    await context.writer.share()
    for path in ("/-/health", "/-/ready"):
        assert (await nobody.get(path)).json()["writer"] == {"shards": SHARDS // 2, "writers": 2}
    lines = (await nobody.get("/-/metrics")).text.splitlines()
    assert f"quotagate_control_writer_shards {SHARDS // 2}.0" in lines
    assert "quotagate_control_writers 2.0" in lines


@given(st.integers(1, 64), st.lists(st.integers(0, 5), min_size=64, max_size=64), st.integers(1, 6), st.randoms())
def test_from_any_state_and_in_any_order_a_few_rounds_give_each_writer_its_fair_share(
    shards: int, held_by: list[int], living: int, order: Any
) -> None:
    writers = list(range(living))
    holders = {shard: held_by[shard] for shard in range(shards) if held_by[shard] < living}  # the dead hold nothing
    for _ in range(2):
        for me in order.sample(writers, living):
            give, take = changes(shards, writers, me, holders)
            assert all(holders[shard] == me for shard in give)
            assert not holders.keys() & set(take)
            for shard in give:
                del holders[shard]
            holders |= dict.fromkeys(take, me)
    shares = [sum(holder == me for holder in holders.values()) for me in writers]
    assert sum(shares) == shards
    assert max(shares) - min(shares) <= 1

"""The promise: every admitted unit is in Postgres exactly once, whatever dies when."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from common.clock import system_clock
from control.db import Database, StoreUnavailable
from control.http.context import Context
from control.ledger.streams import START, Streams
from control.settings.control_plane import Settings, WriterSettings
from control.usage import writer as writer_module
from control.usage.writer import Writer
from quota import keys
from quota.ledger import LedgerUnavailable
from tests.expected import monthly_period
from tests.replies import as_entries

pytestmark = pytest.mark.usefixtures("new_streams")

PERIOD = monthly_period(0, system_clock())
Append = Callable[..., Awaitable[str]]
Written = Callable[[str], Awaitable[list[tuple[Any, ...]]]]


@pytest.fixture
def writer(context: Context) -> Writer:
    return context.writer


@pytest.fixture
def append(redis: Redis) -> Append:
    """Adds events to an organization's stream as `take` does; the organization."""

    async def add(count: int, *, org: str | None = None, charge: str = "api_calls:1") -> str:
        org = org or f"org-{uuid4().hex[:12]}"
        key = keys.events_key(keys.shard_of(org, keys.SHARDS_DEFAULT))
        async with redis.pipeline(transaction=False) as pipeline:
            for _ in range(count):
                pipeline.xadd(key, {"e": f"t {uuid4()} {org} {PERIOD.start} {charge}"})
            await pipeline.execute()
        return org

    return add


@pytest.fixture
def written(context: Context) -> Written:
    """(rows, their units, the counter, distinct request ids) of an organization."""

    async def read(org: str) -> list[tuple[Any, ...]]:
        async with context.db.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT count(*), coalesce(sum(units), 0)::bigint,
                    (SELECT coalesce(sum(used), 0)::bigint FROM usage_counter WHERE org = $1),
                    count(DISTINCT request_id)
                FROM usage_event WHERE org = $1
                """,
                org,
            )
        return [tuple(row) for row in rows]

    return read


async def write_all(writer: Writer) -> None:
    await writer.resume()
    while not await writer.write():
        pass


async def test_each_event_is_one_row_and_moves_its_counter(writer: Writer, append: Append, written: Written) -> None:
    org, other = await append(250, charge="api_calls:3"), await append(7)
    await write_all(writer)
    await write_all(writer)
    assert await written(org) == [(250, 750, 750, 250)]
    assert await written(other) == [(7, 7, 7, 7)]


async def test_a_backlog_larger_than_a_batch_is_written_whole(
    context: Context, append: Append, written: Written
) -> None:
    org = await append(1234)
    await write_all(Writer(context.db, context.streams, WriterSettings(batch_entries_max=100)))
    assert await written(org) == [(1234, 1234, 1234, 1234)]


@pytest.mark.parametrize("moment", ["before the copy", "between copy and commit", "after the commit"])
async def test_a_writer_that_dies_loses_nothing_and_doubles_nothing(
    context: Context, append: Append, written: Written, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    org = await append(30)
    insert = writer_module.insert

    async def dying_insert(connection: Any, batch: Any) -> None:
        if moment == "between copy and commit":
            await insert(connection, batch)
        raise StoreUnavailable("the power is gone")

    dying = Writer(context.db, context.streams, WriterSettings())
    await dying.resume()
    if moment == "after the commit":
        await dying.write()  # and its memory is lost
    else:
        monkeypatch.setattr(writer_module, "insert", dying_insert)
        with pytest.raises(StoreUnavailable):
            await dying.write()
        monkeypatch.undo()
    await append(5, org=org)
    await write_all(Writer(context.db, context.streams, WriterSettings()))
    assert await written(org) == [(35, 35, 35, 35)]


async def test_two_writers_at_once_write_each_event_once(context: Context, append: Append, written: Written) -> None:
    orgs = [f"org-{uuid4().hex[:12]}" for _ in range(20)]
    pair = [Writer(context.db, context.streams, WriterSettings(batch_entries_max=200)) for _ in range(2)]
    for one in pair:
        await one.resume()

    async def keep_writing(one: Writer) -> None:
        for _ in range(25):
            await one.write()

    async def keep_adding() -> None:
        for _ in range(10):
            for org in orgs:
                await append(10, org=org)

    await asyncio.gather(*map(keep_writing, pair), keep_adding())
    await write_all(pair[0])
    for org in orgs:
        assert await written(org) == [(100, 100, 100, 100)]


async def test_a_writer_process_killed_at_random_points_loses_nothing_and_doubles_nothing(
    settings: Settings, context: Context, append: Append, written: Written
) -> None:
    script = """if True:
        import asyncio, sys
        from redis.asyncio import Redis
        from control.db import Database
        from control.settings.control_plane import WriterSettings
        from control.ledger.streams import Streams
        from control.usage.writer import Writer

        async def main(dsn, url):
            async with Database.open(dsn) as db, Redis.from_url(url) as redis:
                writer = Writer(db, Streams(redis, 32), WriterSettings(poll_ms=1, batch_entries_max=300))
                await writer.resume()
                print("writing", flush=True)
                await writer.run()

        asyncio.run(main(*sys.argv[1:]))
    """
    stores = settings.postgres.dsn.get_secret_value(), settings.redis.url.get_secret_value()
    orgs = [f"org-{uuid4().hex[:12]}" for _ in range(8)]
    added, rng = 0, random.Random(7)
    for _ in range(4):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, *stores, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        await child.stdout.readline()
        deadline = time.monotonic() + rng.uniform(0.02, 0.25)
        while time.monotonic() < deadline:
            for org in orgs:
                await append(40, org=org)
            added += 40
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
    await write_all(context.writer)
    for org in orgs:
        assert await written(org) == [(added, added, added, added)]


async def test_what_is_no_event_is_quarantined_and_the_others_are_written(
    context: Context, writer: Writer, redis: Redis, append: Append, written: Written
) -> None:
    org = await append(3)
    key = keys.events_key(keys.shard_of(org, 32))
    await redis.xadd(key, {"e": b"\xff\x00 not an event"})
    await append(2, org=org)
    await write_all(writer)
    assert await written(org) == [(5, 5, 5, 5)]
    async with context.db.connection() as connection:
        row = await connection.fetchrow(
            "SELECT entry, reason FROM usage_quarantine WHERE shard = $1", keys.shard_of(org, 32)
        )
    assert row["entry"] == b"e=\xff\x00 not an event"
    assert "ascii" in row["reason"]


async def test_grants_overage_and_corrections_arrive_in_rows_and_counters(
    context: Context, writer: Writer, redis: Redis, append: Append
) -> None:
    org = await append(1, charge="api_calls:10:2:g1=3 tokens:7")
    key = keys.events_key(keys.shard_of(org, 32))
    await redis.xadd(key, {"e": f"s r1 {org} {PERIOD.start} api_calls:-4:-2:g1=-2"})
    await write_all(writer)
    async with context.db.connection() as connection:
        counters = await connection.fetch(
            "SELECT meter, used, burnt, overage FROM usage_counter WHERE org = $1 ORDER BY 1", org
        )
        grants = await connection.fetch("SELECT grant_id, used FROM grant_counter WHERE org = $1", org)
        rows = await connection.fetch("SELECT kind, meter, units, overage, burnt FROM usage_event WHERE org = $1", org)
    assert [tuple(c) for c in counters] == [("api_calls", 6, 1, 0), ("tokens", 7, 0, 0)]
    assert [tuple(g) for g in grants] == [("g1", 1)]
    assert {tuple(str(v) for v in r) for r in rows} == {
        ("take", "api_calls", "10", "2", "{'g1': 3}"),
        ("take", "tokens", "7", "0", "None"),
        ("settle", "api_calls", "-4", "-2", "{'g1': -2}"),
    }


async def test_the_time_of_a_row_is_redis_time_and_its_day_has_a_partition(
    context: Context, writer: Writer, append: Append
) -> None:
    org = await append(1)
    await write_all(writer)
    async with context.db.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT tableoid::regclass::text AS partition, stream_ms, occurred_at,
                'usage_event_' || to_char(occurred_at, 'YYYYMMDD') AS day
            FROM usage_event WHERE org = $1
            """,
            org,
        )
    assert round(row["occurred_at"].timestamp() * 1000) == row["stream_ms"]
    assert row["partition"] == row["day"]


async def test_only_written_entries_are_trimmed_and_those_of_the_last_minute_stay(
    writer: Writer, redis: Redis, append: Append
) -> None:
    key = keys.events_key(keys.shard_of("acme", 32))
    now_ms = int(time.time() * 1000)
    event: dict[Any, Any] = {"e": f"t r acme {PERIOD.start} api_calls:1"}
    await redis.xadd(key, event, id=f"{now_ms - 120_000}-0")
    await writer.resume()
    await writer.write()
    await redis.xadd(key, event, id=f"{now_ms - 90_000}-0")
    await redis.xadd(key, event, id=f"{now_ms}-0")
    await writer.trim()
    assert [raw.decode() for raw, _ in as_entries(await redis.xrange(key))] == [
        f"{now_ms - 120_000}-0",  # the watermark itself: what it stands on is not in doubt
        f"{now_ms - 90_000}-0",
        f"{now_ms}-0",
    ]
    await write_all(writer)
    await writer.trim()
    assert [raw.decode() for raw, _ in as_entries(await redis.xrange(key))] == [f"{now_ms}-0"]


async def test_a_watermark_that_went_back_is_followed_and_not_written_over(
    postgres_dsn: str, writer: Writer, append: Append, written: Written
) -> None:
    org = await append(4)
    await write_all(writer)
    async with Database.open(postgres_dsn) as db, db.connection() as connection:
        # As if a standby took over that had not everything.
        await connection.execute("ALTER TABLE usage_event DISABLE TRIGGER USER")
        await connection.execute("DELETE FROM usage_event; DELETE FROM usage_counter; DELETE FROM usage_watermark")
        await connection.execute("INSERT INTO usage_watermark SELECT n, 0, 0, now() FROM generate_series(0, 31) n")
        await connection.execute("ALTER TABLE usage_event ENABLE TRIGGER USER")
    await append(1, org=org)
    while not await writer.write():
        pass
    assert await written(org) == [(5, 5, 5, 5)]


async def test_the_lag_is_the_age_of_the_oldest_unwritten_event(writer: Writer, redis: Redis) -> None:
    await writer.resume()
    assert await writer.lag_seconds() == 0
    seconds, _ = await redis.time()
    key = keys.events_key(keys.shard_of("acme", 32))
    await redis.xadd(key, {"e": f"t r acme {PERIOD.start} api_calls:1"}, id=f"{(seconds - 30) * 1000}-0")
    assert 30 <= await writer.lag_seconds() < 90
    await write_all(writer)
    assert await writer.lag_seconds() == 0


async def test_stores_that_are_away_are_told_by_name_and_nothing_is_lost(
    context: Context, settings: Settings, append: Append, written: Written
) -> None:
    org = await append(3)
    async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        with pytest.raises(LedgerUnavailable):
            await write_all(Writer(context.db, Streams(nowhere, 32), WriterSettings()))
    async with Database.open(settings.postgres.dsn.get_secret_value()) as closing:
        writer = Writer(closing, context.streams, WriterSettings())
        await writer.resume()
    with pytest.raises(StoreUnavailable):
        await writer.write()
    await write_all(context.writer)
    assert await written(org) == [(3, 3, 3, 3)]


async def test_a_stream_of_one_server_that_cannot_be_read_is_told_and_not_left_out(
    context: Context, redis: Redis
) -> None:
    await redis.set(keys.events_key(0), "no stream")
    try:
        with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
            await context.streams.read({0: START, 1: START}, {0: 1, 1: 1})
        with pytest.raises(LedgerUnavailable, match="WRONGTYPE"):
            await context.streams.trim({0: 1, 1: 1})
    finally:
        await redis.delete(keys.events_key(0))


@pytest.fixture
async def running_writer(context: Context) -> AsyncIterator[Sequence[str]]:
    task = asyncio.create_task(context.writer.run())
    yield ()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("running_writer")
async def test_an_event_is_a_row_without_anybody_asking_for_it(append: Append, written: Written) -> None:
    for _ in range(3):  # also when the writer has nothing else to do, and waits
        org = await append(1)
        async with asyncio.timeout(60):
            while await written(org) != [(1, 1, 1, 1)]:  # noqa: ASYNC110  # what is waited for happens in Postgres
                await asyncio.sleep(0.01)

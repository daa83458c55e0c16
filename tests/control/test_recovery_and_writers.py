"""A recovery while a writer reads, commits or tells: each event is written once, none is put back beside its row."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from control.http.context import Context
from control.ledger.streams import Entries, StreamId, Streams
from control.settings.control_plane import WriterSettings
from control.usage.writer import Writer
from quota import generation, keys
from tests.control.epochs import SHARDS, held, hold
from tests.control.plane import Entitled
from tests.control.usage import counted, spend, used, write_all, written
from tests.replies import as_bytes, as_entries

pytestmark = pytest.mark.usefixtures("vouched_streams")


async def test_what_a_writer_is_about_to_commit_is_not_put_back_beside_it(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    """It read from the server before, and its transaction takes longer than gateways have to come back."""
    org = await entitled("starter")
    shard = keys.shard_of(org, 32)
    [request_id] = await spend(context, org)
    [(id_, fields)] = [e for e in as_entries(await redis.xrange(keys.events_key(shard))) if org.encode() in e[1][b"e"]]
    await context.writer.resume()
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with context.db.transaction() as writer:
        await writer.fetch("SELECT FROM usage_watermark ORDER BY shard FOR UPDATE")
        await writer.execute(
            "INSERT INTO usage_event SELECT * FROM jsonb_populate_record(NULL::usage_event, $1)",
            {
                "org": org,
                "occurred_at": datetime.fromtimestamp(int(id_.split(b"-")[0]) / 1000, UTC).isoformat(),
                "stream_seq": int(id_.split(b"-")[1]),
                "meter": "api_calls",
                "kind": "take",
                "stream_ms": int(id_.split(b"-")[0]),
                "request_id": request_id,
                "period_start": datetime.fromtimestamp(int(fields[b"e"].split(b" ")[3]), UTC).isoformat(),
                "units": 1,
                "overage": 0,
                "burnt": [],
                "shard": shard,
            },
        )
        await redis.xtrim(keys.events_key(shard), 0, approximate=False)  # the new server has it not
        await redis.rpush(keys.RECEIPTS, fields[b"e"])
        await hold(redis, "another:9:0123")
        recovering = asyncio.create_task(context.recovery.round())
        async with asyncio.timeout(60), context.db.connection() as connection:
            while not await connection.fetchval(waiting):  # what is waited for happens in Postgres
                assert not recovering.done()
                await asyncio.sleep(0.01)
    await recovering
    assert await redis.xlen(keys.events_key(shard)) == 0, "nothing was put back"


class HeldStreams(Streams):
    """Whoever reads them gets what they held, once he is let go."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(Redis(connection_pool=redis.connection_pool), len(SHARDS))
        self.has_read, self.may_go = asyncio.Event(), asyncio.Event()

    async def read(self, after: Mapping[int, StreamId], counts: Mapping[int, int]) -> dict[int, Entries]:
        entries = await super().read(after, counts)
        self.has_read.set()
        await self.may_go.wait()
        return entries


@pytest.mark.parametrize("lost", ["a failover", "a flush", "a failover, and no watermark is there"])
async def test_what_a_writer_read_before_a_recovery_and_would_write_after_it_is_written_once(
    context: Context, entitled: Entitled, redis: Redis, lost: str
) -> None:
    """It stood still between reading the streams and its transaction, for longer than a recovery takes."""
    orgs = [await entitled("starter") for _ in range(4)]
    shards = {keys.shard_of(org, len(SHARDS)) for org in orgs}
    await write_all(context)
    if "no watermark" in lost:
        async with context.db.connection() as connection:
            await connection.execute("DELETE FROM usage_watermark")
    streams = HeldStreams(redis)
    writer = Writer(context.db, streams, WriterSettings(), context.clock)
    await writer.resume()
    request_ids = {org: await spend(context, org) for org in orgs}
    takes = [
        fields[b"e"]
        for shard in shards
        for _, fields in as_entries(await redis.xrange(keys.events_key(shard)))
        if fields[b"e"].split(b" ")[1].decode() in {each for [each] in request_ids.values()}
    ]
    assert len(takes) == len(orgs)
    writing = asyncio.create_task(writer.write())
    async with asyncio.timeout(60):
        await streams.has_read.wait()
    if "no watermark" in lost:
        async with context.db.connection() as connection:
            await connection.execute("DELETE FROM usage_watermark")
    for shard in shards:  # the new server has none of it, and gateways tell what they were answered
        await redis.xtrim(keys.events_key(shard), 0, approximate=False)
    await redis.rpush(keys.RECEIPTS, *takes)
    await (redis.delete(*map(keys.generation_key, SHARDS)) if lost == "a flush" else hold(redis, "another:9:0123"))
    await context.recovery.round()
    streams.may_go.set()
    await writing
    async with asyncio.timeout(60):
        while not await writer.write():
            pass
    for org in orgs:
        assert (await written(context, org), await counted(context, org)) == (request_ids[org], 1)


@pytest.mark.parametrize("says_since", [True, False])
async def test_a_part_of_a_report_that_is_read_late_and_without_the_others_puts_back_nothing_that_is_written(
    context: Context, entitled: Entitled, redis: Redis, monkeypatch: pytest.MonkeyPatch, says_since: bool
) -> None:
    """Its events left the stream since, as `writer.keep_seconds` says: the rows alone have them."""
    monkeypatch.setattr("control.reconcile.missing_events.RECENT_SECONDS", 0)
    org = await entitled("starter")
    stream, ids = keys.events_key(keys.shard_of(org, len(SHARDS))), sorted(await spend(context, org, 3))
    entries = [
        (id_, fields[b"e"]) for id_, fields in as_entries(await redis.xrange(stream)) if org.encode() in fields[b"e"]
    ]
    assert await written(context, org) == ids
    await redis.xtrim(stream, 0, approximate=False)
    await asyncio.sleep(1.1)  # moments are compared in whole seconds
    since = [b"since " + entries[0][0].split(b"-")[0]] if says_since else []
    await redis.rpush(keys.RECEIPTS, b"\n".join([*since, *(take for _, take in entries)]))
    await context.recovery.round()
    assert (await redis.llen(keys.RECEIPTS), await redis.xlen(stream)) == (0, 0)
    assert await written(context, org) == ids


async def test_a_writer_whose_watermarks_are_gone_makes_them_anew_before_it_writes(
    context: Context, entitled: Entitled
) -> None:
    org = await entitled("starter")
    await context.writer.resume()
    ids = await spend(context, org)
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM usage_watermark")
    assert not await context.writer.write()
    assert (await written(context, org), await counted(context, org)) == (ids, 1)


async def test_a_server_from_before_is_recognised_though_it_names_itself_and_its_own_events_are_written_once(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org, quiet = await entitled("starter"), await entitled("starter")
    [old] = await held(redis)
    common = await spend(context, org, 3)
    await written(context, org)
    own, stray = as_bytes(await redis.dump(keys.org_key(org, 32))), await spend(context, org, 2)  # which nobody wrote
    stray_hash = as_bytes(await redis.dump(keys.org_key(org, 32)))
    shard = keys.shard_of(org, 32)
    stream = as_bytes(await redis.dump(keys.events_key(shard)))

    # Another server is in front, without the last two.
    await redis.restore(keys.org_key(org, 32), 0, own, replace=True)
    for entry, _ in as_entries(await redis.xrange(keys.events_key(shard)))[-2:]:
        await redis.xdel(keys.events_key(shard), entry)
    await hold(redis, "another:1:0123")
    await context.recovery.round()
    [newer] = await held(redis)
    later = await spend(context, org, 4)
    await spend(context, quiet)
    assert await written(context, org) == sorted(common + later)

    # The old one comes back as it was.
    await redis.restore(keys.org_key(org, 32), 0, stray_hash, replace=True)
    await redis.restore(keys.events_key(shard), 0, stream, replace=True)
    await hold(redis, old)
    assert await used(context, org) == 5
    await context.recovery.round()
    [newest] = await held(redis)
    assert generation.epoch_of(newest) > generation.epoch_of(newer)
    assert await used(context, org) == 9
    assert await written(context, org) == sorted(common + later + stray)
    assert await context.scan.check([org, quiet]) == []
    async with context.db.connection() as connection:
        [incident] = await connection.fetch(
            "SELECT content FROM incident WHERE kind = 'usage_recovered' AND key = 'redis'"
        )
    assert incident["content"]["events_of_old_server"] == 2


async def test_the_writer_tells_the_gateways_no_more_than_is_written(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("starter")
    shard = keys.shard_of(org, 32)

    async def announced() -> dict[int, tuple[int, int]]:
        await context.writer.resume()
        await context.streams.announce_written(context.writer._positions)
        marks = await redis.hgetall(keys.WRITTEN)
        return {int(field): (int(epoch), int(ms)) for field, value in marks.items() for epoch, ms in [value.split()]}

    async def now_ms() -> int:
        seconds, microseconds = await redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    await write_all(context)
    before = await now_ms()
    first = await announced()
    assert first.keys() == set(SHARDS)
    assert all(epoch == context.recovery.epoch and before <= ms <= before + 60_000 for epoch, ms in first.values())

    await spend(context, org)
    [(entry, _)] = as_entries(await redis.xrange(keys.events_key(shard)))[-1:]
    waiting = await announced()
    assert waiting[shard][1] < int(entry.split(b"-")[0])
    await spend(context, org)
    assert (await announced())[shard] == waiting[shard]
    await write_all(context)
    assert (await announced())[shard][1] > int(entry.split(b"-")[0])

    # What a flush has taken from the stream is not written.
    await redis.delete(keys.WRITTEN, *map(keys.generation_key, SHARDS))
    assert await announced() == {}
    await hold(redis, "-0123")
    assert await announced() == {}


async def test_a_writer_that_finds_a_fence_raised_reads_the_streams_by_new_connections(
    context: Context, entitled: Entitled, redis_url: str
) -> None:
    """Its old ones may lead to a server that was cut off, and still answers there."""
    org = await entitled("starter")
    async with Redis.from_url(redis_url) as own:
        writer = Writer(context.db, Streams(own, len(SHARDS)), WriterSettings(), context.clock)
        await writer.resume()
        await spend(context, org)
        before = await own.client_id()
        async with context.db.connection() as connection:
            await connection.execute("UPDATE usage_watermark SET fence = fence + 1")
        assert not await writer.write()
        assert await own.client_id() != before

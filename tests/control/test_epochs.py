"""The promise: who is vouched for is known to Postgres alone, and a Redis that says otherwise is put together first."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.entitlements import store
from control.entitlements.hydrate import Hydrator
from control.http.context import Context
from control.journal import Author
from control.ledger.clocks import LedgerClock
from control.ledger.streams import Entries, StreamId, Streams
from control.reconcile.recovery import LATE_LINES_EACH, Recovery
from control.settings import WriterSettings
from control.usage.writer import Writer
from devstack import postgres
from quota import generation, keys
from quota.events import Charge, Kind, UsageEvent
from quota.model import Admitted
from tests import charging
from tests.control.test_reconcile import write_all
from tests.expected import format_event
from tests.replies import as_bytes, as_entries, as_text

Entitled = Callable[..., Awaitable[str]]
SHARDS = range(32)


async def server(redis: Redis) -> str:
    return str((await redis.info("server"))["run_id"])


async def held(redis: Redis) -> set[str]:
    found = await redis.mget([keys.generation_key(shard) for shard in SHARDS])
    return {as_text(each) for each in found if each is not None}


async def hold(redis: Redis, text: str) -> None:
    await redis.mset({keys.generation_key(shard): text for shard in SHARDS})


async def epochs(context: Context) -> list[tuple[int, str]]:
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT epoch, server FROM ledger_epoch ORDER BY epoch")
    return [(row["epoch"], row["server"]) for row in rows]


async def spend(context: Context, org: str, times: int = 1) -> list[str]:
    ids = [uuid4().hex for _ in range(times)]
    for request_id in ids:
        assert isinstance(await charging.take(context.ledger, org, request_id, {"api_calls": 1}), Admitted)
    return ids


async def used(context: Context, org: str) -> int:
    standing = await context.ledger.peek(org)
    return -1 if standing is None else sum(counter.used for counter in standing.usage)


async def rows(context: Context, org: str) -> list[str]:
    await write_all(context)
    async with context.db.connection() as connection:
        found = await connection.fetch("SELECT request_id FROM usage_event WHERE org = $1 ORDER BY request_id", org)
    return [row["request_id"] for row in found]


@pytest.fixture(autouse=True)
async def new_streams(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("UPDATE usage_watermark SET stream_ms = 0, stream_seq = 0")
    await context.recovery.round()


async def test_each_server_that_is_vouched_for_has_an_epoch_above_all_before_and_redis_holds_it(
    context: Context, redis: Redis
) -> None:
    before = await epochs(context)
    own = await server(redis)
    assert before[-1][1] == own
    for text in (None, "another:9:0123", "-0123"):
        await (redis.delete(*map(keys.generation_key, SHARDS)) if text is None else hold(redis, text))
        await context.recovery.round()
        [told] = await held(redis)
        number, named = (await epochs(context))[-1]
        assert (named, generation.epoch_of(told), told.split(":")[0]) == (own, number, own)
        assert number > before[-1][0]
        before = await epochs(context)
    assert before[-1][0] > 9, "Redis knew of a higher one: the database was put back"
    await context.recovery.round()
    assert await epochs(context) == before, "nothing has changed"


async def test_what_gateways_tell_while_postgres_is_away_waits_within_a_bound_and_none_of_it_is_lost(
    context: Context, entitled: Entitled, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    org, ledger_clock = await entitled("starter"), LedgerClock()
    standing = await context.ledger.peek(org)
    assert standing is not None
    assert standing.period is not None
    start = standing.period.start
    ids = sorted(uuid4().hex for _ in range(60))
    takes = [format_event(UsageEvent(Kind.TAKE, each, org, start, (Charge("api_calls", 1, 0),))) for each in ids]
    most = 3 * LATE_LINES_EACH
    recovery = Recovery(
        context.db, context.ledger, context.streams, context.scan, context.clock, ledger_clock, late_max=most
    )
    await recovery.round()
    for take in takes:  # each of them many times, as gateways do that connect again and again
        await redis.rpush(keys.RECEIPTS, "\n".join([take] * LATE_LINES_EACH))

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr("control.db.Database.transaction", away)
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                await recovery.round()
            assert len(recovery._late) <= most
        assert await redis.llen(keys.RECEIPTS) == len(takes) - 3
    for _ in range(len(takes)):
        await recovery.round()
    assert await redis.llen(keys.RECEIPTS) == 0
    assert await rows(context, org) == ids


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


async def counted(context: Context, org: str) -> int:
    async with context.db.connection() as connection:
        return int(await connection.fetchval("SELECT sum(used)::bigint FROM usage_counter WHERE org = $1", org))


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
        assert (await rows(context, org), await counted(context, org)) == (request_ids[org], 1)


async def test_a_writer_whose_watermarks_are_gone_makes_them_anew_before_it_writes(
    context: Context, entitled: Entitled
) -> None:
    org = await entitled("starter")
    await context.writer.resume()
    ids = await spend(context, org)
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM usage_watermark")
    assert not await context.writer.write()
    assert (await rows(context, org), await counted(context, org)) == (ids, 1)


async def test_what_was_vouched_for_before_there_were_epochs_is_taken_over_as_it_is(
    context: Context, redis: Redis, postgres_dsn: str
) -> None:
    postgres.execute(postgres_dsn, "DELETE FROM ledger_epoch")
    own = await server(redis)
    await hold(redis, f"{own}:0123456789abcdef")
    count = "SELECT count(*) FROM audit_journal WHERE action = 'usage.recovered'"
    recovered = postgres.execute(postgres_dsn, count)
    await context.recovery.round()
    [told] = await held(redis)
    assert told.startswith(f"{own}:1:")
    assert postgres.execute(postgres_dsn, count) == recovered


async def test_a_server_from_before_is_recognised_though_it_names_itself_and_its_own_events_are_written_once(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org, quiet = await entitled("starter"), await entitled("starter")
    [old] = await held(redis)
    common = await spend(context, org, 3)
    await rows(context, org)
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
    assert await rows(context, org) == sorted(common + later)

    # The old one comes back as it was.
    await redis.restore(keys.org_key(org, 32), 0, stray_hash, replace=True)
    await redis.restore(keys.events_key(shard), 0, stream, replace=True)
    await hold(redis, old)
    assert await used(context, org) == 5
    await context.recovery.round()
    [newest] = await held(redis)
    assert generation.epoch_of(newest) > generation.epoch_of(newer)
    assert await used(context, org) == 9
    assert await rows(context, org) == sorted(common + later + stray)
    assert await context.scan.check([org, quiet]) == []
    async with context.db.connection() as connection:
        [told] = await connection.fetch("SELECT content FROM incident WHERE kind = 'usage_recovered' AND key = 'redis'")
    assert told["content"]["events_of_old_server"] == 2


async def test_an_entitlement_that_went_back_with_the_server_is_loaded_anew(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("bulk")
    [old], before = await held(redis), as_bytes(await redis.dump(keys.org_key(org, 32)))
    await hold(redis, "another:1:0123")
    await context.recovery.round()
    await store.set_entitlement(
        context.db, org, lambda *_: store.Wanted("tiny"), None, context.clock(), Author("t", "t")
    )
    lower = await context.publisher.install(org)
    await redis.restore(keys.org_key(org, 32), 0, before, replace=True)
    await hold(redis, old)
    await context.recovery.round()
    assert await context.ledger.peek(org) is None, "nothing is given away by the old terms"
    await context.publisher.install(org)
    standing = await context.ledger.peek(org)
    assert standing is not None
    assert (standing.version, standing.meters) == (lower.version, lower.meters)


async def test_a_gateway_that_asks_is_told_the_epoch_and_one_that_has_seen_a_higher_one_gets_one_above_it(
    context: Context, redis: Redis
) -> None:
    hydrator = Hydrator(redis, context.publisher, context.recovery)
    task = asyncio.create_task(hydrator.run())
    try:
        number = (await epochs(context))[-1][0]
        assert await answered(redis, "a 0") == number
        assert await answered(redis, f"b {number}") == number
        assert await answered(redis, f"c {number + 5}") > number + 5
        [old] = await held(redis)
        await hold(redis, f"{await server(redis)}:{number}:0123")
        assert await answered(redis, "d 0") > generation.epoch_of(old)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def answered(redis: Redis, question: str) -> int:
    await redis.rpush(keys.VOUCH, question)
    async with asyncio.timeout(30):
        while (answer := await redis.get(keys.answer_key(question.split(" ")[0]))) is None:  # noqa: ASYNC110 - a key rings no bell
            await asyncio.sleep(0.01)
    return int(answer)


async def test_while_postgres_is_away_a_gateway_is_told_of_the_server_that_was_vouched_for_last_and_of_no_other(
    context: Context, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = context.recovery.epoch

    async def away() -> None:
        raise StoreUnavailable("Postgres: away")

    monkeypatch.setattr(context.recovery, "_read_last", away)
    await context.recovery.answer("a 0")
    assert await redis.get(keys.answer_key("a")) == str(number).encode()
    await context.recovery.round()
    await hold(redis, f"{await server(redis)}:{number - 1}:0123")
    await context.recovery.answer("b 0")
    assert await redis.get(keys.answer_key("b")) == b"-"


async def test_what_nobody_remembers_is_told_as_a_number_by_incident_journal_and_metric(
    context: Context, redis: Redis
) -> None:
    await redis.rpush(keys.RECEIPTS, "kept 5000 7 21", "kept 100 2 4")
    await redis.delete(*map(keys.generation_key, SHARDS))
    await context.recovery.recover()
    number = (await epochs(context))[-1][0]
    async with context.db.connection() as connection:
        content = await connection.fetchval(
            "SELECT content FROM incident WHERE kind = 'usage_lost' AND key = $1", f"epoch {number}"
        )
        journaled = await connection.fetchval(
            "SELECT after FROM audit_journal WHERE action = 'usage.recovered' ORDER BY id DESC LIMIT 1"
        )
    for told in (content, journaled):
        assert (told["takes_lost_at_most"], told["units_lost_at_most"]) == (9, 25)
    assert context.recovery.units_lost == 25


@pytest.mark.parametrize("whose", ["this process", "another process"])
async def test_what_gateways_answer_a_recovery_reaches_it_whoever_looks_at_redis_meanwhile(
    context: Context, entitled: Entitled, redis: Redis, whose: str
) -> None:
    """Or it would be put back only after new takes were admitted in its place."""
    org = await entitled("starter")
    standing = await context.ledger.peek(org)
    assert standing is not None
    assert standing.period is not None
    start = standing.period.start
    ids = sorted(uuid4().hex for _ in range(5))
    takes = [format_event(UsageEvent(Kind.TAKE, each, org, start, (Charge("api_calls", 1, 0),))) for each in ids]
    looks = context.recovery
    if whose == "another process":
        looks = Recovery(context.db, context.ledger, context.streams, context.scan, context.clock, LedgerClock())
    async with redis.pubsub(ignore_subscribe_messages=True) as gateway:
        await gateway.subscribe(keys.RECOVER)
        await gateway.get_message(timeout=30)
        await redis.delete(keys.org_key(org, 32), *map(keys.generation_key, SHARDS))
        recovering = asyncio.create_task(context.recovery.generation(0))
        asked = await gateway.get_message(timeout=30)
        while asked is None:
            asked = await gateway.get_message(timeout=30)
        await redis.rpush(keys.RECEIPTS, "\n".join(takes), f"end {as_text(asked['data'])}")
        looking = asyncio.create_task(looks.round())
        await recovering
    await looking
    assert await rows(context, org) == ids
    assert await redis.llen(keys.RECEIPTS) == 0


@pytest.mark.parametrize("line", ["kept", "kept 5000 7", "kept a b c", "kept -1 0 0", "kept 1 2 3 4", "\u00e9 x"])
async def test_a_line_that_is_none_of_a_gateways_holds_no_recovery_up(
    context: Context, redis: Redis, line: str
) -> None:
    await redis.rpush(keys.RECEIPTS, line, "kept 5000 7 21")
    await context.recovery.round()
    await redis.rpush(keys.RECEIPTS, line, "kept 5000 7 21")
    await redis.delete(*map(keys.generation_key, SHARDS))
    await context.recovery.round()
    assert context.recovery.units_lost == 21


async def test_the_writer_tells_the_gateways_no_more_than_is_written(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("starter")
    shard = keys.shard_of(org, 32)

    async def told() -> dict[int, tuple[int, int]]:
        await context.writer.resume()
        await context.streams.tell_written(context.writer._positions)
        found = await redis.hgetall(keys.WRITTEN)
        return {int(field): (int(epoch), int(ms)) for field, value in found.items() for epoch, ms in [value.split()]}

    async def now_ms() -> int:
        seconds, microseconds = await redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    await write_all(context)
    before = await now_ms()
    first = await told()
    assert first.keys() == set(SHARDS)
    assert all(epoch == context.recovery.epoch and before <= ms <= before + 60_000 for epoch, ms in first.values())

    await spend(context, org)
    [(entry, _)] = as_entries(await redis.xrange(keys.events_key(shard)))[-1:]
    waiting = await told()
    assert waiting[shard][1] < int(entry.split(b"-")[0])
    await spend(context, org)
    assert (await told())[shard] == waiting[shard]
    await write_all(context)
    assert (await told())[shard][1] > int(entry.split(b"-")[0])

    # What a flush has taken from the stream is not written.
    await redis.delete(keys.WRITTEN, *map(keys.generation_key, SHARDS))
    assert await told() == {}
    await hold(redis, "-0123")
    assert await told() == {}

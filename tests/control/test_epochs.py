"""The promise: who is vouched for is known to Postgres alone, and a Redis that says otherwise is put together first."""

import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.entitlements import changes
from control.entitlements.hydrate import Hydrator
from control.http.context import Context
from control.journal import Author
from control.ledger.clocks import LedgerClock
from control.reconcile.recovery import Recovery
from devstack import postgres
from quota import generation, keys
from quota.events import Charge, Kind, UsageEvent
from tests.control.epochs import SHARDS, epochs, held, hold, server
from tests.control.plane import Entitled
from tests.control.usage import written
from tests.expected import format_event
from tests.replies import as_bytes, as_text

pytestmark = pytest.mark.usefixtures("vouched_streams")


async def test_each_server_that_is_vouched_for_has_an_epoch_above_all_before_and_redis_holds_it(
    context: Context, redis: Redis
) -> None:
    before = await epochs(context)
    own = await server(redis)
    assert before[-1][1] == own
    for text in (None, "another:9:0123", "-0123"):
        await (redis.delete(*map(keys.generation_key, SHARDS)) if text is None else hold(redis, text))
        await context.recovery.round()
        [generation_text] = await held(redis)
        number, named = (await epochs(context))[-1]
        assert (named, generation.epoch_of(generation_text), generation_text.split(":")[0]) == (own, number, own)
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
    most = 3
    recovery = Recovery(
        context.db, context.ledger, context.streams, context.scan, context.clock, ledger_clock, late_max=most
    )
    await recovery.round()
    for take in takes:  # each of them many times, as gateways do that connect again and again
        await redis.rpush(keys.RECEIPTS, "\n".join([take] * 500))

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
    assert await written(context, org) == ids


async def test_what_was_vouched_for_before_there_were_epochs_is_taken_over_as_it_is(
    context: Context, redis: Redis, postgres_dsn: str
) -> None:
    postgres.execute(postgres_dsn, "DELETE FROM ledger_epoch")
    own = await server(redis)
    await hold(redis, f"{own}:0123456789abcdef")
    count = "SELECT count(*) FROM audit_journal WHERE action = 'usage.recovered'"
    recovered = postgres.execute(postgres_dsn, count)
    await context.recovery.round()
    [text] = await held(redis)
    assert text.startswith(f"{own}:1:")
    assert postgres.execute(postgres_dsn, count) == recovered


async def test_an_entitlement_that_went_back_with_the_server_is_loaded_anew(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("bulk")
    [old], before = await held(redis), as_bytes(await redis.dump(keys.org_key(org, 32)))
    await hold(redis, "another:1:0123")
    await context.recovery.round()
    await changes.set_entitlement(
        context.db, org, lambda *_: changes.Wanted("tiny"), None, context.clock(), Author("t", "t")
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

    monkeypatch.setattr(context.recovery.epochs, "read_newest", away)
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
    for record in (content, journaled):
        assert (record["takes_lost_at_most"], record["units_lost_at_most"]) == (9, 25)
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
    assert await written(context, org) == ids
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
